"""Computing random rows of a cache again, and carrying it over a library upgrade if they agree."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from cache.carry import carry_over
from cache.spec import CacheRecord, differences
from cache.store import Reader
from embed.backbones import Backbone
from embed.batches import Batches
from embed.device import default_device
from embed.encoder import Encoder
from embed.encoders import make_encoder
from embed.fingerprint import fingerprint, request
from embed.inventory import Verdict, current_cache, towers
from embed.job import Notify, views_of
from embed.precision import AGREEMENT, cosines
from embed.prepare import Order, prepare
from embed.preprocess import geometry_of
from embed.text_tower import TextEncoder
from embed.texts import as_rendered
from embed.views import Rendered, view_set
from task.config import Task
from task.errors import InputError
from task.manifest import Entry, paths_by_digest, read_manifest
from task.rows import read_rows
from task.texts import texts


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
    """Embed `count` random photographs of every cache in use again and compare.

    With `adopt`, a cache whose library versions differ from the installed ones, and whose rows
    agree, is carried over to the fingerprint of the installed ones.

    Raises:
        InputError: no cache, no photograph to compare, or a cache that differs in more than
            versions.
    """
    results = []
    for backbone in towers(task):
        record = current_cache(task, backbone)
        if record is None:
            raise InputError(
                f"no cache for backbone {backbone.cache!r}: run `archiveprobe embed {task.file}`"
            )
        results.append(_recompute(task, backbone, record, count, adopt, device, notify))
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
    record: CacheRecord,
    count: int,
    adopt: bool,
    device: str | None,
    notify: Notify,
) -> Recomputed:
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
    rows, worst = _compare(task, encoder, Reader(record.folder), count, notify)
    adopted = None
    if adopt and changed and worst >= AGREEMENT:
        adopted = carry_over(record.folder, backbone.cache, now, request(task, backbone)).name
    listed = [f"{field} was {old}, is {new}" for field, old, new in changed]
    return Recomputed(record.folder.name, rows, worst, listed, adopted)


def _compare(
    task: Task, encoder: Encoder, reader: Reader, count: int, notify: Notify
) -> tuple[int, float]:
    """How many random rows were computed again, and their worst cosine."""
    keys, batches = set(reader.keys), Batches(32, notify)
    if isinstance(encoder, TextEncoder):
        sample = _texts(task, encoder, keys, count)
    else:
        sample = _photographs(task, encoder, keys, count)
    for key, rendered in sample:
        batches.push(key, rendered)
    pairs = list(batches.drain(encoder.encode))
    if not pairs:
        raise InputError(
            f"nothing that {reader.folder.name} was made of is at hand to compare with: "
            "run this where the photographs lie"
        )
    _, stored = reader.read([key for key, _ in pairs])
    fresh = np.concatenate([embedding for _, embedding in pairs])
    return len(pairs), float(np.min(cosines(fresh, stored.reshape(fresh.shape))))


def _photographs(
    task: Task, encoder: Encoder, keys: set[bytes], count: int
) -> Iterator[tuple[bytes, Rendered]]:
    rows = read_rows(task)
    entries = {entry.id: entry for entry in read_manifest(task)}
    known = paths_by_digest(rows, [entries.get(row.id, Entry(row.id, row.path)) for row in rows])
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
