"""The embed stage: every image once, through every backbone and view, into the caches."""

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Progress, silent
from archiveprobe.embed.decoding import default_workers, prepared
from archiveprobe.embed.job import Job, Notify
from archiveprobe.embed.plan import Options, Plan, plan
from archiveprobe.embed.prepare import Order, Prepared
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.record import Record
from archiveprobe.embed.summary import Summary, record_of, summarise
from archiveprobe.embed.texts import embed_texts
from archiveprobe.embed.views import View
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import PASSING
from archiveprobe.task.duplicates import contradictions
from archiveprobe.task.folds import FoldTable, ensure_folds
from archiveprobe.task.manifest import Entry, paths_by_digest

__all__ = ["Options", "Plan", "Summary", "embed", "plan", "record_of"]

_STALE_SECONDS = 3600.0


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
        InputError: a cache cannot be written.
    """
    started = time.monotonic()
    work = plan(task, options, notify=notify, progress=progress)
    for job in work.jobs:
        if job.random_weights:
            notify(f"{job.backbone.name}: RANDOM WEIGHTS, for trials only")
    _drop_leftovers(task.work)
    # First, since what they may lack shows at once: a second tower, a tokenizer.
    embed_texts(work.text_jobs, work.texts, notify, progress)
    with ExitStack() as stack:
        record = stack.enter_context(Record(work))
        loading = [stack.enter_context(job) for job in work.jobs if job.missing(work.keys)]
        for job in loading:
            job.load()
            _reject_known(work.entries, job)
        wanted = {job.backbone.name: set(job.missing(work.keys)) for job in loading}
        todo = set(work.undecoded).union(*wanted.values())
        if todo:
            workers = default_workers() if options.workers is None else options.workers
            record.save()
            order = _order(work, loading)
            paths = paths_by_digest(work.rows, work.entries)
            files = [(path, digest) for digest, path in paths.items() if digest in todo]
            with progress("embedding", len(files)) as advance:
                workers = min(workers, len(files))
                for item in prepared(files, order, workers=workers, notify=notify):
                    _hand_out(item, loading, wanted)
                    record.add(item)
                    advance()
        for job in loading:
            job.finish()
    _warn_of_contradictions(work, notify)
    record.finish(_cut_folds(work, record.entries, notify))
    return summarise(work, record.entries, time.monotonic() - started)


def _drop_leftovers(work: Path) -> None:
    """Remove temporaries of killed runs; a younger one may belong to a run beside this one."""
    for pattern in (".tmp-*", "thumbs/??/.tmp-*"):
        for file in work.glob(pattern):
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > _STALE_SECONDS:
                    file.unlink()


def _order(work: Plan, loading: Sequence[Job]) -> Order:
    views: dict[Geometry, tuple[View, ...]] = {job.geometry: job.views for job in loading}
    return Order(work.task.root, views, work.task.work / "thumbs")


def _reject_known(entries: Iterable[Entry], job: Job) -> None:
    """Tell a cache that may be new which images earlier runs have rejected for good."""
    for entry in entries:
        seen = entry.observed
        if seen and entry.digest and not seen.usable and seen.status not in PASSING:
            job.reject(entry.digest, seen.status, seen.detail)


def _hand_out(item: Prepared, jobs: Sequence[Job], wanted: dict[str, set[str]]) -> None:
    status = item.observation.status
    for job in jobs:
        if item.digest not in wanted[job.backbone.name]:
            continue
        if item.views:
            job.push(item.digest, item.views[job.geometry])
        elif status not in PASSING:
            job.reject(item.digest, status, item.observation.detail)


def _warn_of_contradictions(work: Plan, notify: Notify) -> None:
    pairs = contradictions(work.rows, work.entries)
    if pairs:
        notify(f"equal files with different labels: {len(pairs)}, the first {pairs[0]}")


def _cut_folds(work: Plan, entries: list[Entry], notify: Notify) -> FoldTable | None:
    if not any(row.label is not None for row in work.rows):
        why = "" if work.task.labels else f": labels is empty in {work.task.file}"
        notify(f"no folds: no labelled rows{why}")
        return None
    try:
        table = ensure_folds(work.task, work.rows, entries)
    except InputError as error:
        notify(str(error))
        return None
    if table.spanning:
        notify(
            f"{table.spanning} near-duplicate groups span several folds, which flatters figures: "
            f"run `archiveprobe audit {work.task.file} --apply`, which cuts the folds anew"
        )
    return table
