"""`embed --engine ray`: actors write shards of the caches, the command takes them over.

The command scans and plans as always, and opens the caches, which settles their fingerprints; an
actor whose weights or libraries give another one refuses. Rows in and out are short texts (JSON),
which no library on the way takes for numbers or pads.
"""

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from archiveprobe.base.progress import Notify
from archiveprobe.cache.log import Commit
from archiveprobe.cache.shard_rows import ShardRows
from archiveprobe.embed.decoding import Decoders
from archiveprobe.embed.forward import ForwardThreads
from archiveprobe.embed.job import Job, Options
from archiveprobe.embed.prepare import Preparation, PreparedImage, prepare
from archiveprobe.embed.ray_cluster import device_of, ray_cluster
from archiveprobe.embed.ray_units import Row, map_units
from archiveprobe.embed.unit_encoder import UnitEncoder
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import PASSING, Observation
from archiveprobe.task.shares import ROWS_PER_UNIT

Files = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class UnitReceipt:
    """What became of a unit: its images without pixels, and by backbone its shard and failures."""

    images: list[PreparedImage]
    shards: dict[str, Commit]
    failures: dict[str, dict[str, str]]


def embed_on_cluster(
    task: Task,
    files: Files,
    preparation: Preparation,
    jobs: Sequence[Job],
    options: Options,
    embed_here: Callable[[Files], Iterator[PreparedImage]],
    notify: Notify,
) -> Iterator[PreparedImage]:
    """Have (path, digest) pairs embedded by a cluster; yield the images without their pixels.

    The precision of a new cache is chosen on its first images, which `embed_here` embeds.

    Raises:
        InputError: see `ray_cluster`, `map_units` and UnitEncoder.
    """
    with ray_cluster(options.workers, notify) as cluster:
        device = device_of(options.device, cluster)
        units = deque(files[at : at + ROWS_PER_UNIT] for at in range(0, len(files), ROWS_PER_UNIT))
        while units and not all(job.folder for job in jobs):
            yield from embed_here(units.popleft())
            for job in jobs:
                job.finish()
        sources = {job.backbone.name: job.commit() for job in jobs if job.folder}
        rows = [{"unit": at, "files": json.dumps(unit)} for at, unit in enumerate(units)]
        decode = DecodeFiles(secrets.token_hex(8), preparation)
        arguments = (task, sources, device, options.batch_size)
        for row in map_units(
            cluster,
            rows,
            decode,
            EmbedUnit,
            arguments,
            on_gpu=device != "cpu",
            workers=options.workers,
        ):
            receipt = _receipt(json.loads(row["receipt"]))
            for job in jobs:
                _take(receipt, job)
            yield from receipt.images


def _take(receipt: UnitReceipt, job: Job) -> None:
    """Bring what became of a unit into the cache of a backbone."""
    usable = []
    for image in receipt.images:
        observation = image.observation
        if observation.usable:
            usable.append(image.digest)
        elif observation.status not in PASSING:
            job.reject(image.digest, observation.status, observation.detail)
    if job.folder:
        name = job.folder.name
        job.adopt(receipt.shards.get(name), receipt.failures.get(name, {}), usable)


@dataclass(frozen=True)
class DecodeFiles:
    """Decodes files in whatever process it is sent to; equal in all tasks of a `run`."""

    run: str
    preparation: Preparation = field(compare=False)

    def __call__(self, row: Row) -> Row:
        """Add the images of its files to the row of a unit."""
        files = [tuple(pair) for pair in json.loads(row["files"])]
        prepared = _decoders(self).prepare(files)
        images = [replace(image, digest=pair[1]) for pair, image in prepared]
        return {"unit": row["unit"], "images": images}


@lru_cache(maxsize=1)
def _decoders(decode: DecodeFiles) -> Decoders:
    """Keep a decoder process open from unit to unit; it ends with the process of the task."""
    return Decoders(prepare, decode.preparation, workers=1).__enter__()


class EmbedUnit:
    """An actor that embeds decoded units into shards; its networks are loaded once."""

    def __init__(
        self, task: Task, sources: Mapping[str, str], device: str, batch_size: int | None
    ) -> None:
        threads = ForwardThreads(device, passes=1)
        self._encoder = UnitEncoder(
            task, sources, device=device, threads=threads, batch_size=batch_size
        )
        self._writers: dict[str, _ShardWriter] = {}
        self._encoder.write_with(self._writer_of)

    def _writer_of(self, folder: Path) -> "_ShardWriter":
        return self._writers.setdefault(folder.name, _ShardWriter(folder))

    def __call__(self, row: Row) -> Row:
        """Write the shards of a unit and return its receipt."""
        for writer in self._writers.values():
            writer.begin(row["unit"])
        images = self._encoder.complete(row["images"])
        self._encoder.encode(images)
        receipt = {
            "seen": [[image.digest, image.observation._asdict()] for image in images],
            "shards": {name: writer.shard for name, writer in self._writers.items()},
            "failures": {name: writer.failures for name, writer in self._writers.items()},
        }
        return {"unit": row["unit"], "receipt": json.dumps(receipt)}


class _ShardWriter:
    """Writes the new rows of a unit as a shard, which counts once the command has its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.begin(0)

    def begin(self, unit: int) -> None:
        """Begin the shard of another unit."""
        self._unit = unit
        self._rows = ShardRows()
        self.shard: Commit | None = None
        self.failures: dict[str, str] = {}

    def add(self, key: bytes, embedding: Any) -> str | None:
        """See cache.store.Writer.add."""
        status = self._rows.add(key, embedding)
        if status is not None:
            self.failures[key.hex()] = status
        return status

    def commit(self) -> None:
        """Write the shard."""
        if len(self._rows):
            self.shard = self._rows.write(self._folder, self._unit)


def _receipt(record: dict[str, Any]) -> UnitReceipt:
    images = [PreparedImage(digest, Observation(**seen)) for digest, seen in record["seen"]]
    shards = {name: Commit(*shard) for name, shard in record["shards"].items() if shard}
    return UnitReceipt(images, shards, record["failures"])
