"""One backbone's share of a run: which rows are missing, and the way of the others to its cache."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.base.memory import memory_for
from archiveprobe.cache.spec import (
    CacheRecord,
    differences,
    find_caches,
    folder_name,
    match_request,
)
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.embed import precision as precisions
from archiveprobe.embed.backbones import PRETRAINED, RANDOM, Backbone
from archiveprobe.embed.batches import Batches
from archiveprobe.embed.encoder import Encoder
from archiveprobe.embed.encoders import make_encoder
from archiveprobe.embed.fingerprint import fingerprint, request
from archiveprobe.embed.lane import Lane
from archiveprobe.embed.passes import Passes, Rows
from archiveprobe.embed.preprocess import Geometry, geometry_of
from archiveprobe.embed.views import TEXT, Rendered, View, view_set
from archiveprobe.task.config import Task
from archiveprobe.task.snapshot import CacheInUse

Notify = Callable[[str], None]
# On a CPU every core has a batch of its own.
_BATCH = {"cpu": 8, "cuda": 256}
# Crops of the first batch that are compared with fp32, which a large network on a CPU feels.
_TRIED = 8


@dataclass(frozen=True)
class Settings:
    """How to compute: of these, only the precision may change what an embedding is."""

    precision: str = "auto"
    device: str = "cpu"
    batch_size: int | None = None
    rehash: bool = False

    @property
    def batch(self) -> int:
        """Crops per forward pass."""
        return self.batch_size or _BATCH[self.device.split(":")[0]]


def views_of(task: Task, backbone: Backbone) -> tuple[View, ...]:
    """The views of a row: those that the task names, or the one that a text has."""
    return TEXT if backbone.tower == "text" else view_set(task.embed.views)


class Job:
    """The work of one backbone in one run; a context manager whose end commits what is done.

    Forward passes run in `lane`, which the jobs of a run share. `in_use` is the cache that the last
    run used.
    """

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        settings: Settings,
        notify: Notify,
        lane: Lane,
        in_use: CacheInUse | None = None,
    ) -> None:
        self.backbone = backbone
        self.views = views_of(task, backbone)
        self.embedded: set[bytes] = set()
        self._settings = settings
        self._notify: Notify = lambda text: notify(f"{backbone.cache}: {text}")
        # A descriptor computes in one way only, whatever is asked of the networks beside it.
        self._asked = "fp32" if backbone.library == "descriptor" else settings.precision
        self._request = request(task, backbone)
        self._root = task.work / "cache"
        self._encoder: Encoder | None = None
        self._writer: Writer | None = None
        self._used = in_use.fingerprint if in_use else None
        self._reader = self._find()
        self._batches = Batches(settings.batch, self._notify)
        self._rejected: dict[bytes, tuple[str, str]] = {}
        self._lane = lane
        self._passes = Passes(lane, f"{backbone.described} on {settings.device}")

    @property
    def folder(self) -> Path | None:
        """The cache's folder, None as long as it is undecided."""
        cache = self._writer or self._reader
        return cache.folder if cache else None

    @property
    def done(self) -> set[bytes]:
        """Keys that the cache holds."""
        if self._writer is not None:
            return self._writer.keys
        return set(self._reader.keys) if self._reader else set()

    @property
    def failed(self) -> set[bytes]:
        """Keys that have no embedding, for a lasting reason."""
        cache = self._writer or self._reader
        return set(cache.failures if cache else ()) | set(self._rejected)

    @property
    def width(self) -> int | None:
        """The length of an embedding's last axis, None where nobody knows it yet."""
        cache = self._writer or self._reader
        shape = cache.row_shape if cache else None
        return shape[-1] if shape else self.backbone.width

    @property
    def random_weights(self) -> bool:
        """Whether the weights are random: for tests and trials, never for results."""
        return self.backbone.weights == RANDOM

    @property
    def encoder(self) -> Encoder:
        """The loaded encoder."""
        assert self._encoder is not None
        return self._encoder

    @property
    def geometry(self) -> Geometry:
        """The pixel geometry of the loaded encoder."""
        return geometry_of(self.encoder.preprocess)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys (hex) that still need this backbone, in order."""
        settled = self.done | self.failed
        return [key for key in keys if bytes.fromhex(key) not in settled]

    def _find(self) -> Reader | None:
        """The sound cache that the request alone leads to, without loading weights.

        Where there are several, of other precisions or of weights that were replaced behind an
        equal date, it is the one in use, else the fullest.
        """
        if self._settings.rehash and self.backbone.weights not in (PRETRAINED, RANDOM):
            # The request knows the weights by size and date only.
            return None
        best: Reader | None = None
        for record in match_request(self._root, self.backbone.cache, self._request):
            if self._asked not in ("auto", record.fingerprint.get("precision")):
                continue
            try:
                reader = Reader(record.folder)
                _ = reader.keys
            except InputError:
                # Opening it for writing, which follows since its rows are missing, mends it.
                continue
            if record.digest == self._used:
                return reader
            best = reader if best is None or reader.rows > best.rows else best
        return best

    def load(self) -> None:
        """Build the encoder, and open the cache where its precision is known already.

        Raises:
            InputError: the weights are missing or do not fit.
            InputError: another run writes to the cache.
        """
        if self._reader is not None:
            # Whoever writes to it is met now, not after minutes of loading.
            with Lock(self._reader.folder):
                pass
        self._encoder = make_encoder(self.backbone, self._settings.device)
        self._announce_preprocess(self._encoder)
        known = self._known_precision(self._encoder)
        if known is not None:
            self._open(self._encoder.at(known))

    def _announce_preprocess(self, encoder: Encoder) -> None:
        own = self.backbone.weights not in (PRETRAINED, RANDOM)
        if own and self.backbone.preprocess is None and self.backbone.tower == "image":
            given = ", ".join(
                f"{name} {value}" for name, value in encoder.preprocess.record().items()
            )
            self._notify(f"task.toml gives no preprocess, so the library's own is used: {given}")

    def _known_precision(self, encoder: Encoder) -> str | None:
        """The precision of a cache that fits, or the only one to choose; None: try on a batch."""
        record = self._fitting_cache(encoder)
        if record is not None:
            return str(record.fingerprint["precision"])
        if self._asked != "auto":
            return self._asked
        return None if encoder.candidates() else "fp32"

    def _fitting_cache(self, encoder: Encoder) -> CacheRecord | None:
        """The cache whose fingerprint this encoder has; says why the nearest other has not."""
        found = find_caches(self._root, self.backbone.cache)
        found.sort(key=lambda one: (one.folder != self.folder, one.digest != self._used))
        nearest: tuple[str, list[tuple[str, Any, Any]]] | None = None
        for record in found:
            wanted = self._asked
            precision = record.fingerprint.get("precision") if wanted == "auto" else wanted
            changed = differences(record.fingerprint, self._fingerprint(encoder, str(precision)))
            if not changed:
                return record
            if nearest is None or len(changed) < len(nearest[1]):
                nearest = record.folder.name, changed
        if nearest:
            listed = "; ".join(f"{field} was {old!r}, is {new!r}" for field, old, new in nearest[1])
            self._notify(f"the cache {nearest[0]} cannot be used: {listed}")
        return None

    def _fingerprint(self, encoder: Encoder, precision: str) -> dict[str, Any]:
        return fingerprint(self.backbone, encoder, self.views, precision)

    def _open(self, encoder: Encoder) -> Writer:
        self._encoder = encoder
        record = self._fingerprint(encoder, encoder.precision)
        folder = self._root / folder_name(self.backbone.cache, record)
        self._writer = Writer.open(folder, record, self._request)
        for note in self._writer.notes:
            self._notify(note)
        for key, (status, detail) in self._rejected.items():
            self._writer.fail(key, status, detail)
        self._rejected.clear()
        return self._writer

    def push(self, key: str, rendered: Rendered) -> None:
        """Queue an image's views; runs the encoder when a batch is full."""
        self._batches.push(bytes.fromhex(key), rendered)
        if self._batches.full:
            self.flush()

    def reject(self, key: str, status: str, detail: str) -> None:
        """Record that an image has no embedding."""
        if self._writer is not None:
            self._writer.fail(bytes.fromhex(key), status, detail)
        else:
            self._rejected[bytes.fromhex(key)] = (status, detail)

    def flush(self) -> None:
        """Run the encoder on what is queued; its rows go to the cache at a later flush.

        Batches are computed while the next ones are gathered.
        """
        if self._writer is None:
            self._decide()
        batch = self._batches.take()
        self._store(self._lane.ahead - 1)
        self._passes.begin(batch, self.encoder)

    def _store(self, ahead: int = 0) -> None:
        """Hand rows to the cache until only so many batches are being computed."""
        for batch, rows in self._passes.done(ahead):
            self._keep(batch, rows)

    def _keep(self, batch: Batches, rows: Rows) -> None:
        self._batches.size = min(batch.size, self._batches.size)
        assert self._writer is not None
        for key, embedding in rows:
            if self._writer.add(key, embedding) is None:
                self.embedded.add(key)

    def _decide(self) -> Writer:
        """Choose the precision of a new cache on the first batch, and open it."""
        assert self._encoder is not None
        crops, mirror = self._batches.crops()
        # Spread over the batch, since the views of one image lie side by side.
        tried = np.unique(np.linspace(0, len(crops) - 1, _TRIED).astype(np.int64))
        crops, mirror, device = crops[tried], mirror[tried], self._settings.device
        remedy = "free memory, choose a smaller backbone, or name a precision with --precision"
        with (
            self._passes.faults_told(),
            memory_for(f"trying {self.backbone.described} on {device}", remedy),
        ):
            chosen, why = precisions.choose(self._encoder, crops, mirror, device, self._lane.encode)
        self._notify(why)
        return self._open(chosen)

    def finish(self) -> None:
        """Embed what still waits. Rejections alone decide no precision, hence make no cache."""
        if self._batches.waiting:
            self.flush()
        self._store()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *fault: Any) -> None:
        try:
            for batch, rows in self._passes.settle():
                self._keep(batch, rows)
        finally:
            self._lane.rest()
            # A network keeps its device's memory, which those that follow need.
            self._encoder = None
            if self._writer is not None:
                self._writer.__exit__(*fault)
