"""A small task with systems, and archives that its systems answer unit by unit."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
from PIL import Image

from archiveprobe.archive.index import Index, write_index
from archiveprobe.archive.source import open_source
from archiveprobe.archive.units import Receipt
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.run import embed
from archiveprobe.predict.drivers.local import run
from archiveprobe.predict.system_digest import system_digest
from archiveprobe.predict.units import UnitWork
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import Task, load_task

TASK = """\
name = "pictures"
labels = ["bright", "dark"]
[images]
table = "labels.csv"
[folds]
count = 2
repeats = 1
group = "none"
[embed]
backbones = ["{backbone}"]
views = "{views}"
"""
LABELLED, OPEN = 20, 4


def picture(seed: int) -> bytes:
    """A PNG of 40 x 40 pixels; odd seeds have finer shapes than even ones."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4 + 8 * (seed % 2), 5, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def pictured_task(folder: Path, *, backbone: str = "hog", views: str = "flip") -> Task:
    """Write a task of 20 labelled and 4 open images."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,label"]
    for at in range(LABELLED + OPEN):
        (folder / "images" / f"{at:02}.png").write_bytes(picture(at))
        lines.append(f"{at:02}.png,{('bright', 'dark')[at % 2] if at < LABELLED else ''}")
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder / "task.toml").write_text(TASK.format(backbone=backbone, views=views))
    return load_task(folder)


def fit(task: Task, *probes: str, **options: Any) -> None:
    """Embed a task and fit probes on it."""
    embed(task, EmbedOptions(workers=0, device="cpu"))
    run_probes(task, Options(probes=probes or ("ridge", "lda"), workers=1, **options))


def archive_of(folder: Path, contents: Iterable[bytes]) -> Path:
    """Write files into a folder, named by their number."""
    folder.mkdir(parents=True)
    for at, content in enumerate(contents):
        (folder / f"{at:04}.png").write_bytes(content)
    return folder


class Run:
    """A run over an archive, in a folder of its own."""

    def __init__(
        self, task: Task, images: Path, out: Path, *, unit_images: int = 4, **fields: Any
    ) -> None:
        source = open_source(str(images))
        self.parts = out / "parts"
        self.index: Index = write_index(source, out / "index.parquet", unit_images)
        fields = {"system": "ridge-hog", "device": "cpu"} | fields
        digest = system_digest(task, fields["system"])
        self.work = UnitWork(task.file, source=source, folder=self.parts, digest=digest, **fields)
        self.receipts: list[Receipt] = []
        self.said: list[str] = []

    def drive(self, todo: Iterable[int] | None = None, *, workers: int = 0) -> "Run":
        """Answer units, by default all."""
        numbers = range(self.index.units) if todo is None else todo
        commit = self.receipts.append
        run(self.work, self.index, numbers, commit, workers=workers, notify=self.said.append)
        return self

    def rows(self) -> list[dict[str, Any]]:
        """Return every row that has a receipt, in the order of the units."""
        receipts = sorted(self.receipts, key=lambda receipt: receipt.unit)
        tables = [parquet.read_table(self.parts / receipt.file) for receipt in receipts]
        return [row for table in tables for row in table.to_pylist()]

    def bytes(self) -> dict[str, bytes]:
        """Return the bytes of every part."""
        return {file.name: file.read_bytes() for file in sorted(self.parts.glob("*.parquet"))}
