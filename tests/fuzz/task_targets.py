"""What a user hands over: task.toml, tables, images, and the products beside them."""

import codecs
import csv
import hashlib
import io
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import seeds
from law import told
from snapshots import sealed_anew

from archiveprobe.cache.spec import canonical
from archiveprobe.embed.backbones import resolve
from archiveprobe.embed.fingerprint import request
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.decoding import (
    FLAGS,
    PIXEL_LIMIT,
    REJECTIONS,
    THUMBNAIL,
    Observation,
    decode,
    digest,
)
from archiveprobe.task.duplicates import contradictions, near_duplicate_groups
from archiveprobe.task.folds import ensure_folds, folds_file
from archiveprobe.task.labels import fold
from archiveprobe.task.layouts.init import write_task
from archiveprobe.task.manifest import manifest_file, read_manifest, write_manifest
from archiveprobe.task.rows import Row, locate, read_rows
from archiveprobe.task.scan import scan
from archiveprobe.task.snapshot import read_snapshot, snapshot_file, update_snapshot
from archiveprobe.task.splits import SPLITS
from archiveprobe.task.tables.table import read_table
from archiveprobe.task.texts import texts

MARKS = {"comma": ",", "semicolon": ";", "tab": "\t"}


def task_file(data: bytes, folder: Path) -> None:
    """task.toml: what is read is what tomllib reads, and everything can be asked of it."""
    if not (folder / "images").exists():
        seeds.build_house(folder)
    (folder / "task.toml").write_bytes(data)
    with told():
        task = load_task(folder)
        assert_as_written(tomllib.loads(data.decode("utf-8-sig")), task)
        for name in dict.fromkeys([*task.embed.backbones, *task.backbone]):
            with told():
                canonical(request(task, resolve(name, task)))
        if all(map(_stays_inside, (task.images.root, task.images.table, task.corrections))):
            scan(task, read_rows(task))


def assert_as_written(written: Mapping[str, Any], read: Any) -> None:
    """Every key of the parsed TOML has the same value in the model."""
    for key, value in written.items():
        got = read[key] if isinstance(read, Mapping) else getattr(read, key)
        if isinstance(value, dict):
            assert_as_written(value, got)
        elif isinstance(value, list):
            assert list(got) == value, key
        else:
            assert got == value, key


def _stays_inside(path: str | None) -> bool:
    return path is None or not (path.startswith("/") or ".." in path.split("/"))


def house(folder: Path, settings: str = seeds.HOUSE) -> Task:
    """The task of the house in `folder`, built at its first use."""
    if not (folder / "task.toml").exists():
        seeds.build_house(folder, settings)
    return load_task(folder)


def table(data: bytes, folder: Path) -> None:
    """The table: cells as a second reader sees them, rows in their order, ids as written."""
    task = house(folder)
    (folder / "labels.csv").write_bytes(data)
    with told():
        read = read_table(folder / "labels.csv")
        if read.form.startswith("CSV"):
            assert [list(read.columns), *(list(row.values()) for row in read.rows)] == [
                *kept(cells_of(data, read.separator), read.columns)
            ]
        rows = read_rows(task)
        scored = read_rows(task, test_labels=True)
        for row, exact, cells in zip(rows, scored, read.rows, strict=True):
            assert_row(row, exact, cells)
        assert len({row.id for row in rows}) == len(rows)
        entries = scan(task, rows)
        write_manifest(task, entries)
        assert [entry.id for entry in read_manifest(task)] == [row.id for row in rows]
        texts(task, rows)
        contradictions(rows, entries)


def decoded(data: bytes) -> str:
    """The text of a table's bytes."""
    wide = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def kept(lines: list[list[str]], columns: Sequence[str]) -> Iterator[list[str]]:
    """Lines without those that have no cell, and without the columns that are left out."""
    at = [lines[0].index(name) for name in columns]
    yield list(columns)
    for line in lines[1:]:
        if any(line):
            yield [line[place] for place in at]


def cells_of(data: bytes, separator: str) -> list[list[str]]:
    """The cells of a table's lines, blank ones left out."""
    text = io.StringIO(decoded(data), newline="")
    return [*filter(None, csv.reader(text, delimiter=MARKS[separator], strict=True))]


def assert_row(row: Row, scored: Row, cells: Mapping[str, str]) -> None:
    """The row holds its line's cells; the label of a test row is seen by scoring only."""
    assert (row.id, row.path, row.text, row.group) == (
        cells["image"],
        cells["image"],
        cells["caption"],
        cells["scene"],
    )
    assert row.split is None or row.split in SPLITS
    assert (row.split is None) == (not cells["split"].strip())
    label = cells["label"].strip()
    assert (scored.label is None) == (not label)
    assert scored.label is None or fold(scored.label) == fold(label)
    assert row.label == (None if row.split == "test" else scored.label)


def corrections(data: bytes, folder: Path) -> None:
    """Corrections change the labels that they name, and nothing else."""
    task = house(folder, seeds.CORRECTED)
    (folder / "corrections.csv").write_bytes(data)
    with told():
        after = read_rows(task, test_labels=True)
        read = read_table(folder / "corrections.csv")
        if not read.form.startswith("CSV"):
            return
        lines = cells_of(data, read.separator)
        cells = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
        fixed = {
            each["id"]: each["label"]
            for each in cells
            if fold(each.get("decision", "")) in ("", "change")
        }
        before = [seeds.ROWS[number] for number in range(len(seeds.ROWS))]
        for row, cells in zip(after, before, strict=True):
            label = fixed.get(cells[0], cells[1])
            assert row.id == cells[0]
            assert fold(row.label or "") == fold(label)


def snapshot(data: bytes, folder: Path) -> None:
    """The snapshot, as it is and as a stranger would seal it: read, refused, or written again."""
    task = house(folder)
    rest = data.partition(b"\n")[2]
    digest = hashlib.sha256(rest).hexdigest()
    for content in (data, f'{{"sha256": "{digest}",\n'.encode() + rest):
        snapshot_file(task).parent.mkdir(parents=True, exist_ok=True)
        snapshot_file(task).write_bytes(content)
        with told():
            found = read_snapshot(task)
            assert found.cache(task.asks("hog")) is None or found.caches
            update_snapshot(task, lambda before: before)
            assert read_snapshot(task) == replace(found, task=task.file.name)


def manifest(data: bytes, folder: Path) -> None:
    """The manifest, as it is and as a stranger would seal it."""
    for content in (data, sealed_anew(data)):
        _manifest(content, folder)


def _manifest(data: bytes, folder: Path) -> None:
    """What is read can be used and written again; digests are those of the bytes."""
    task = house(folder)
    file = manifest_file(task)
    file.write_bytes(data)
    with told():
        entries = read_manifest(task)
        assert all(len(bytes.fromhex(entry.digest)) in (0, 32) for entry in entries)
        near_duplicate_groups(entries)
        write_manifest(task, entries)
        assert read_manifest(task) == entries
        file.write_bytes(data)
        rows = read_rows(task)
        for row, entry in zip(rows, scan(task, rows), strict=True):
            at = locate(task.root, row.path)
            true = digest(at.read_bytes()) if at.is_file() else ""
            assert (entry.id, entry.digest) == (row.id, true)


def folds(data: bytes, folder: Path) -> None:
    """The folds: every labelled row has one per repeat, and a second look finds the same."""
    task = house(folder)
    folds_file(task).write_bytes(data)
    rows = read_rows(task)
    with told():
        placed = ensure_folds(task, rows, seeds.entries()).placed
        for row in rows:
            assert row.label is None or len(placed[row.id].folds) == task.folds.repeats
        for place in placed.values():
            assert all(0 <= fold < task.folds.count for fold in place.folds)
        assert ensure_folds(task, rows, seeds.entries()).placed == placed


def starter(data: bytes, folder: Path) -> None:
    """`init` beside any table writes a task.toml that can be read."""
    house(folder)
    shutil.copy(folder / "images" / "a.png", folder / "a.png")
    (folder / "task.toml").unlink()
    # It would be read with the new task, whose labels are others.
    (folder / "corrections.csv").unlink(missing_ok=True)
    (folder / "labels.csv").write_bytes(data)
    task = load_task(write_task(folder))
    with told():
        read_rows(task)


def picture(data: bytes, folder: Path) -> None:
    """An image: upright RGB and its observation, or a rejection; never an exception."""
    seen = decode(data)
    observed = seen if isinstance(seen, Observation) else seen.observation
    assert observed.bytes == len(data)
    assert len(observed.detail.splitlines()) <= 1
    if isinstance(seen, Observation):
        assert observed.status in REJECTIONS
        return
    assert observed.status in {"ok", *FLAGS}
    assert seen.pixels.mode == seen.thumbnail.mode == "RGB"
    assert seen.pixels.size == (observed.width, observed.height)
    assert seen.pixels.width * seen.pixels.height <= PIXEL_LIMIT
    assert max(seen.thumbnail.size) <= THUMBNAIL
    assert len(bytes.fromhex(observed.phash)) == 8
    assert not any(value != value for value in observed)
