"""Folders of answers that nobody had to compute: a few units, answered by their numbers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from archiveprobe.archive.index import Index, write_index
from archiveprobe.archive.references import Reference
from archiveprobe.archive.units import Receipt, Share, Unit
from archiveprobe.base.files import explained
from archiveprobe.predict.answers.complete import answer_missing
from archiveprobe.predict.answers.folder import AnswersWriter
from archiveprobe.predict.answers.layout import INDEX
from archiveprobe.predict.answers.merge import mend_merge
from archiveprobe.predict.answers.part import UnitAnswers, write_part
from archiveprobe.predict.answers.read import iterate_parts
from archiveprobe.predict.answers.record import AnswersRecord

CLASSES = ("intact", "destroyed")
PER_UNIT = 2


class Numbers:
    """A source of images that are numbers."""

    name = "numbers"

    def __init__(self, count: int) -> None:
        self.count = count

    def identity(self) -> dict[str, Any]:
        return {"kind": "numbers", "place": self.count}

    def references(self, *, notify: object) -> Any:  # noqa: ARG002
        return (Reference(f"{at:06}", f"{at:06}") for at in range(self.count))


def make(folder: Path, images: int = 5) -> tuple[Index, AnswersRecord]:
    """Write the index and the record of a folder of answers."""
    index = write_index(Numbers(images), folder / INDEX, PER_UNIT)  # type: ignore[arg-type]
    record = AnswersRecord(
        task="made",
        system="ridge",
        system_digest="5" * 64,
        snapshot="e" * 64,
        classes=CLASSES,
        positive=1,
        backbones={"hog": "b" * 64},
        source=index.source,
        index=index.digest,
        images=images,
        unit_images=PER_UNIT,
        listed="2026-11-29 00:00+00:00",
        versions={},
    )
    record.write(folder)
    return index, record


def opened(folder: Path) -> tuple[Index, AnswersRecord]:
    """Read what `make` has written."""
    record = AnswersRecord.read(folder)
    assert record is not None
    return Index.open(folder / INDEX), record


def answer(parts: Path, unit: Unit) -> Receipt:
    """Write the part of a unit; every third image cannot be read."""
    numbers = np.array([int(reference.id) for reference in unit.references])
    broken = numbers % 3 == 2
    p = np.where(broken, np.nan, 1 / (2 + numbers))
    return write_part(
        parts,
        unit,
        UnitAnswers(
            digests=["" if bad else f"{n:064x}" for n, bad in zip(numbers, broken, strict=True)],
            status=["missing_file" if bad else "ok" for bad in broken],
            labels=[None if bad else CLASSES[0] for bad in broken],
            classes=CLASSES,
            proba=np.stack([1 - p, p], 1),
            spread=np.full(len(numbers), np.nan),
            backbone="b" * 16,
            system="5" * 16,
        ),
    )


def run(
    folder: Path,
    share: Share | None = None,
    *,
    said: Callable[[str], None] = lambda _: None,
    computed: Callable[[int], None] = lambda _: None,
    committed: Callable[[int], None] = lambda _: None,
) -> AnswersRecord:
    """Answer what is missing, as `predict` does."""
    index, record = opened(folder)

    def drive(writer: AnswersWriter) -> None:
        for number in writer.missing():
            computed(number)
            with explained(f"write answers into {writer.parts}"):
                receipt = answer(writer.parts, index.unit(number))
            writer.commit(receipt)
            committed(number)

    mend_merge(folder)
    return answer_missing(folder, index, record, share, drive, notify=said)


def check_whole(folder: Path) -> None:
    """Hold the answers of a finished folder against what they must be, as read by us and others."""
    _, record = opened(folder)
    assert record.counts is not None
    assert sum(record.counts.status.values()) == record.images
    rows = [row for table in iterate_parts(folder) for row in table.to_pylist()]
    others = pq.read_table(folder / "parts").to_pylist()
    assert rows == others
    assert [row["id"] for row in rows] == [f"{at:06}" for at in range(record.images)]
    for at, row in enumerate(rows):
        assert row["p_destroyed"] == (None if at % 3 == 2 else 1 / (2 + at))
        assert row["status"] == ("missing_file" if at % 3 == 2 else "ok")
