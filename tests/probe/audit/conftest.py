"""Archives that are sound but for the fault that a test plants: tables, manifests and caches."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snapshots import write_snapshot

from archiveprobe.cache.spec import folder_name
from archiveprobe.cache.store import Writer
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.decoding import Observation
from archiveprobe.task.manifest import Entry, write_manifest

WIDTH, VIEWS = 24, 2


@dataclass
class Image:
    """A row: its label (None: to predict), what decoding saw, and its embedding (WIDTH,)."""

    id: str
    label: str | None
    embedding: np.ndarray
    content: bytes = b""
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.content or self.id.encode()).digest()


def draw_images(
    count: int,
    labels: Sequence[str | None] = ("intact", "destroyed"),
    *,
    prefix: str = "p",
    seed: int = 0,
    apart: float = 1.2,
) -> list[Image]:
    """Unrelated images, `labels` in turn; embeddings of the labels lie `apart`."""
    rng = np.random.default_rng(seed)
    images = []
    for at in range(count):
        label = labels[at % len(labels)]
        mean = np.zeros(WIDTH)
        if label is not None:
            mean[labels.index(label)] = apart
        seen = {
            "bytes": int(rng.integers(20_000, 200_000)),
            "width": int(rng.integers(200, 800)),
            "height": int(rng.integers(200, 800)),
            "format": str(rng.choice(["JPEG", "PNG"])),
            "orientation": 1,
            "exif": int(rng.integers(0, 3)),
            "border": 0.0,
            "red": float(rng.uniform(50, 200)),
            "green": float(rng.uniform(50, 200)),
            "blue": float(rng.uniform(50, 200)),
            "phash": f"{int(rng.integers(2**63)):016x}",
        }
        embedding = mean + rng.normal(size=WIDTH)
        images.append(Image(f"{prefix}{at:03}.jpg", label, embedding, seen=seen))
    return images


def build(
    folder: Path,
    images: Iterable[Image],
    *,
    labels: Sequence[str] = ("intact", "destroyed"),
    backbones: Sequence[str] = ("hog",),
    folds: str = "count = 3\nrepeats = 2\n",
    cached: Sequence[str] | None = None,
) -> Task:
    """Write an archive as `embed` leaves it."""
    images = list(images)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["image", "label"], *([image.id, image.label or ""] for image in images)]
        )
    (folder / "task.toml").write_text(
        f'name = "t"\nlabels = {json.dumps(list(labels))}\n[images]\ntable = "labels.csv"\n'
        f"[folds]\n{folds}[embed]\nbackbones = {json.dumps(list(backbones))}\n"
    )
    task = load_task(folder)
    entries = [
        Entry(image.id, image.id, image.digest.hex(), Observation(**{"status": "ok", **image.seen}))
        for image in images
    ]
    write_manifest(task, entries)
    for number, name in enumerate(backbones if cached is None else cached):
        fill(task, name, images, seed=number)
    write_snapshot(task)
    return task


def fill(task: Task, backbone: str, images: Iterable[Image], seed: int = 0) -> None:
    """A cache with two views, slightly different ones, of every image that was decoded."""
    rng = np.random.default_rng([seed, 99])
    fingerprint = {"backbone": backbone, "seed": seed}
    root = task.work / "cache" / folder_name(backbone, fingerprint)
    turn = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    with Writer.open(root, fingerprint, {"asked": task.asks(backbone)}) as writer:
        for image in images:
            if image.seen.get("status", "ok") in ("ok", "blank"):
                views = 5 + image.embedding @ turn + 0.05 * rng.normal(size=(VIEWS, WIDTH))
                writer.add(image.digest, views)


@pytest.fixture(scope="session")
def draw() -> Callable[..., list[Image]]:
    return draw_images


@pytest.fixture(scope="session")
def archive() -> Callable[..., Task]:
    return build


@pytest.fixture(scope="session")
def copy_of() -> Callable[..., Image]:
    def copy_of(image: Image, id_: str, label: str | None, *, bits: int = 3) -> Image:
        """The same image encoded again: its hash differs in some bits, its embedding hardly."""
        rng = np.random.default_rng([ord(letter) for letter in id_])
        phash = int(image.seen["phash"], 16)
        for bit in rng.choice(64, bits, replace=False):
            phash ^= 1 << int(bit)
        seen = {**image.seen, "phash": f"{phash:016x}"}
        return Image(id_, label, image.embedding + 0.02 * rng.normal(size=WIDTH), seen=seen)

    return copy_of
