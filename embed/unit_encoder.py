"""Embeds the images of a unit in memory, exactly as those that a system was trained on.

What the task's caches hold already, by the bytes of an image, is read there and not computed.
Batches are cut within a unit, so whoever computes a unit gets the same bits on one kind of device.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import NAME as LOCK_NAME
from archiveprobe.base.lock import is_locked
from archiveprobe.base.memory import memory_for
from archiveprobe.base.progress import Notify
from archiveprobe.cache.log import Failure
from archiveprobe.cache.shard import Embeddings
from archiveprobe.cache.spec import CacheRecord, differences, find_caches, list_changes
from archiveprobe.cache.store import Reader, Writer, unusable
from archiveprobe.embed.backbones import resolve
from archiveprobe.embed.compiling import compile_network, was_compiled
from archiveprobe.embed.faults import MEMORY_REMEDY, network_at_work
from archiveprobe.embed.fingerprint import fingerprint, request
from archiveprobe.embed.forward import Batch, ForwardThreads, PendingBatches
from archiveprobe.embed.gpu_decoding import ProvedGpu, Trial, as_made, refusal
from archiveprobe.embed.job import crops_per_pass
from archiveprobe.embed.networks import LoadedBackbone, load_backbone
from archiveprobe.embed.precision import check_agreement, computes
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.preprocess import Geometry, geometry_of_record
from archiveprobe.embed.view_sets import View, view_set
from archiveprobe.embed.views import Rendered
from archiveprobe.task.config import Decode, Task
from archiveprobe.task.texts import is_text_cache

# What the fingerprint of a cache says that is known before weights are loaded.
_KNOWN_AHEAD = ("format", "decode", "versions")

_MOST_WRITERS = 999

Look = tuple[Geometry, tuple[View, ...]]
"""A geometry, and the views that a network looks at there."""


@dataclass(frozen=True)
class UnitEmbeddings:
    """Holds the embeddings of a unit's images through one backbone; read as a cache is.

    `rows` maps keys to embeddings (views, *shape) float16; `failures` are images without one.
    """

    record: CacheRecord
    rows: Mapping[bytes, NDArray[np.float16]]
    failures: Mapping[bytes, Failure]

    @property
    def folder(self) -> Path:
        """Return the folder of the cache that these rows would lie in."""
        return self.record.folder

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Return everything the numbers depend on."""
        return self.record.fingerprint

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Return (views, *shape) of every row."""
        shape = self.record.row_shape
        assert shape is not None
        return shape

    def read(self, keys: Sequence[bytes | None]) -> tuple[NDArray[np.bool_], Embeddings]:
        """Return present (n,) and embeddings (n, views, *shape), NaN where not; see Reader.read."""
        missing = np.full(self.row_shape, np.nan, np.float16)
        found = [None if key is None else self.rows.get(key) for key in keys]
        present = np.array([row is not None for row in found], np.bool_)
        return present, np.stack([missing if row is None else row for row in found])

    def split_views(self) -> Self:
        """Return a row for every view, under the key of the image and the number of the view."""
        views, *shape = self.row_shape
        return replace(
            self,
            record=replace(self.record, row_shape=(1, *shape)),
            rows={
                key_of_view(key, view): row[view : view + 1]
                for key, row in self.rows.items()
                for view in range(views)
            },
            failures={
                key_of_view(key, view): failure
                for key, failure in self.failures.items()
                for view in range(views)
            },
        )


def key_of_view(key: bytes, view: int) -> bytes:
    """Return the key of a row that holds one view of an image only."""
    return key + view.to_bytes(2)


class RowWriter(Protocol):
    """Takes in new rows, as cache.store.Writer does."""

    def add(self, key: bytes, embedding: NDArray[Any]) -> str | None:
        """Queue a row; see Writer.add."""
        ...

    def commit(self) -> None:
        """Bring what is queued to disk."""
        ...


class UnitEncoder:
    """The backbones that a system looks through, at the very fingerprints it was trained on.

    `sources` maps backbones to the digests of those fingerprints; `looks` are what a system's own
    networks look at. With `keep` new rows go into the task's caches, whose writer it then is,
    alone, for a `share` ("2of4"), or `beside_others` under any name that is free; it is a context
    manager for that. With `afresh` nothing is read from the caches, to compare with them.

    Raises:
        InputError: a cache is gone, this machine's weights or libraries give other numbers, or
            another run writes to a cache.
    """

    def __init__(
        self,
        task: Task,
        sources: Mapping[str, str],
        *,
        device: str,
        threads: ForwardThreads,
        batch_size: int | None = None,
        looks: Sequence[Look] = (),
        keep: bool = False,
        share: str | None = None,
        beside_others: bool = False,
        afresh: bool = False,
        notify: Notify = lambda _: None,
    ) -> None:
        names = [name for name in sources if not is_text_cache(name)]
        self._backbones = {
            name: _UnitBackbone(task, name, sources[name], device, threads, batch_size, notify)
            for name in names
        }
        own = [(backbone.geometry, backbone.views) for backbone in self._backbones.values()]
        self._looks = [*own, *looks]
        views = _union(self._looks)
        decode: Decode = next((geometry.decode for geometry in views), "exact")
        self.preparation = Preparation(Path(), views, decode=decode)
        self._keep, self._share, self._beside_others = keep, share, beside_others
        self._afresh = afresh
        self._writers = ExitStack()
        self._gpu = ProvedGpu(device, views, self._check_decoding)
        self._notify = notify

    @property
    def views(self) -> tuple[View, ...]:
        """Return the views that every network looks at; none where they look at different ones."""
        sets = {views for _, views in self._looks}
        return sets.pop() if len(sets) == 1 else ()

    def complete(self, images: Sequence[PreparedImage]) -> Sequence[PreparedImage]:
        """Return images with all their views, also those that decoders left to a GPU."""
        return self._gpu.complete(images)

    def encode(self, images: Sequence[PreparedImage]) -> Mapping[str, UnitEmbeddings]:
        """Embed the images of a unit, equal ones once.

        Raises:
            InputError: weights do not fit, memory runs out, or a cache is damaged or full.
        """
        images = self.complete(images)
        distinct = {bytes.fromhex(image.digest): image for image in images if image.views}
        # The preparation may have more views of an image than a backbone looks at.
        return {
            name: backbone.encode(
                {
                    key: views_of_image(image, backbone.geometry, backbone.views, self.preparation)
                    for key, image in distinct.items()
                },
                afresh=self._afresh,
            )
            for name, backbone in self._backbones.items()
        }

    def _check_decoding(self, trial: Trial) -> None:
        for backbone in self._backbones.values():
            backbone.check_decoding(trial)

    def write_with(self, writer_of: Callable[[Path], RowWriter]) -> None:
        """Hand new rows to the writers that are made for the folders of the caches."""
        for backbone in self._backbones.values():
            backbone.write_with(writer_of)

    def __enter__(self) -> Self:
        if self._keep:
            for backbone in self._backbones.values():
                writer = backbone.open_writer(self._share, beside_others=self._beside_others)
                self._writers.enter_context(writer)
        return self

    def __exit__(self, *fault: Any) -> None:
        self._gpu.report(self._notify)
        self._writers.__exit__(*fault)


def views_of_image(
    image: PreparedImage, geometry: Geometry, views: Sequence[View], preparation: Preparation
) -> Rendered:
    """Return some of the views that an image was prepared with."""
    prepared = image.views[geometry]
    order = preparation.views[geometry]
    places = [order.index(view) for view in views]
    return Rendered(
        prepared.crops,
        tuple(prepared.crop[place] for place in places),
        tuple(prepared.mirror[place] for place in places),
    )


def _union(looks: Sequence[Look]) -> dict[Geometry, tuple[View, ...]]:
    views: dict[Geometry, tuple[View, ...]] = {}
    for geometry, wanted in looks:
        views[geometry] = tuple(dict.fromkeys([*views.get(geometry, ()), *wanted]))
    return views


class _UnitBackbone:
    """One backbone: what the task's cache holds of it, and the network for the rest.

    The network is loaded when it is first needed. Threads may encode units side by side.
    """

    def __init__(
        self,
        task: Task,
        name: str,
        digest: str,
        device: str,
        threads: ForwardThreads,
        batch_size: int | None,
        notify: Notify,
    ) -> None:
        self._record = record = cache_of_system(task, name, digest)
        asked: Mapping[str, Any] = record.request["asked"]
        of_system = {"backbones": (name,), "views": asked["views"], "layers": asked["layers"]}
        of_system["decode"] = asked.get("decode", "exact")
        part = task.model_copy(update={"embed": task.embed.model_copy(update=of_system)})
        self._backbone = as_made(resolve(name, part), record)
        self._request = request(part, self._backbone)
        self._device, self._threads = device, threads
        self._notify: Notify = lambda text: notify(f"{name}: {text}")
        _check_ahead(record, self._request, device)
        if record.fingerprint.get("random_weights"):
            self._notify("RANDOM WEIGHTS, for trials only")
        self.views = view_set(asked["views"])
        self.geometry = geometry_of_record(record.fingerprint["preprocess"])
        self._size = crops_per_pass(device, batch_size)
        self._reader = Reader(record.folder, keep_shard=True)
        self._writer: RowWriter | None = None
        self._network: LoadedBackbone | None = None
        self._loading, self._writing = Lock(), Lock()

    def check_decoding(self, trial: Trial) -> None:
        """Refuse a GPU that does not decode as the one of the cache did.

        Raises:
            InputError: it decodes nothing, or a row disagrees with Pillow's.
        """
        if self.geometry.decode != "gpu":
            return
        why = trial.lack
        if not why:
            network = self._load(trial.by_pillow[0].views[self.geometry])
            with network_at_work(f"{self._backbone.described} on {self._device}", "embed"):
                agrees, why = trial.judge(network, self.views, self._threads.embed)
            if agrees:
                return
        raise InputError(refusal(self._record.folder.name, why))

    def open_writer(self, share: str | None, *, beside_others: bool) -> Writer:
        """Let new rows go into the task's cache; return the writer, which is to be closed."""
        record = self._record
        shares = map(_writer_name, range(1, _MOST_WRITERS + 1)) if beside_others else [share]
        for name in shares:
            try:
                writer = Writer.open(record.folder, record.fingerprint, self._request, share=name)
            except InputError:
                if beside_others and is_locked(record.folder, f"{LOCK_NAME}-{name}"):
                    continue
                raise
            self._writer = writer
            return writer
        raise InputError(f"{_MOST_WRITERS} processes write to the cache {record.folder}: use fewer")

    def write_with(self, writer_of: Callable[[Path], RowWriter]) -> None:
        """Let new rows go to a writer of another kind."""
        self._writer = writer_of(self._record.folder)

    def encode(self, images: Mapping[bytes, Rendered], *, afresh: bool) -> UnitEmbeddings:
        """Return the embeddings of images; those that the cache holds are read from it.

        With `afresh` all are computed.
        """
        held = [] if afresh else self._reader.keys.stored(list(images))
        rows: dict[bytes, NDArray[np.float16]] = {}
        if held:
            rows.update(zip(held, self._reader.read(held)[1], strict=True))
        failures = {}
        new = {}
        missing = [(key, rendered) for key, rendered in images.items() if key not in rows]
        for key, embedding in self._compute(missing):
            # The very cast that a cache makes, so that its rows and these are the same.
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                stored = embedding.astype(np.float16)
            status = unusable(stored)
            if status is None:
                rows[key] = stored
            else:
                failures[key] = Failure(status, "")
            new[key] = embedding
        self._keep(new)
        return UnitEmbeddings(self._record, rows, failures)

    def _keep(self, new: Mapping[bytes, np.ndarray]) -> None:
        """Bring new rows to disk, before the unit that needed them counts as done."""
        if self._writer is None or not new:
            return
        with self._writing:
            for key, embedding in new.items():
                self._writer.add(key, embedding)
            self._writer.commit()

    def _compute(
        self, images: Sequence[tuple[bytes, Rendered]]
    ) -> Iterator[tuple[bytes, np.ndarray]]:
        if not images:
            return
        network = self._load(images[0][1])
        where = f"{self._backbone.described} on {self._device}"
        pending = PendingBatches(self._threads, where)
        batch = Batch(self._size, self._notify)
        for key, rendered in images:
            if not batch.has_room(rendered):
                pending.submit(batch, network)
                batch = Batch(self._size, self._notify)
            batch.add(key, rendered)
        if not batch.empty:
            pending.submit(batch, network)
        for done, rows in pending.results():
            # A size that memory asked for stays.
            self._size = min(self._size, done.size)
            yield from rows

    def _load(self, first: Rendered) -> LoadedBackbone:
        """Return the network; loaded, it must have the very fingerprint that is to be continued."""
        with self._loading:
            if self._network is None:
                precision = str(self._record.fingerprint["precision"])
                network = load_backbone(self._backbone, self._device).at(precision)
                compiled = was_compiled(self._record)
                now = fingerprint(self._backbone, network, self.views, precision, compiled=compiled)
                changed = differences(self._record.fingerprint, now)
                if changed:
                    _refuse(self._record, changed)
                self._check_agreement(network, first)
                self._network = self._compile(network, first) if compiled else network
            return self._network

    def _compile(self, network: LoadedBackbone, first: Rendered) -> LoadedBackbone:
        """Compile the network, as it was for the system, so that whoever answers has its bits."""
        where = f"{self._backbone.described} on {self._device}"
        with memory_for(f"compiling {where}", MEMORY_REMEDY):
            mirror = np.zeros(len(first.crops), np.bool_)
            compiled, why = compile_network(network, first.crops, mirror, self._threads.together)
        if not compiled.is_compiled:
            raise InputError(
                f"{self._record.folder.name}, which the system was trained on, was computed by a "
                f"compiled network, and here {why}: run this where torch.compile works, or set "
                "compile = false, embed and probe again"
            )
        return compiled

    def _check_agreement(self, network: LoadedBackbone, first: Rendered) -> None:
        if self._device == "mps" and network.precision == "fp32":
            with memory_for(f"trying {self._backbone.described} on the CPU", MEMORY_REMEDY):
                check_agreement(network, first.crops, np.zeros(len(first.crops), np.bool_))


def _writer_name(number: int) -> str:
    return f"{number}of{_MOST_WRITERS}"


def cache_of_system(task: Task, name: str, digest: str) -> CacheRecord:
    """Find the cache of a backbone that a system was trained on. Raises InputError: it is gone."""
    for record in find_caches(task.caches, name):
        if record.digest == digest:
            return record
    raise InputError(
        f"the cache of {name} that the system was trained on is not in {task.caches}: bring it "
        f"back, or run `archiveprobe embed {task.shell_path}` and "
        f"`archiveprobe probe {task.shell_path}`"
    )


def _check_ahead(record: CacheRecord, now: Mapping[str, Any], device: str) -> None:
    """Refuse before weights are loaded what is sure to give other numbers."""
    precision = str(record.fingerprint["precision"])
    if not computes(precision, device):
        raise InputError(
            f"{record.folder.name}, which the system was trained on, was computed in {precision}, "
            f"which {device} lacks: run this on a GPU with CUDA that has it, or embed and probe "
            "again in fp32"
        )
    # Not its request, which asks for a GPU that decodes also where none did.
    changed = differences(
        {key: record.fingerprint[key] for key in _KNOWN_AHEAD},
        {key: now[key] for key in _KNOWN_AHEAD},
    )
    if changed:
        _refuse(record, changed)


def _refuse(record: CacheRecord, changed: list[tuple[str, Any, Any]]) -> NoReturn:
    raise InputError(
        f"new images would not be embedded as {record.folder.name}, which the system was trained "
        f"on: {list_changes(changed[:3])}: bring those weights and libraries back, or embed and "
        "probe again here"
    )
