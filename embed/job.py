"""One backbone's share of a run: which rows are missing, and the way of the others to its cache."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Self

import numpy as np

from archiveprobe.archive.units import Share
from archiveprobe.base.errors import InputError
from archiveprobe.base.files import make_folder
from archiveprobe.base.lock import Lock, wait_for_lock
from archiveprobe.base.memory import memory_for
from archiveprobe.base.progress import Notify
from archiveprobe.cache.keys import Keys
from archiveprobe.cache.log import Commit
from archiveprobe.cache.spec import (
    CacheRecord,
    differences,
    find_caches,
    folder_name,
    list_changes,
    match_request,
)
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.embed.backbones import PRETRAINED, RANDOM, Backbone, decoded_on_cpu
from archiveprobe.embed.compiling import compile_network, was_compiled
from archiveprobe.embed.faults import MEMORY_REMEDY, explain_faults
from archiveprobe.embed.fingerprint import fingerprint, request
from archiveprobe.embed.forward import Batch, ForwardThreads, PendingBatches, Rows
from archiveprobe.embed.gpu_decoding import Trial, is_decoded_on_gpu, refusal
from archiveprobe.embed.networks import LoadedBackbone, load_backbone
from archiveprobe.embed.precision import check_agreement, choose_precision, computes
from archiveprobe.embed.preprocess import Preprocess
from archiveprobe.embed.view_sets import TEXT, View, view_set
from archiveprobe.embed.views import Rendered
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import PASSING
from archiveprobe.task.snapshot import CacheInUse

# On a CPU every core has a batch of its own.
_BATCH = {"cpu": 8, "cuda": 256, "mps": 64}
_CHOICE_LOCK = "LOCK-precision"
# Crops of the first batch that are compared with fp32, which a large network on a CPU feels.
_COMPARED = 8


@dataclass(frozen=True)
class Options:
    """What the command line may override; None leaves the choice to task.toml or the machine.

    `source` is a task whose embed has seen some of the images: see `take_over`.
    """

    backbones: tuple[str, ...] | None = None
    views: str | None = None
    precision: str = "auto"
    device: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    rehash: bool = False
    engine: str = "local"
    share: Share | None = None
    source: Task | None = None


def views_of(task: Task, backbone: Backbone) -> tuple[View, ...]:
    """Return the views of a row: those that the task names, or the one that a text has."""
    return TEXT if backbone.tower == "text" else view_set(task.embed.views)


def crops_per_pass(device: str, batch_size: int | None) -> int:
    """Return the size of a batch: the one asked for, or the device's."""
    return batch_size or _BATCH[device.split(":")[0]]


class Job:
    """The work of one backbone in one run; a context manager whose end commits what is done.

    Forward passes run in `threads`, which the jobs of a run share. `in_use` is the cache that the
    last run used for what the task asks of this backbone.
    """

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        options: Options,
        device: str,
        notify: Notify,
        threads: ForwardThreads,
        in_use: CacheInUse | None,
    ) -> None:
        self.backbone = backbone
        self.views = views_of(task, backbone)
        self.embedded: set[bytes] = set()
        self._device = device
        self._notify: Notify = lambda text: notify(f"{backbone.cache}: {text}")
        # A descriptor computes in one way only, whatever is asked of the networks beside it.
        self._precision = "fp32" if backbone.library == "descriptor" else options.precision
        named = backbone.weights in (PRETRAINED, RANDOM)
        # Texts are few: compiling takes longer than it saves.
        is_image_network = backbone.library != "descriptor" and backbone.tower == "image"
        self._compile = task.embed.compile and is_image_network
        self._to_compile = False
        self.tries_gpu = False
        self._own_weights = not named and backbone.tuned is None
        self._request = request(task, backbone)
        self._root = task.caches
        self._share = str(options.share) if options.share else None
        self._loaded: LoadedBackbone | None = None
        self._writer: Writer | None = None
        self._in_use = in_use.fingerprint if in_use else None
        self._reader: Reader | None = None
        # A request knows the weights file by size and date only, which --rehash does not believe.
        if not (options.rehash and self._own_weights):
            self._reader = self._find_by_request()
        self._batch = Batch(crops_per_pass(device, options.batch_size), self._notify)
        self._rejected: dict[bytes, tuple[str, str]] = {}
        self._threads = threads
        self._is_proved = device != "mps"
        self._pending = PendingBatches(threads, f"{backbone.described} on {device}")

    @property
    def folder(self) -> Path | None:
        """Return the cache's folder, None as long as it is undecided."""
        cache = self._writer or self._reader
        return cache.folder if cache else None

    @property
    def done(self) -> Keys:
        """Return the keys that the cache holds."""
        cache = self._writer or self._reader
        return cache.keys if cache else Keys(())

    @property
    def failed(self) -> set[bytes]:
        """Return the keys that have no embedding, for a lasting reason."""
        cache = self._writer or self._reader
        failures = cache.failures if cache else {}
        return {key for key, (status, _) in failures.items() if status not in PASSING} | set(
            self._rejected
        )

    @property
    def width(self) -> int | None:
        """Return the length of an embedding's last axis, None where nobody knows it yet."""
        cache = self._writer or self._reader
        shape = cache.row_shape if cache else None
        return shape[-1] if shape else self.backbone.width

    @property
    def random_weights(self) -> bool:
        """Return whether the weights are random: for tests and trials, never for results."""
        return self.backbone.weights == RANDOM

    @property
    def loaded(self) -> LoadedBackbone:
        """Return the loaded backbone."""
        assert self._loaded is not None
        return self._loaded

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return those of the keys (hex) that still need this backbone, in order."""
        failed = self.failed
        waiting = [key for key in keys if bytes.fromhex(key) not in failed]
        done = self.done.holds(list(map(bytes.fromhex, waiting)))
        return list(compress(waiting, ~done))

    # Which cache: the fingerprint alone decides where rows are written. Before weights are loaded
    # the request stands in for it; where several caches fit, of other precisions or of weights that
    # were replaced behind an equal date, both searches take the first of one order.

    def _by_preference(self, caches: Iterable[CacheRecord]) -> list[CacheRecord]:
        """Sort caches: the one already open, then the one in use, then the fullest."""

        def rank(cache: CacheRecord) -> tuple[bool, bool, int]:
            try:
                rows = Reader(cache.folder).rows
            except InputError:
                rows = 0
            return cache.folder != self.folder, cache.digest != self._in_use, -rows

        return sorted(caches, key=rank)

    def _find_by_request(self) -> Reader | None:
        """Return the sound cache that the request leads to, without loading weights."""
        caches = match_request(self._root, self.backbone.cache, self._request)
        for cache in self._by_preference(caches):
            if self._precision not in ("auto", cache.fingerprint.get("precision")):
                continue
            try:
                reader = Reader(cache.folder)
                _ = reader.keys
            except InputError:
                # Opening it for writing, which follows since its rows are missing, mends it.
                continue
            return reader
        return None

    def _find_by_fingerprint(self, loaded: LoadedBackbone) -> CacheRecord | None:
        """Return the cache whose fingerprint this is; say why the nearest other one is not."""
        nearest: tuple[str, list[tuple[str, Any, Any]]] | None = None
        for cache in self._by_preference(find_caches(self._root, self.backbone.cache)):
            precision = self._precision
            if precision == "auto":
                precision = str(cache.fingerprint.get("precision"))
            now = self._fingerprint(loaded, precision, was_compiled(cache))
            changed = differences(cache.fingerprint, now)
            if not changed:
                return cache
            if nearest is None or len(changed) < len(nearest[1]):
                nearest = cache.folder.name, changed
        if nearest:
            self._notify(f"the cache {nearest[0]} cannot be used: {list_changes(nearest[1])}")
        return None

    def load(self) -> None:
        """Load the backbone, and open the cache where its precision is known already.

        Where it `tries_gpu`, that waits for `settle_decoding`.

        Raises:
            InputError: the weights are missing or do not fit.
            InputError: another run writes to the cache.
        """
        if self._reader is not None:
            # Another writer is met now, not after minutes of loading.
            with Lock(self._reader.folder, share=self._share):
                pass
        loaded = self._loaded = load_backbone(self.backbone, self._device)
        if self._own_weights and not self.backbone.preprocess and self.backbone.tower == "image":
            used = ", ".join(
                f"{name} {value}" for name, value in loaded.preprocess.record().items()
            )
            self._notify(f"task.toml gives no preprocess, so the library's own is used: {used}")
        if self.backbone.decode == "gpu":
            if self._reader is None or is_decoded_on_gpu(self._reader.record):
                self.tries_gpu = True
                return
            self._decode_exactly(f"those of {self._reader.folder.name} were")
        self._begin()

    def settle_decoding(self, trial: Trial) -> None:
        """Let a GPU decode JPEGs where the trial says so; else Pillow does.

        Raises:
            InputError: a GPU decoded the images of the cache that is to go on.
        """
        self.tries_gpu = False
        with self._trying("free memory, or choose a smaller backbone"):
            agrees, why = trial.judge(self.loaded, self.views, self._threads.embed)
        if agrees:
            self._notify(why)
        elif self._reader is not None and trial.is_untried:
            self._notify(f"{why}: the GPU goes on without a comparison")
        elif self._reader is not None:
            raise InputError(refusal(self._reader.folder.name, why))
        else:
            self._decode_exactly(why)
        self._begin()

    def _decode_exactly(self, why: str) -> None:
        self._notify(f"JPEGs are decoded on the CPU: {why}")
        self.backbone = decoded_on_cpu(self.backbone)
        preprocess = self.loaded.preprocess
        assert isinstance(preprocess, Preprocess)
        self.loaded.preprocess = preprocess.decoded("exact")

    def _begin(self) -> None:
        """Open the cache where its precision is known; else the first batch decides."""
        loaded = self.loaded
        cache = self._find_by_fingerprint(loaded)
        if cache is not None:
            self._continue(cache)
        elif self._compile:
            # Whether the compiled network agrees is known at the first batch.
            return
        elif self._precision != "auto":
            self._open(loaded.at(self._precision))
        elif not loaded.faster_precisions():
            self._open(loaded.at("fp32"))

    def _fingerprint(
        self, loaded: LoadedBackbone, precision: str, compiled: bool
    ) -> dict[str, Any]:
        return fingerprint(self.backbone, loaded, self.views, precision, compiled=compiled)

    def _continue(self, cache: CacheRecord) -> None:
        """Open a cache that is there, to go on as it was made."""
        self._to_compile = was_compiled(cache)
        if self._compile and not self._to_compile:
            self._notify(
                f"{cache.folder.name} was made without torch.compile and goes on so: compile is "
                "for new caches"
            )
        precision = str(cache.fingerprint["precision"])
        self._open(self.loaded.at(precision), compiled=self._to_compile)

    def _open(self, loaded: LoadedBackbone, *, compiled: bool = False) -> None:
        self._loaded = loaded
        if not computes(loaded.precision, self._device):
            self._notify(f"made in {loaded.precision}, goes on in fp32 on {self._device}")
        record = self._fingerprint(loaded, loaded.precision, compiled)
        folder = self._root / folder_name(self.backbone.cache, record)
        self._writer = Writer.open(folder, record, self._request, share=self._share)
        for note in self._writer.notes:
            self._notify(note)
        for key, (status, detail) in self._rejected.items():
            self._writer.fail(key, status, detail)
        self._rejected.clear()

    def push(self, key: str, rendered: Rendered) -> None:
        """Queue an image's views; computes a batch that is full, or has no room for them."""
        if not self._batch.has_room(rendered):
            self._compute()
        self._batch.add(bytes.fromhex(key), rendered)
        if self._batch.full:
            self._compute()

    def reject(self, key: str, status: str, detail: str) -> None:
        """Record that an image has no embedding."""
        if self._writer is not None:
            self._writer.fail(bytes.fromhex(key), status, detail)
        else:
            self._rejected[bytes.fromhex(key)] = (status, detail)

    def _compute(self) -> None:
        """Have the batch computed; its rows go to the cache when a later one is full."""
        if self._writer is None:
            self._choose_precision()
        if self._to_compile:
            self._compile_network()
        if not self._is_proved and self.loaded.precision == "fp32":
            self._check_agreement()
        batch, self._batch = self._batch, Batch(self._batch.size, self._notify)
        self._store(self._pending.results(self._threads.ahead - 1))
        self._pending.submit(batch, self.loaded)

    def _store(self, results: Iterable[tuple[Batch, Rows]]) -> None:
        for batch, rows in results:
            # A size that memory asked for stays.
            self._batch.size = min(batch.size, self._batch.size)
            assert self._writer is not None
            for key, embedding in rows:
                if self._writer.add(key, embedding) is None:
                    self.embedded.add(key)

    def _choose_precision(self) -> None:
        """Choose the precision of a new cache on the first batch, and open it.

        Of several shares one chooses, the others follow it.
        """
        make_folder(self._root)
        with wait_for_lock(self._root, _CHOICE_LOCK) if self._share else nullcontext():
            chosen = self._find_by_fingerprint(self.loaded) if self._share else None
            if chosen is None:
                self._choose_by_batch()
            else:
                self._continue(chosen)

    def _choose_by_batch(self) -> None:
        if self._precision == "auto":
            crops, mirror = self._some_crops()
            remedy = "free memory, choose a smaller backbone, or name a precision with --precision"
            with self._trying(remedy):
                chosen, why = choose_precision(self.loaded, crops, mirror, self._threads.embed)
            self._notify(why)
        else:
            chosen = self.loaded.at(self._precision)
        self._loaded = chosen
        if self._compile:
            self._compile_network()
        self._open(self.loaded, compiled=self.loaded.is_compiled)

    def _compile_network(self) -> None:
        """Compile the network if it then agrees with the plain one on some crops of the batch."""
        self._to_compile = False
        self._notify("torch.compile may take minutes")
        crops, mirror = self._some_crops()
        with self._trying("free memory, or set compile = false"):
            self._loaded, why = compile_network(self.loaded, crops, mirror, self._threads.together)
        self._notify(why)

    @contextmanager
    def _trying(self, remedy: str) -> Iterator[None]:
        """Say in one line why a network cannot be tried."""
        where = f"{self.backbone.described} on {self._device}"
        with explain_faults(where), memory_for(f"trying {where}", remedy):
            yield

    def _check_agreement(self) -> None:
        crops, mirror = self._some_crops()
        with memory_for(f"trying {self.backbone.described} on the CPU", MEMORY_REMEDY):
            check_agreement(self.loaded, crops, mirror)
        self._is_proved = True

    def _some_crops(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what a few views of the batch show, and which of them are mirrored."""
        views = self._batch.gather(self.loaded.allocate)
        # Spread over the batch, since the views of one image lie side by side.
        some = np.unique(np.linspace(0, len(views.crop) - 1, _COMPARED).astype(np.int64))
        return views.crops[views.crop[some]], views.mirror[some]

    def commit(self) -> str:
        """Bring what is embedded to disk; return the digest of the fingerprint of its cache."""
        assert self._writer is not None
        self._writer.commit()
        return CacheRecord.read(self._writer.folder).digest

    def adopt(self, shard: Commit | None, failures: Mapping[str, str], keys: Iterable[str]) -> None:
        """Take over a shard that another process wrote of images, and what has no embedding.

        `keys` are those of the images (hexadecimal), of which `failures` holds some by status.
        """
        assert self._writer is not None
        lacking = set(self.missing(keys)) if shard else set[str]()
        if shard is not None:
            self._writer.adopt(shard)
        for key, status in failures.items():
            self._writer.fail(bytes.fromhex(key), status, "")
        self.embedded |= {bytes.fromhex(key) for key in lacking - failures.keys()}

    def finish(self) -> None:
        """Embed what still waits. Rejections alone decide no precision, hence make no cache."""
        if not self._batch.empty:
            self._compute()
        self._store(self._pending.results())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: Any) -> None:
        try:
            self._store(self._pending.results_after_fault())
        finally:
            self._threads.restore()
            # A network keeps its device's memory, which those that follow need.
            self._loaded = None
            if self._writer is not None:
                self._writer.__exit__(*fault)
