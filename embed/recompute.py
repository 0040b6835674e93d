"""Computing random rows of a cache again, and carrying it over a library upgrade if they agree."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.cache.carry import carry_over
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import CacheRecord, differences
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.batches import Batches
from archiveprobe.embed.device import default_device
from archiveprobe.embed.encoder import Encoder
from archiveprobe.embed.encoders import make_encoder
from archiveprobe.embed.fingerprint import fingerprint, request
from archiveprobe.embed.inventory import Verdict, towers
from archiveprobe.embed.job import Notify, views_of
from archiveprobe.embed.precision import AGREEMENT, cosines
from archiveprobe.embed.prepare import Order, prepare
from archiveprobe.embed.preprocess import geometry_of
from archiveprobe.embed.text_tower import TextEncoder
from archiveprobe.embed.texts import as_rendered
from archiveprobe.embed.views import Rendered, view_set
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.evaluate.task_state import read_state
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import paths_by_digest
from archiveprobe.task.rows import read_rows
from archiveprobe.task.snapshot import Snapshot, read_snapshot, update_snapshot
from archiveprobe.task.texts import texts


@dataclass(frozen=True)
class Recomputed:
    """Rows of one cache computed again: the worst cosine over rows and views, and what changed."""

    cache: str
    rows: int
    worst: float
    changed: list[str]
    adopted: str | None

    @property
    def agrees(self) -> bool:
        """Whether every row agrees at cosine >= 0.9995."""
        return self.worst >= AGREEMENT


def recompute(
    task: Task,
    count: int,
    *,
    adopt: bool = False,
    device: str | None = None,
    notify: Notify = lambda _: None,
) -> list[Recomputed]:
    """Embed `count` random images of every cache in use again and compare.

    With `adopt`, a cache whose library versions differ from the installed ones, and whose rows
    agree, is carried over to the fingerprint of the installed ones.

    Raises:
        InputError: no cache, no image to compare, or a cache that differs in more than
            versions.
    """
    results = []
    snapshot = read_snapshot(task)
    for backbone in towers(task):
        reader = open_in_use(task, snapshot, backbone.cache, partial=True)
        results.append(_recompute(task, backbone, reader, count, adopt, device, notify))
    return results


def recomputed_verdict(
    task: Task,
    verdict: Verdict,
    count: int,
    *,
    adopt: bool = False,
    notify: Notify = lambda _: None,
) -> Verdict:
    """The verdict with rows that no longer agree added to what is bad. Raises as `recompute`."""
    results = recompute(task, count, adopt=adopt, notify=notify)
    for one in results:
        notify(f"{one.cache}: {one.rows} rows again, worst cosine {one.worst:.6f}")
        if one.adopted:
            notify(f"{one.cache}: carried over to {one.adopted} ({'; '.join(one.changed)})")
    bad = [
        f"{one.cache}: {one.rows} rows computed again, worst cosine {one.worst:.6f}"
        for one in results
        if not one.agrees
    ]
    return replace(verdict, ok=verdict.ok and not bad, bad=[*verdict.bad, *bad])


def _recompute(
    task: Task,
    backbone: Backbone,
    reader: Reader,
    count: int,
    adopt: bool,
    device: str | None,
    notify: Notify,
) -> Recomputed:
    record = reader.record
    precision = str(record.fingerprint["precision"])
    encoder = make_encoder(backbone, device or default_device()).at(precision)
    now = fingerprint(backbone, encoder, views_of(task, backbone), precision)
    changed = differences(record.fingerprint, now)
    beyond = [field for field, _, _ in changed if not field.startswith("versions.")]
    if beyond:
        raise InputError(
            f"the cache {record.folder.name} differs in {', '.join(beyond)}, not only in library "
            "versions: run embed to make a new one"
        )
    rows, worst = _compare(task, encoder, reader, count, notify)
    adopted = None
    if adopt and changed and worst >= AGREEMENT:
        folder = carry_over(record.folder, backbone.cache, now, request(task, backbone))
        adopted = folder.name
        update_snapshot(task, partial(_carried_over, record.digest, CacheRecord.read(folder)))
    listed = [f"{field} was {old}, is {new}" for field, old, new in changed]
    return Recomputed(record.folder.name, rows, worst, listed, adopted)


def _carried_over(old: str, new: CacheRecord, snapshot: Snapshot) -> Snapshot:
    caches = [
        replace(one, folder=new.folder.name, fingerprint=new.digest)
        for one in snapshot.caches
        if one.fingerprint == old
    ]
    return snapshot.with_caches(caches)


def _compare(
    task: Task, encoder: Encoder, reader: Reader, count: int, notify: Notify
) -> tuple[int, float]:
    """How many random rows were computed again, and their worst cosine."""
    keys, batches = set(reader.keys), Batches(32, notify)
    if isinstance(encoder, TextEncoder):
        sample = _texts(task, encoder, keys, count)
    else:
        sample = _images(task, encoder, keys, count)
    for key, rendered in sample:
        batches.push(key, rendered)
    pairs = list(batches.drain(encoder.encode))
    if not pairs:
        raise InputError(
            f"nothing that {reader.folder.name} was made of is at hand to compare with: "
            "run this where the images lie"
        )
    _, stored = reader.read([key for key, _ in pairs])
    fresh = np.concatenate([embedding for _, embedding in pairs])
    return len(pairs), float(np.min(cosines(fresh, stored.reshape(fresh.shape))))


def _images(
    task: Task, encoder: Encoder, keys: set[bytes], count: int
) -> Iterator[tuple[bytes, Rendered]]:
    state = read_state(task)
    known = paths_by_digest(state.rows, state.entries)
    there = sorted(key.hex() for key in keys if key.hex() in known)
    geometry = geometry_of(encoder.preprocess)
    order = Order(task.root, {geometry: view_set(task.embed.views)})
    for key in random.sample(there, min(count, len(there))):
        item = prepare(known[key], key, order)
        if item.views:
            yield bytes.fromhex(key), item.views[geometry]


def _texts(
    task: Task, encoder: TextEncoder, keys: set[bytes], count: int
) -> Iterator[tuple[bytes, Rendered]]:
    known = texts(task, read_rows(task))
    there = sorted(key for key in known if bytes.fromhex(key) in keys)
    for key in random.sample(there, min(count, len(there))):
        yield bytes.fromhex(key), as_rendered(encoder.tokens([known[key]])[0])
