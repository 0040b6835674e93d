"""The embed stage: every photograph once, through every backbone and view, into the caches."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embed.backbones import resolve
from embed.decoding import default_workers, prepared
from embed.job import Job, Notify, Settings, default_device
from embed.precision import check_precision
from embed.prepare import Order, Prepared, thumbnail_file
from embed.preprocess import Geometry
from embed.progress import Progress, silent
from embed.views import View, view_set
from task.config import Task
from task.duplicates import contradictions
from task.errors import InputError
from task.folds import ensure_folds
from task.images import PASSING, Observation
from task.manifest import Entry, scan, with_observations, write_manifest
from task.rows import Row, read_rows

_SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Options:
    """What the command line may override; None leaves the choice to task.toml or the machine."""

    backbones: tuple[str, ...] | None = None
    views: str | None = None
    precision: str = "auto"
    device: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    rehash: bool = False


@dataclass(frozen=True)
class CacheSummary:
    """One backbone's cache after a run; `rows` counts this task's distinct photographs in it."""

    backbone: str
    path: str
    rows: int
    views: int
    width: int | None
    random_weights: bool


@dataclass(frozen=True)
class Summary:
    """What became of every photograph: images = embedded + reused + duplicates + failed."""

    images: int
    embedded: int
    reused: int
    duplicates: int
    failed: int
    seconds: float
    caches: list[CacheSummary]
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The rows of a task, what is known of their photographs, and each backbone's missing rows."""

    task: Task
    rows: list[Row]
    entries: list[Entry]
    jobs: list[Job]
    device: str

    @property
    def keys(self) -> list[str]:
        """Digests of the photographs that have or may have an embedding, each once, in order."""
        open_ = (e for e in self.entries if e.digest and (e.usable or e.observed is None))
        return list(dict.fromkeys(entry.digest for entry in open_))

    @property
    def undecoded(self) -> list[str]:
        """Digests of the photographs that lack an observation or a thumbnail."""
        thumbnails = _existing_thumbnails(self.task)
        seen = {entry.digest for entry in self.entries if entry.observed}
        return [key for key in self.keys if key not in seen or key not in thumbnails]


def plan(
    task: Task, options: Options, *, notify: Notify = lambda _: None, progress: Progress = silent
) -> Plan:
    """Find out what is to do, without loading torch.

    Raises:
        InputError: a fault in task.toml, the table or the options.
    """
    overrides = {
        key: value
        for key, value in (("backbones", options.backbones), ("views", options.views))
        if value is not None
    }
    task = task.model_copy(update={"embed": task.embed.model_copy(update=overrides)})
    if task.embed.layers != "pooled":
        raise InputError(
            f"layers = {task.embed.layers!r} in {task.file} is not supported by this version: "
            'use "pooled"'
        )
    view_set(task.embed.views)
    backbones = [resolve(name, task) for name in dict.fromkeys(task.embed.backbones)]
    device = options.device or default_device()
    check_precision(options.precision, device)
    rows = read_rows(task)
    with progress("reading", len(rows)) as advance:
        entries = scan(task, rows, rehash=options.rehash, on_hashed=advance)
    settings = Settings(options.precision, device, options.batch_size)
    jobs = [Job(task, backbone, settings, notify) for backbone in backbones]
    return Plan(task, rows, entries, jobs, device)


def embed(
    task: Task,
    options: Options,
    *,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Summary:
    """Bring the caches of a task up to date, and its manifest, thumbnails and folds.

    Rows that a cache holds already are left alone. Killed at any moment, the next run goes on.

    Raises:
        InputError: a fault in what the user gave.
        CacheError: a cache cannot be written.
    """
    started = time.monotonic()
    work = plan(task, options, notify=notify, progress=progress)
    for job in work.jobs:
        if job.random_weights:
            notify(f"{job.backbone.name}: RANDOM WEIGHTS, for trials only")
    record = _Record(work)
    with ExitStack() as stack:
        stack.callback(record.save)
        loading = [stack.enter_context(job) for job in work.jobs if job.missing(work.keys)]
        for job in loading:
            job.load()
        wanted = {job.backbone.name: set(job.missing(work.keys)) for job in loading}
        todo = set(work.undecoded).union(*wanted.values())
        if todo:
            workers = default_workers(work.device) if options.workers is None else options.workers
            order = _order(work, loading)
            files = _files(work.entries, todo)
            with progress("embedding", len(files)) as advance:
                for item in prepared(files, order, workers=workers):
                    _hand_out(item, loading, wanted)
                    record.add(item)
                    advance()
        for job in loading:
            job.finish()
    _warn_of_contradictions(work, notify)
    _cut_folds(work, record.entries, notify)
    return _summarise(work, record.entries, time.monotonic() - started)


def _order(work: Plan, loading: Sequence[Job]) -> Order:
    views: dict[Geometry, tuple[View, ...]] = {job.geometry: job.views for job in loading}
    return Order(work.task.root, views, work.task.work / "thumbs")


def _files(entries: Iterable[Entry], todo: set[str]) -> list[tuple[str, str]]:
    """(path, digest) of every photograph to decode, each digest once."""
    first: dict[str, str] = {}
    for entry in entries:
        if entry.digest in todo:
            first.setdefault(entry.digest, entry.path)
    return [(path, digest) for digest, path in first.items()]


def _hand_out(item: Prepared, jobs: Sequence[Job], wanted: dict[str, set[str]]) -> None:
    status = item.observation.status
    for job in jobs:
        if item.digest not in wanted[job.backbone.name]:
            continue
        if item.views:
            job.push(item.digest, item.views[job.geometry])
        elif status not in PASSING:
            job.reject(item.digest, status, item.observation.detail)


class _Record:
    """The manifest in the making, saved now and then so that a killed run need not decode again."""

    def __init__(self, work: Plan) -> None:
        self._work = work
        self._observed: dict[str, Observation] = {}
        self._saved = time.monotonic()

    @property
    def entries(self) -> list[Entry]:
        return with_observations(self._work.entries, self._observed)

    def add(self, item: Prepared) -> None:
        self._observed[item.digest] = item.observation
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        write_manifest(self._work.task, self.entries)
        self._saved = time.monotonic()


def _existing_thumbnails(task: Task) -> set[str]:
    folder = task.work / "thumbs"
    return {file.stem for file in folder.glob("??/*.jpg")} if folder.is_dir() else set()


def _warn_of_contradictions(work: Plan, notify: Notify) -> None:
    pairs = contradictions(work.rows, work.entries)
    if pairs:
        notify(f"equal files with different labels: {len(pairs)}, the first {pairs[0]}")


def _cut_folds(work: Plan, entries: list[Entry], notify: Notify) -> None:
    if not any(row.label is not None for row in work.rows):
        return
    try:
        table = ensure_folds(work.task, work.rows, entries)
    except InputError as error:
        notify(f"no folds yet: {error}")
        return
    if table.spanning:
        notify(f"{table.spanning} near-duplicate groups now span several folds")


def _summarise(work: Plan, entries: list[Entry], seconds: float) -> Summary:
    failed_keys = {key.hex() for job in work.jobs for key in job.failed}
    embedded_keys = {key.hex() for job in work.jobs for key in job.embedded}
    outcome: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    seen = set()
    for entry in entries:
        if not entry.usable or entry.digest in failed_keys:
            outcome["failed"] += 1
            reasons[entry.status if not entry.usable else "bad_embedding"] += 1
        elif entry.digest in seen:
            outcome["duplicates"] += 1
        else:
            outcome["embedded" if entry.digest in embedded_keys else "reused"] += 1
        seen.add(entry.digest)
    keys = {bytes.fromhex(entry.digest) for entry in entries if entry.digest}
    return Summary(
        images=len(entries),
        embedded=outcome["embedded"],
        reused=outcome["reused"],
        duplicates=outcome["duplicates"],
        failed=outcome["failed"],
        seconds=round(seconds, 3),
        caches=[_cache_summary(work.task, job, keys) for job in work.jobs],
        reasons=dict(reasons.most_common()),
    )


def _cache_summary(task: Task, job: Job, keys: set[bytes]) -> CacheSummary:
    return CacheSummary(
        backbone=job.backbone.name,
        path=_relative(job.folder, task) if job.folder else "",
        rows=len(keys & job.done),
        views=len(job.views),
        width=job.width,
        random_weights=job.random_weights,
    )


def _relative(folder: Path, task: Task) -> str:
    return folder.relative_to(task.folder).as_posix()


def record_of(summary: Summary) -> dict[str, Any]:
    """The summary in the form that `embed --json` promises."""
    from dataclasses import asdict

    record = asdict(summary)
    del record["reasons"]
    return record


__all__ = ["Options", "Plan", "Summary", "embed", "plan", "record_of", "thumbnail_file"]
