"""The embed stage: every image once, through every backbone and view, into the caches."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import make_folder
from archiveprobe.base.lock import Lock
from archiveprobe.base.memory import collector_paused
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import quote_few
from archiveprobe.embed.decoding import default_workers, prepare_images
from archiveprobe.embed.gpu_decoding import COMPARED, make_trial
from archiveprobe.embed.gpu_views import GpuViews
from archiveprobe.embed.job import Job, Options
from archiveprobe.embed.networks import geometry_of
from archiveprobe.embed.plan import Plan, plan
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.ray_embed import Files, embed_on_cluster
from archiveprobe.embed.run_record import RunRecord
from archiveprobe.embed.text_tower import TextNetwork
from archiveprobe.embed.views import render_tokens
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import PASSING
from archiveprobe.task.duplicates import contradictions
from archiveprobe.task.folds import FoldTable, ensure_folds
from archiveprobe.task.manifest import Entry, paths_by_digest
from archiveprobe.task.shares import shares_folder

__all__ = ["Options", "Plan", "Summary", "embed", "plan"]

_STALE_SECONDS = 3600.0
_TEXTS_AT_ONCE = 1024
# Images among which some baseline JPEGs are looked for, to try a GPU as their decoder.
_TRIED = 64


def embed(
    task: Task,
    options: Options,
    *,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> "Summary":
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
    _say_missing_labels(work, notify)
    _drop_leftovers(task.work)
    # Texts first, since a text tower or a tokenizer that is missing shows at once.
    for job in work.text_jobs:
        if job.missing(work.texts):
            with job:
                _embed_texts(job, work.texts, notify, progress)
    with ExitStack() as stack:
        if work.share is not None:
            stack.enter_context(_share_lock(task, str(work.share)))
        record = stack.enter_context(RunRecord(work))
        jobs = [stack.enter_context(job) for job in work.jobs if job.missing(work.keys)]
        for job in jobs:
            job.load()
            _reject_known(work.entries, job)
        _embed_missing(work, jobs, options, record, notify, progress)
        for job in jobs:
            job.finish()
    with collector_paused():
        folds = None if work.share else _make_folds(work, record.entries, notify)
        record.finish(folds)
        summary = _summarise(work, record.entries, time.monotonic() - started)
    _offer_heic(summary.reasons, notify)
    return summary


def _embed_missing(
    work: Plan,
    jobs: Sequence[Job],
    options: Options,
    record: RunRecord,
    notify: Notify,
    progress: Progress,
) -> None:
    """Embed what the caches lack, and look at what was never decoded."""
    wanted = {job.backbone.name: set(job.missing(work.keys)) for job in jobs}
    todo = set(work.undecoded).union(*wanted.values())
    if not todo:
        return
    record.save()
    paths = paths_by_digest(work.rows, work.entries)
    files = [(path, digest) for digest, path in paths.items() if digest in todo]
    workers = default_workers() if options.workers is None else options.workers
    workers = min(workers, len(files))
    gpu = _settle_decoding(work, jobs, files, workers, notify)
    views = {geometry_of(job.loaded): job.views for job in jobs}
    thumbnails = work.task.work / "thumbs" if work.task.embed.thumbnails else None
    preparation = Preparation(work.task.root, views, thumbnails, work.task.embed.decode)

    def embed_here(files: Files) -> Iterator[PreparedImage]:
        images = prepare_images(files, preparation, workers=workers, notify=notify)
        for image in images if gpu is None else gpu.stream(images):
            _hand_out(image, jobs, wanted)
            yield image

    images = embed_here(files)
    if options.engine == "ray":
        images = embed_on_cluster(work.task, files, preparation, jobs, options, embed_here, notify)
    with progress("embedding", len(files)) as advance:
        for image in images:
            record.add(image)
            advance()
    if gpu is not None:
        gpu.report(notify)


def _settle_decoding(
    work: Plan, jobs: Sequence[Job], files: Files, workers: int, notify: Notify
) -> GpuViews | None:
    """Try the GPU as a decoder of JPEGs for the jobs that ask for it; return it where one may."""
    trying = [job for job in jobs if job.tries_gpu]
    if not trying:
        return None
    views = {geometry_of(job.loaded): job.views for job in trying}
    # Spread over the archive, whose ends may be of one kind.
    sample = files[:: max(1, len(files) // _TRIED)][:_TRIED]

    def images() -> list[PreparedImage]:
        preparation = Preparation(work.task.root, views, decode="gpu")
        prepared = prepare_images(sample, preparation, workers=min(1, workers), notify=notify)
        with closing(prepared):
            return list(islice((image for image in prepared if image.jpeg), COMPARED))

    decode, trial = make_trial(work.device, views, images)
    for job in trying:
        job.settle_decoding(trial)
    # Jobs that were refused decode on the CPU now, so their geometries are others.
    views = {geometry_of(job.loaded): job.views for job in trying if job.backbone.decode == "gpu"}
    return GpuViews(work.device, decode, views) if decode and views else None


def _say_missing_labels(work: Plan, notify: Notify) -> None:
    """Say which labels no row has, before anything long begins: probes will refuse the task."""
    present = {row.label for row in work.rows if row.label is not None}
    missing = [label for label in work.task.labels if label not in present]
    if present and missing:
        notify(f"no labelled row of {quote_few(missing)}: probes need some of each label")


def _drop_leftovers(work: Path) -> None:
    """Remove temporaries of killed runs; a younger one may belong to a run beside this one."""
    for pattern in (".tmp-*", "thumbs/??/.tmp-*"):
        for file in work.glob(pattern):
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > _STALE_SECONDS:
                    file.unlink()


def _embed_texts(job: Job, texts: Mapping[str, str], notify: Notify, progress: Progress) -> None:
    """Embed the texts that a text tower's cache lacks; they lie under their keys (hexadecimal)."""
    job.load()
    network = job.loaded
    assert isinstance(network, TextNetwork)
    keys, too_long = job.missing(texts), 0
    with progress("embedding texts", len(keys)) as advance:
        for start in range(0, len(keys), _TEXTS_AT_ONCE):
            part = keys[start : start + _TEXTS_AT_ONCE]
            words = [texts[key] for key in part]
            too_long += network.too_long(words)
            for key, tokens in zip(part, network.tokens(words), strict=True):
                job.push(key, render_tokens(tokens))
                advance()
        job.finish()
    if too_long:
        length = network.length
        notify(
            f"{job.backbone.cache}: {too_long} texts are longer than {length} tokens and truncated"
        )


def _offer_heic(reasons: Mapping[str, int], notify: Notify) -> None:
    waiting = reasons.get("heic_needs_plugin")
    if waiting:
        notify(f"{waiting} HEIC images: pip install 'archiveprobe[heic]', then run embed again")


def _reject_known(entries: Iterable[Entry], job: Job) -> None:
    """Tell a cache that may be new which images earlier runs have rejected for good."""
    for entry in entries:
        seen = entry.observed
        if seen and entry.digest and not seen.usable and seen.status not in PASSING:
            job.reject(entry.digest, seen.status, seen.detail)


def _hand_out(image: PreparedImage, jobs: Sequence[Job], wanted: dict[str, set[str]]) -> None:
    status = image.observation.status
    for job in jobs:
        if image.digest not in wanted[job.backbone.name]:
            continue
        if image.views:
            job.push(image.digest, image.views[geometry_of(job.loaded)])
        elif status not in PASSING:
            job.reject(image.digest, status, image.observation.detail)


def _share_lock(task: Task, share: str) -> Lock:
    """Return a lock that lets a share be at work once."""
    folder = shares_folder(task)
    make_folder(folder)
    return Lock(folder, f"share {share} of", share=share)


def _make_folds(work: Plan, entries: list[Entry], notify: Notify) -> FoldTable | None:
    """Make the folds of all rows, and say what contradicts itself."""
    pairs = contradictions(work.rows, work.entries)
    if pairs:
        notify(f"equal files with different labels: {len(pairs)}, the first {pairs[0]}")
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
            f"run `archiveprobe audit {work.task.shell_path} --apply`, which assigns them again"
        )
    return table


@dataclass(frozen=True)
class CacheSummary:
    """A backbone's cache after a run; `rows` counts this task's distinct images (texts)."""

    backbone: str
    path: str
    rows: int
    views: int
    width: int | None
    random_weights: bool


@dataclass(frozen=True)
class Summary:
    """What became of every image: images = embedded + reused + duplicates + failed.

    `units` names the share ("2/4") that these are the images of; None: they are all.
    """

    images: int
    embedded: int
    reused: int
    duplicates: int
    failed: int
    seconds: float
    caches: list[CacheSummary]
    texts: list[CacheSummary] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    units: str | None = None

    def record(self) -> dict[str, Any]:
        """Return the form that `embed --json` promises, without what is empty."""
        record = asdict(self)
        del record["reasons"]
        for name in ("texts", "units"):
            if not record[name]:
                del record[name]
        return record


def _summarise(work: Plan, entries: list[Entry], seconds: float) -> Summary:
    """Count every entry once over all backbones, as entries stand after the run."""
    failed = {key.hex() for job in work.jobs for key in job.failed}
    new = {key.hex() for job in work.jobs for key in job.embedded}
    reasons = Counter(entry.status for entry in entries if not entry.usable)
    usable = [entry.digest for entry in entries if entry.usable]
    embeddings = [digest for digest in usable if digest not in failed] if failed else usable
    if len(embeddings) < len(usable):
        reasons["bad_embedding"] = len(usable) - len(embeddings)
    digests = set(embeddings)
    embedded = len(digests & new)
    keys = set(map(bytes.fromhex, digests))
    text_keys = set(map(bytes.fromhex, work.texts))
    return Summary(
        images=len(entries),
        embedded=embedded,
        reused=len(digests) - embedded,
        duplicates=len(embeddings) - len(digests),
        failed=len(entries) - len(embeddings),
        seconds=round(seconds, 3),
        caches=[_cache_summary(work.task, job, keys) for job in work.jobs],
        texts=[_cache_summary(work.task, job, text_keys) for job in work.text_jobs],
        reasons=dict(reasons.most_common()),
        units=f"{work.share.k}/{work.share.n}" if work.share else None,
    )


def _cache_summary(task: Task, job: Job, keys: set[bytes]) -> CacheSummary:
    return CacheSummary(
        backbone=job.backbone.cache,
        path=job.folder.relative_to(task.folder).as_posix() if job.folder else "",
        rows=int(job.done.holds(list(keys)).sum()),
        views=len(job.views),
        width=job.width,
        random_weights=job.random_weights,
    )
