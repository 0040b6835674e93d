"""An archive whose rows, images and weights come and go, and what its commands say of it."""

import csv
import io
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from counted import Bench, CountingEncoder
from PIL import Image

import archiveprobe.embed.job
import archiveprobe.embed.prepare
import archiveprobe.embed.unit_encoder
from archiveprobe.archive.source import open_source
from archiveprobe.cache.store import Writer
from archiveprobe.embed.export import export_task
from archiveprobe.predict.archive import How
from archiveprobe.predict.archive_table import predict_table
from archiveprobe.predict.images import predict
from archiveprobe.predict.states import system_states
from archiveprobe.predict.submission import submit
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.manifest import read_manifest

LABELS = ("intact", "destroyed")
TASK = """name = "shelf"
labels = ["intact", "destroyed"]
corrections = "corrections.csv"
[images]
root = "images"
table = "labels.csv"
id = "image"
[folds]
count = {folds}
repeats = 1
[embed]
backbones = [{backbones}]
views = "{views}"
[backbone.eye]
library = "timm"
name = "resnet18"
weights = "eye.bin"
preprocess = {{ size = 32, mean = [0, 0, 0], std = [1, 1, 1] }}
[backbone.ear]
library = "timm"
name = "resnet18"
weights = "ear.bin"
preprocess = {{ size = 32, mean = [0, 0, 0], std = [1, 1, 1] }}
"""


def image(seed: int, label: str = LABELS[0]) -> bytes:
    """A PNG of coarse noise, another one for every seed; destroyed ones are a little brighter."""
    coarse = np.random.default_rng(seed).integers(0, 226, (6, 8, 3), np.uint8)
    coarse += np.uint8(30 * (label == LABELS[1]))
    return _png(Image.fromarray(coarse).resize((48, 36), Image.Resampling.BICUBIC))


def near(content: bytes, step: int = 1) -> bytes:
    """A near-duplicate: the same image, a shade brighter."""
    pixels = np.asarray(Image.open(io.BytesIO(content))).astype(np.int64) + step
    return _png(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


def drifted(content: bytes, seed: int) -> bytes:
    """Another image that a hash may or may not take for a near-duplicate: it is half way there."""
    pixels = np.asarray(Image.open(io.BytesIO(content))).astype(np.int64)
    coarse = np.random.default_rng(seed).integers(-40, 41, (3, 4, 1))
    moved = np.kron(coarse, np.ones((12, 12, 1), np.int64))
    return _png(Image.fromarray((pixels + moved).clip(0, 255).astype(np.uint8)))


def _png(drawn: Image.Image) -> bytes:
    out = io.BytesIO()
    drawn.save(out, "PNG")
    return out.getvalue()


class WeighedEncoder(CountingEncoder):
    """Its embeddings depend on its weights: twelve mixtures of what the counting encoder gives."""

    def embed(
        self, crops: np.ndarray, mirror: np.ndarray, crop: np.ndarray | None = None
    ) -> np.ndarray:
        seen = super().embed(crops, mirror, crop)
        rng = np.random.default_rng(int(self.weights_digest[:12], 16))
        return (seen / 256) @ rng.normal(size=(seen.shape[1], 12)) + 4


class WeighedBench(Bench):
    kind = WeighedEncoder


@contextmanager
def weighed_bench() -> Iterator[WeighedBench]:
    """Encoders in place of networks, and images that are counted, as long as this lasts."""
    bench = WeighedBench()
    real = archiveprobe.embed.prepare.decode_pixels

    def counted(*arguments: Any) -> Any:
        bench.decoded += 1
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archiveprobe.embed.prepare, "decode_pixels", counted)
        patch.setattr(archiveprobe.embed.job, "load_backbone", bench.encoder)
        patch.setattr(archiveprobe.embed.unit_encoder, "load_backbone", bench.encoder)
        yield bench


@dataclass(frozen=True)
class Line:
    """A row of the table; `label` is empty for a row to predict."""

    label: str
    content: bytes | None


class Shelf:
    """A task folder with a table, images and weights, and its way through the commands."""

    def __init__(self, folder: Path, bench: Bench) -> None:
        self.folder, self.bench = folder, bench
        self.lines: dict[str, Line] = {}
        self.corrections: dict[str, str] = {}
        self.backbones, self.views, self.folds = ("eye",), "center", 2
        (folder / "images").mkdir(parents=True)
        self.weigh("eye", "first")
        self.weigh("ear", "first of the other")

    # What its owner does

    def put(self, name: str, label: str, content: bytes | None) -> None:
        """Add a row, or give it another label or image."""
        self.lines[name] = Line(label, content)
        if content is None:
            self.file(name).unlink(missing_ok=True)
        else:
            self.file(name).write_bytes(content)

    def fill(self, labelled: int = 12, to_predict: int = 3, start: int = 0) -> None:
        """Rows of both labels in turn, then rows to predict."""
        for seed in range(start, start + labelled + to_predict):
            label = LABELS[seed % 2]
            told = label if seed < start + labelled else ""
            self.put(f"{seed:03}.png", told, image(seed, label))

    def drop(self, name: str) -> None:
        del self.lines[name]
        self.corrections.pop(name, None)
        self.file(name).unlink(missing_ok=True)

    def rename(self, old: str, new: str) -> None:
        self.lines = {new if name == old else name: line for name, line in self.lines.items()}
        if old in self.corrections:
            self.corrections[new] = self.corrections.pop(old)
        if self.file(old).exists():
            self.file(old).rename(self.file(new))

    def weigh(self, backbone: str, weights: str, mtime: int | None = None) -> None:
        """Replace the weights of a backbone; `mtime` as a restored copy has it."""
        file = self.folder / f"{backbone}.bin"
        file.write_text(weights)
        if mtime is not None:
            os.utime(file, (mtime, mtime))

    def file(self, name: str) -> Path:
        return self.folder / "images" / name

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def labels(self) -> dict[str, str]:
        """The label of every labelled row, as corrected."""
        told = {name: self.corrections.get(name, line.label) for name, line in self.lines.items()}
        return {name: label for name, label in told.items() if label}

    @property
    def task(self) -> Task:
        """Write the table and the task file as they stand now, and load them."""
        _write_csv(
            self.folder / "labels.csv",
            ["image", "label"],
            [(name, line.label) for name, line in self.lines.items()],
        )
        _write_csv(self.folder / "corrections.csv", ["id", "label"], self.corrections.items())
        names = ", ".join(f'"{name}"' for name in self.backbones)
        text = TASK.format(backbones=names, views=self.views, folds=self.folds)
        (self.folder / "task.toml").write_text(text)
        return load_task(self.folder)

    def copied(self, folder: Path, *, images: bool = True) -> "Shelf":
        """The same on another machine."""
        left = () if images else ("images",)
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(*left))
        other = Shelf.__new__(Shelf)
        other.__dict__.update(self.__dict__)
        other.folder, other.lines = folder, dict(self.lines)
        other.corrections = dict(self.corrections)
        return other

    # What the commands say

    def embed(self, **options: Any) -> Any:
        return self.bench.run(self.task, **options)

    def probe(self, *features: str, partial: bool = False, kind: str = "ridge") -> dict[str, Any]:
        """The leaderboard of one probe, without what differs between two runs."""
        options = Options((kind,), features or None, workers=1, partial=partial)
        board = run_probes(self.task, options).record()
        for line in board["leaderboard"]:
            del line["seconds"]
        del board["seconds"]
        return board

    def states(self) -> dict[str, str]:
        """The state of every stored system, as `list systems` shows it."""
        return {one.system: one.state for one in system_states(self.task)}

    def submission(self, system: str) -> str:
        file = self.folder / "submission.csv"
        file.unlink(missing_ok=True)
        submit(self.task, system, file)
        return file.read_text()

    def prediction(self, system: str, images: Path | None = None) -> str:
        file = self.folder / "answers.csv"
        file.unlink(missing_ok=True)
        if images is None:
            predict(self.task, system, file)
        else:
            how = How(device="cpu", workers=0)
            predict_table(self.task, system, open_source(str(images)), file, how)
        return file.read_text()

    def export(self, **how: Any) -> dict[str, Any]:
        """What an exported file holds: columns, and embeddings."""
        file = self.folder / "export.h5"
        file.unlink(missing_ok=True)
        export_task(self.task, file, **how)
        with h5py.File(file) as h5:
            columns = {name: h5[name].asstr()[:].tolist() for name in ("id", "label", "status")}
            found = {name: h5["embeddings"][name][:] for name in h5["embeddings"]}
        return columns | found

    def fresh(self, folder: Path) -> "Shelf":
        """The same inputs, and the folds, embedded in one go in an empty work folder."""
        other = self.copied(folder)
        folds = self.work / "folds.csv"
        kept = folds.read_bytes() if folds.exists() else None
        shutil.rmtree(other.work)
        if kept is not None:
            other.work.mkdir()
            (other.work / "folds.csv").write_bytes(kept)
        other.embed()
        return other

    def places(self) -> dict[str, tuple[str, str]]:
        """The group and the fold of every placed row, as folds.csv has them."""
        file = self.work / "folds.csv"
        if not file.exists():
            return {}
        with file.open(newline="") as stream:
            read = csv.DictReader(stream)
            return {cells["id"]: (cells["group"], cells["repeat0"]) for cells in read}

    def fold_of(self) -> dict[str, str]:
        """The fold of every placed row."""
        return {name: fold for name, (_, fold) in self.places().items()}

    def digests(self) -> dict[str, str]:
        """The digest of every row's image, as the manifest has it."""
        return {entry.id: entry.digest for entry in read_manifest(self.task)}


def _write_csv(file: Path, header: list[str], lines: Iterable[Iterable[str]]) -> None:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *lines])


# Kills

Kill = Callable[[], None]


def killed_embed(shelf: Shelf, at: int, moments: str = "decode", **options: Any) -> bool:
    """Embed in a child that ends by SIGKILL at its n-th moment; whether it came to that.

    The moments are "decode" (an image is decoded), "commit" (a row was committed: every row is,
    here), or "disk" (a file is renamed or made durable).
    """
    task = shelf.task
    child = os.fork()
    if not child:
        try:
            with pytest.MonkeyPatch.context() as patch:
                _MOMENTS[moments](patch, _countdown(at))
                shelf.bench.run(task, **options)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _countdown(at: int) -> Kill:
    left = iter(range(at, 0, -1))

    def kill() -> None:
        if next(left) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def _at_decodes(patch: pytest.MonkeyPatch, kill: Kill) -> None:
    real = archiveprobe.embed.prepare.decode_pixels
    _commit_every_row(patch, lambda: None)
    patch.setattr(
        archiveprobe.embed.prepare, "decode_pixels", lambda *given: (kill(), real(*given))[1]
    )


def _at_commits(patch: pytest.MonkeyPatch, kill: Kill) -> None:
    _commit_every_row(patch, kill)


def _commit_every_row(patch: pytest.MonkeyPatch, after: Kill) -> None:
    real = Writer.add

    def add(self: Writer, key: bytes, embedding: Any) -> str | None:
        said = real(self, key, embedding)
        self.commit()
        after()
        return said

    patch.setattr(Writer, "add", add)


def _at_disk(patch: pytest.MonkeyPatch, kill: Kill) -> None:
    replaced, synced = os.replace, os.fsync
    _commit_every_row(patch, lambda: None)
    patch.setattr(os, "replace", lambda *names, **more: (kill(), replaced(*names, **more))[1])
    patch.setattr(os, "fsync", lambda file: (synced(file), kill())[0])


_MOMENTS = {"decode": _at_decodes, "commit": _at_commits, "disk": _at_disk}


def plain(board: dict[str, Any]) -> str:
    """A leaderboard as text, to compare."""
    return json.dumps(board["leaderboard"], sort_keys=True)


__all__ = [
    "LABELS",
    "Line",
    "Shelf",
    "drifted",
    "image",
    "killed_embed",
    "near",
    "plain",
    "replace",
    "weighed_bench",
]


def uncorrected(board: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a leaderboard what it says of corrections, and the snapshot.

    Where the labels stand in the table there are no corrections; caches that were in use for other
    views are part of a snapshot, too.
    """
    kept = [text for text in board["warnings"] if not text.startswith("corrections")]
    return {**board, "corrections": None, "warnings": kept, "snapshot": None}
