"""Compute random rows of a cache again; carry it over a library upgrade if they agree."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.cache.carry import carry_over
from archiveprobe.cache.keys import Keys
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import CacheRecord, differences
from archiveprobe.embed.backbones import Backbone, task_backbones
from archiveprobe.embed.compiling import was_compiled
from archiveprobe.embed.device import default_device
from archiveprobe.embed.faults import network_at_work
from archiveprobe.embed.fingerprint import fingerprint, request
from archiveprobe.embed.forward import Batch
from archiveprobe.embed.gpu_decoding import as_made, needed_decoder
from archiveprobe.embed.gpu_views import GpuViews
from archiveprobe.embed.inventory import Verification
from archiveprobe.embed.job import views_of
from archiveprobe.embed.networks import LoadedBackbone, geometry_of, load_backbone
from archiveprobe.embed.precision import AGREEMENT, worst_cosine
from archiveprobe.embed.prepare import Preparation, prepare
from archiveprobe.embed.text_tower import TextNetwork
from archiveprobe.embed.view_sets import view_set
from archiveprobe.embed.views import Rendered, render_tokens
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
        """Return whether every row agrees at cosine >= 0.9995."""
        return self.worst >= AGREEMENT


def recompute(
    task: Task, count: int, *, adopt: bool = False, notify: Notify = lambda _: None
) -> list[Recomputed]:
    """Embed `count` random images (or texts) of every cache in use again and compare.

    With `adopt`, a cache whose library versions differ from the installed ones, and whose rows
    agree, is carried over to the fingerprint of the installed ones.

    Raises:
        InputError: no cache, no image to compare, or a cache that differs in more than versions.
    """
    snapshot = read_snapshot(task)
    return [
        _recompute(
            task,
            backbone,
            open_in_use(task, snapshot, backbone.cache, partial=True),
            count,
            adopt,
            notify,
        )
        for backbone in task_backbones(task)
    ]


def verify_recomputed(
    task: Task,
    verification: Verification,
    count: int,
    *,
    adopt: bool = False,
    notify: Notify = lambda _: None,
) -> Verification:
    """Add rows that no longer agree to what is bad. Raises as `recompute`."""
    bad = list(verification.bad)
    for result in recompute(task, count, adopt=adopt, notify=notify):
        line = f"{result.cache}: {result.rows} rows again, worst cosine {result.worst:.6f}"
        notify(line)
        if result.adopted:
            changes = "; ".join(result.changed)
            notify(f"{result.cache}: carried over to {result.adopted} ({changes})")
        if not result.agrees:
            bad.append(line)
    return replace(verification, ok=verification.ok and not bad, bad=bad)


def _recompute(
    task: Task, backbone: Backbone, reader: Reader, count: int, adopt: bool, notify: Notify
) -> Recomputed:
    old = reader.record
    backbone = as_made(backbone, old)
    precision = str(old.fingerprint["precision"])
    loaded = load_backbone(backbone, default_device()).at(precision)
    # A compiled network agrees with the plain one, which needs no compiler.
    compiled = was_compiled(old)
    now = fingerprint(backbone, loaded, views_of(task, backbone), precision, compiled=compiled)
    changed = differences(old.fingerprint, now)
    beyond = [field for field, _, _ in changed if not field.startswith("versions.")]
    if beyond:
        raise InputError(
            f"the cache {old.folder.name} differs in {', '.join(beyond)}, not only in library "
            "versions: run embed to make a new one"
        )
    rows, worst = _compare(task, loaded, reader, count, notify)
    adopted = None
    if adopt and changed and worst >= AGREEMENT:
        folder = carry_over(old.folder, backbone.cache, now, request(task, backbone))
        new, adopted = CacheRecord.read(folder), folder.name

        def carried_over(snapshot: Snapshot) -> Snapshot:
            in_use = [
                replace(cache, folder=folder.name, fingerprint=new.digest)
                for cache in snapshot.caches
                if cache.fingerprint == old.digest
            ]
            return snapshot.with_caches(in_use)

        update_snapshot(task, carried_over)
    listed = [f"{field} was {before}, is {after}" for field, before, after in changed]
    return Recomputed(old.folder.name, rows, worst, listed, adopted)


def _compare(
    task: Task, loaded: LoadedBackbone, reader: Reader, count: int, notify: Notify
) -> tuple[int, float]:
    """Return how many random rows were computed again, and their worst cosine."""
    keys, batch = reader.keys, Batch(32, notify)
    if isinstance(loaded, TextNetwork):
        sample = _random_texts(task, loaded, keys, count)
    else:
        sample = _random_images(task, loaded, reader, count)
    for key, rendered in sample:
        batch.add(key, rendered)
    with network_at_work(f"{loaded.name} on {default_device()}", "embed"):
        rows = batch.embed(loaded.embed)
    if not rows:
        raise InputError(
            f"nothing that {reader.folder.name} was made of is at hand to compare with: "
            "run this where the images are"
        )
    _, stored = reader.read([key for key, _ in rows])
    fresh = np.concatenate([embedding for _, embedding in rows])
    return len(rows), worst_cosine(fresh, stored.reshape(fresh.shape))


def _random_images(
    task: Task, loaded: LoadedBackbone, reader: Reader, count: int
) -> Iterator[tuple[bytes, Rendered]]:
    state = read_state(task)
    known = paths_by_digest(state.rows, state.entries)
    present = _present(known, reader.keys)
    geometry = geometry_of(loaded)
    views = {geometry: view_set(task.embed.views)}
    preparation = Preparation(task.root, views, decode=geometry.decode)
    sample = random.sample(present, min(count, len(present)))
    images = [prepare(known[key], key, preparation) for key in sample]
    if geometry.decode == "gpu":
        device = default_device()
        decoder = needed_decoder(device, reader.folder.name)
        images = GpuViews(device, decoder, views).complete(images)
    for key, image in zip(sample, images, strict=True):
        if image.views:
            yield bytes.fromhex(key), image.views[geometry]


def _random_texts(
    task: Task, loaded: TextNetwork, keys: Keys, count: int
) -> Iterator[tuple[bytes, Rendered]]:
    known = texts(task, read_rows(task))
    present = _present(known, keys)
    for key in random.sample(present, min(count, len(present))):
        yield bytes.fromhex(key), render_tokens(loaded.tokens([known[key]])[0])


def _present(known: Iterable[str], keys: Keys) -> list[str]:
    """Return those of the digests (hex) that are keys, sorted."""
    digests = sorted(known)
    return list(compress(digests, keys.holds(list(map(bytes.fromhex, digests)))))
