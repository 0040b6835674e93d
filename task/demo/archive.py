"""Write the demo archive: all of it, or nothing."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from archiveprobe.base.errors import InputError
from archiveprobe.task.demo.dress import DRESSES, REPOSTS
from archiveprobe.task.demo.encode import encode
from archiveprobe.task.demo.picture import paint
from archiveprobe.task.demo.plan import LABELS, LEAST, NEGATIVE, Row, make_plan, tally
from archiveprobe.task.demo.texts import TASK_TOML, readme

# The second word of each random stream: the plan, a picture's drawing, its way into a file.
_PLAN, _DRAW, _SAVE = range(3)


class DemoError(InputError):
    """The demo archive cannot be written as asked."""


@dataclass(frozen=True, kw_only=True)
class DemoSummary:
    """What was written: numbers of pictures, by true label of the table and by split."""

    folder: Path
    pictures: int
    labels: Mapping[str, int]
    splits: Mapping[str, int]
    reposts: int
    unreadable: int
    bytes: int


def write_demo(folder: Path, *, seed: int = 0, count: int = 400) -> DemoSummary:
    """Write a demo archive of `count` pictures (60 or more) to a new or empty folder.

    The same seed gives the same bytes. Raises DemoError where the folder holds something.
    """
    _check(folder, seed, count)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, hence on the same disk: the last step is one rename.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        draft = Path(name) / "draft"
        rows = make_plan(count, np.random.default_rng([seed, _PLAN]))
        written = _write_images(draft / "images", rows, seed)
        _write_tables(draft, rows, seed)
        _put(draft, folder)
    return DemoSummary(
        folder=folder,
        pictures=count,
        labels=tally(row.label for row in rows),
        splits=tally(row.split for row in rows),
        reposts=sum(row.source is not None for row in rows),
        unreadable=sum(row.form in ("truncated", "html") for row in rows),
        bytes=written,
    )


def _check(folder: Path, seed: int, count: int) -> None:
    if count < LEAST:
        raise DemoError(f"count is {count}: the demo archive needs at least {LEAST} pictures")
    if seed < 0:
        raise DemoError(f"seed is {seed}: it must be 0 or more")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise DemoError(f"{folder} exists and is not a folder: choose another name")
    if folder.exists() and any(folder.iterdir()):
        raise DemoError(f"{folder} exists and is not empty: choose a new folder or empty this one")


def _put(draft: Path, folder: Path) -> None:
    try:
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except OSError as error:
        raise DemoError(f"{folder} was filled by something else meanwhile: {error}") from error


def _write_images(root: Path, rows: Sequence[Row], seed: int) -> int:
    written = 0
    for row in rows:
        path = root / row.name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, _SAVE, row.index])
        if row.source is None:
            content = encode(_draw(row, seed), row.form, rng)
        else:
            content = _copy((root / rows[row.source].name).read_bytes(), row, rng)
        path.write_bytes(content)
        written += len(content)
    return written


def _draw(row: Row, seed: int) -> Image.Image:
    rng = np.random.default_rng([seed, _DRAW, row.index])
    image = paint(row.shows, rng)
    return DRESSES[row.dress](image, rng) if row.dress else image


def _copy(content: bytes, row: Row, rng: np.random.Generator) -> bytes:
    if row.change not in REPOSTS:
        return content
    with Image.open(io.BytesIO(content)) as image:
        return encode(REPOSTS[row.change](image.convert("RGB"), rng), row.form, rng)


def _csv(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def _write_tables(draft: Path, rows: Sequence[Row], seed: int) -> None:
    rng = np.random.default_rng([seed, _SAVE])
    # Shuffled, or the copies would all stand at the end.
    table = [rows[k] for k in rng.permutation(len(rows)).tolist()]
    test = [row for row in table if row.split == "test"]
    head = ("image", "label", "split", "caption")
    known = [(r.name, "" if r.split == "test" else r.label, r.split, r.caption) for r in table]
    hidden = [(r.name, r.label, r.split, r.caption) for r in test]
    answers = [(r.name, NEGATIVE) for r in test]
    examples = {
        "known": _one_line(next(row for row in known if row[1] == LABELS[1])),
        "hidden": _one_line(hidden[0]),
        "answer": _one_line(answers[0]),
        "example": next(r.name for r in table if not r.name.isascii()),
    }
    texts = {
        "labels.csv": _csv(head, known),
        "test_labels.csv": _csv(head, hidden),
        "sample_submission.csv": _csv(head[:2], answers),
        "task.toml": TASK_TOML,
        "README.md": readme(count=len(rows), seed=seed, **examples),
    }
    for name, text in texts.items():
        (draft / name).write_text(text, encoding="utf-8", newline="\n")


def _one_line(row: Sequence[str]) -> str:
    return _csv(row, []).strip()
