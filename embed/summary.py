"""What became of every image of a run, counted once over all backbones."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from archiveprobe.embed.job import Job
from archiveprobe.embed.plan import Plan
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import Entry


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
    """What became of every image: images = embedded + reused + duplicates + failed."""

    images: int
    embedded: int
    reused: int
    duplicates: int
    failed: int
    seconds: float
    caches: list[CacheSummary]
    texts: list[CacheSummary] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)


def summarise(work: Plan, entries: list[Entry], seconds: float) -> Summary:
    """Count the outcomes of a run over the entries as they stand after it."""
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
    text_keys = set(map(bytes.fromhex, work.texts))
    return Summary(
        images=len(entries),
        embedded=outcome["embedded"],
        reused=outcome["reused"],
        duplicates=outcome["duplicates"],
        failed=outcome["failed"],
        seconds=round(seconds, 3),
        caches=[_cache_summary(work.task, job, keys) for job in work.jobs],
        texts=[_cache_summary(work.task, job, text_keys) for job in work.text_jobs],
        reasons=dict(reasons.most_common()),
    )


def _cache_summary(task: Task, job: Job, keys: set[bytes]) -> CacheSummary:
    return CacheSummary(
        backbone=job.backbone.cache,
        path=_relative(job.folder, task) if job.folder else "",
        rows=len(keys & job.done),
        views=len(job.views),
        width=job.width,
        random_weights=job.random_weights,
    )


def _relative(folder: Path, task: Task) -> str:
    return folder.relative_to(task.folder).as_posix()


def record_of(summary: Summary) -> dict[str, Any]:
    """The summary in the form that `embed --json` promises; `texts` only where there are any."""
    record = asdict(summary)
    del record["reasons"]
    if not summary.texts:
        del record["texts"]
    return record
