"""Small valid files of every format that archiveprobe reads: where every fuzzer begins."""

import contextlib
import csv
import io
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from archiveprobe.cache import shard
from archiveprobe.cache.spec import folder_name
from archiveprobe.cache.store import Writer
from archiveprobe.embed.backbones import resolve
from archiveprobe.embed.fingerprint import request
from archiveprobe.task.config import load_task
from archiveprobe.task.decoding import Observation, digest
from archiveprobe.task.folds import ensure_folds, folds_file
from archiveprobe.task.manifest import Entry, manifest_file, write_manifest
from archiveprobe.task.rows import read_rows
from archiveprobe.task.snapshot import CacheInUse, Snapshot, snapshot_file, update_snapshot

TASK = b"""\
name = "archive"
labels = ["intact", "NA", "destroyed"]
positive = "destroyed"
corrections = "corrections.csv"

[images]
root = "images"
table = "labels.csv"
id = "image"
path = "image"
label = "label"
split = "split"
text = "caption"

[folds]
count = 2
repeats = 2
seed = 7
group = "scene"

[embed]
backbones = ["hog", "own"]
views = "crops3"
layers = "last4"

[prompts]
destroyed = ["rubble after an airstrike"]

[backbone.own]
library = "timm"
name = "mobilenetv2_100"
weights = "own.safetensors"
arguments = { pad_type = "same", rate = 0.5, deep = true, count = 3 }

[backbone.own.preprocess]
size = 224
resize = 256
crop = "center"
interpolation = "bicubic"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 1]

[submission]
template = "sample.csv"
columns = ["image", "label"]
unreadable = "intact"
"""

# The task that tables, manifests and folds are read for.
HOUSE = """\
name = "house"
corrections = ""
labels = ["intact", "NA", "destroyed"]
[images]
table = "labels.csv"
id = "image"
label = "label"
split = "split"
text = "caption"
[folds]
count = 2
repeats = 2
group = "scene"
"""
CORRECTED = HOUSE.replace('corrections = ""', 'corrections = "corrections.csv"')
COLUMNS = ["image", "label", "split", "caption", "scene"]
ROWS = [
    ["a.png", "intact", "train", "شارع", "s1"],
    ["1234567890123456789", "NA", "validation", 'say "hi", twice', "s2"],
    ["001", "destroyed", "", "two\nlines", "s1"],
    ["بيت.png", "", "", " ", ""],
    ["folder/x.png", "destroyed", "test", "", "s3"],
]
IMAGES = {"a.png": b"abc", "001": b"", "بيت.png": b"abc", "folder/x.png": b"x" * 99}

FINGERPRINT = {"backbone": "hog", "views": ["center", "flip"], "precision": "fp32"}
CACHE = folder_name("hog", FINGERPRINT)
ROW_SHAPE = (2, 8)
COMMITTED_AT = (5, 6, 11)
LOGGED = 2  # The third shard is whole, but the log does not name it yet.


@contextlib.contextmanager
def small_chunks() -> Iterator[None]:
    """Within this context shards have chunks of 64 bytes, so that a small one has many."""
    usual = shard._CHUNK_BYTES
    shard._CHUNK_BYTES = 64
    try:
        yield
    finally:
        shard._CHUNK_BYTES = usual


def rows() -> dict[bytes, np.ndarray]:
    """Eleven rows (2, 8) by key, with zeros as rectified networks give them."""
    numbers = np.random.default_rng(7).standard_normal((11, *ROW_SHAPE))
    rectified = np.maximum(numbers, 0).astype(np.float16)
    return {bytes.fromhex(digest(b"%d" % i)): row for i, row in enumerate(rectified)}


@cache
def request_of_house() -> dict[str, Any]:
    """What the task of the house asks of a cache."""
    with tempfile.TemporaryDirectory() as name:
        build_house(Path(name))
        task = load_task(Path(name))
        return request(task, resolve("hog", task))


@cache
def cache_files() -> dict[str, bytes]:
    """A cache of three shards, by path below its folder."""
    with tempfile.TemporaryDirectory() as name, small_chunks():
        folder = Path(name) / CACHE
        with Writer.open(folder, FINGERPRINT, request_of_house()) as writer:
            writer.fail(b"f" * 32, "zero", "the embedding is zero as float16")
            for number, (key, row) in enumerate(rows().items(), start=1):
                writer.add(key, row)
                if number in COMMITTED_AT:
                    writer.commit()
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "LOCK"
        }
    lines = found["commits.jsonl"].splitlines(keepends=True)
    return found | {"commits.jsonl": b"".join(lines[:LOGGED])}


@cache
def shards() -> list[str]:
    """The paths of the shards in `cache_files`, in order."""
    return sorted(path for path in cache_files() if path.startswith("shards/"))


def as_csv(lines: list[list[str]]) -> bytes:
    """The lines as a CSV file in UTF-8."""
    out = io.StringIO()
    csv.writer(out).writerows(lines)
    return out.getvalue().encode()


def table() -> bytes:
    """The table of the house."""
    return as_csv([COLUMNS, *ROWS])


def tables() -> list[bytes]:
    """The table in every form and encoding that is read, and with other line ends."""
    text = table().decode()
    frame = pd.DataFrame(ROWS, columns=COLUMNS)
    sheet, parquet = io.BytesIO(), io.BytesIO()
    frame.to_excel(sheet, index=False)
    frame.to_parquet(parquet)
    return [
        table(),
        text.encode("utf-8-sig"),
        text.encode("utf-16"),
        b"\xfe\xff" + text.encode("utf-16-be"),
        text.replace("\r\n", "\n").encode(),
        text.encode("cp1252", "replace") + b"gr\xf6\xdfe.png,,,,\r\n",
        sheet.getvalue(),
        parquet.getvalue(),
        frame.to_json(orient="records").encode(),
        frame.to_json(orient="records", lines=True).encode(),
    ]


def corrections() -> bytes:
    """Corrections of the house's table."""
    return b"id,label,why\r\na.png,destroyed,seen\r\n001,,unclear\r\n"


def decisions() -> bytes:
    """Corrections as they are recorded, of a row of the house and of one that it lacks."""
    when = b"2026-11-28T21:00:00Z"
    return (
        b"id,label,old_label,decision,who,when\r\n"
        b"a.png,destroyed,intact,change,Ana," + when + b"\r\n"
        b"gone.png,intact,intact,keep,Ana," + when + b"\r\n"
    )


def build_house(folder: Path, settings: str = HOUSE) -> None:
    """Lay the task, its table and its images into `folder`."""
    for path, content in IMAGES.items():
        file = folder / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (folder / "work").mkdir(exist_ok=True)
    (folder / "task.toml").write_text(settings, "utf-8")
    (folder / "labels.csv").write_bytes(table())
    (folder / "corrections.csv").write_bytes(corrections())


def entries() -> list[Entry]:
    """What the manifest of the house holds."""
    seen = Observation("ok", "", 3, 40, 30, "PNG", 1, 1, 0, 0.25, 1.5, 2.0, 255.0, "00ff" * 4)
    statuses = [seen, Observation("missing_file"), Observation("tiny", bytes=0), None, seen]
    return [
        Entry(row[0], row[0], digest(row[0].encode()) if seen else "", seen, 5, 6)
        for row, seen in zip(ROWS, statuses, strict=True)
    ]


@cache
def products() -> dict[str, bytes]:
    """The house's manifest.csv and folds.csv."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_house(folder)
        task = load_task(folder)
        write_manifest(task, entries())
        ensure_folds(task, read_rows(task), entries())
        return {file.name: file.read_bytes() for file in (manifest_file(task), folds_file(task))}


@cache
def snapshot() -> bytes:
    """The house's snapshot.json, with one cache in use."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_house(folder)
        task = load_task(folder)
        in_use = CacheInUse(task.asks("hog"), CACHE, "0" * 64, finished=True)
        update_snapshot(
            task, lambda _: Snapshot("task.toml", "1" * 64, True, {"rows": "2" * 64}, (in_use,))
        )
        return snapshot_file(task).read_bytes()


@cache
def weights(suffix: str) -> list[bytes]:
    """Files of two tensors: safetensors, or torch's own in its new and its old form."""
    import safetensors.torch
    import torch

    state = {
        "a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "a.bias": torch.ones(2),
    }
    if suffix == ".safetensors":
        return [safetensors.torch.save(state)]
    forms = []
    for content, zipped in ((state, True), ({"state_dict": state}, True), (state, False)):
        out = io.BytesIO()
        torch.save(content, out, _use_new_zipfile_serialization=zipped)
        forms.append(out.getvalue())
    return forms


@cache
def pictures() -> list[bytes]:
    """One small image in every format, some with EXIF, transparency or several frames."""
    coarse = np.random.default_rng(3).integers(0, 256, (4, 6, 3), np.uint8)
    picture = Image.fromarray(coarse).resize((40, 33))
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"save_all": True, "append_images": [picture.rotate(90)]}
    forms = [
        (picture, "JPEG", {"exif": exif}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture, "PNG", {}),
        (picture.convert("RGBA"), "PNG", {"exif": exif}),
        (picture.convert("P"), "PNG", {"transparency": 3}),
        (picture.convert("I;16"), "PNG", {}),
        (picture, "GIF", more),
        (picture, "WEBP", {}),
        (picture, "BMP", {}),
        (picture, "TIFF", {"compression": "tiff_lzw"}),
        (picture, "AVIF", {}),
    ]
    found = []
    for image, form, options in forms:
        out = io.BytesIO()
        image.save(out, form, **options)
        found.append(out.getvalue())
    return found
