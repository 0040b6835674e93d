"""The caches of a task: list, verify, compact, and find unused ones."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.cache.compact import compact
from archiveprobe.cache.prune import Prunable, is_cache, prunable
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.cache.store import Reader
from archiveprobe.cache.verify import repair, verify
from archiveprobe.embed.backbones import task_backbones
from archiveprobe.evaluate.system_names import systems
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.task.config import Task
from archiveprobe.task.snapshot import Snapshot, find_snapshot

OK = "ok"


@dataclass(frozen=True)
class CacheLine:
    """One cache as `cache show` lists it; `bytes` is the size of its shards.

    `state` is "ok", or what is damaged: then nothing more is known but the size.
    """

    cache: str
    rows: int
    views: int
    shape: list[int]
    precision: str
    bytes: int
    failures: int
    in_use: bool
    random_weights: bool
    state: str = OK


@dataclass(frozen=True)
class Verification:
    """The result of verifying all caches of a task; `bad` says what is wrong, a sentence each.

    `removable` names the damaged caches that nothing uses.
    """

    ok: bool
    shards: int
    rows: int
    bad: list[str]
    removable: tuple[str, ...] = ()


def list_caches(task: Task) -> list[CacheLine]:
    """Return a line for every cache below the task's work folder, also for a damaged one.

    Raises:
        InputError: there is none.
    """
    in_use = _in_use(task)
    return [_line(folder, folder.name in in_use) for folder in _folders(task)]


def _line(folder: Path, in_use: bool) -> CacheLine:
    try:
        reader = Reader(folder)
    except InputError as error:
        size = sum(file.stat().st_size for file in (folder / "shards").rglob("*.h5"))
        return CacheLine(folder.name, 0, 0, [], "-", size, 0, in_use, False, str(error))
    return CacheLine(
        cache=folder.name,
        rows=reader.rows,
        views=len(reader.fingerprint.get("views", ())),
        shape=list(reader.row_shape or ())[1:],
        precision=str(reader.fingerprint.get("precision")),
        bytes=reader.size,
        failures=len(reader.failures),
        in_use=in_use,
        random_weights=bool(reader.fingerprint.get("random_weights")),
    )


def _folders(task: Task) -> list[Path]:
    root = task.caches
    if not root.is_dir():
        raise InputError(
            f"no cache in {root}: make one with `archiveprobe embed {task.shell_path}`"
        )
    return sorted(folder for folder in root.iterdir() if is_cache(folder))


def _in_use(task: Task) -> set[str]:
    """Return the caches that the snapshot has in use for what the task asks, and those that stored
    systems compute with, or were trained from.
    """
    snapshot = find_snapshot(task) or Snapshot(task.file.name)
    caches = [snapshot.cache(task.asks(b.name, b.tower)) for b in task_backbones(task)]
    in_use = {cache.folder for cache in caches if cache and cache.folder}
    digests, from_tokens = _used_by_systems(task)
    for folder in task.caches.iterdir() if digests or from_tokens else ():
        # The name of a cache ends with its digest, also where its record is damaged.
        if any(folder.name.endswith(f"-{digest[:16]}") for digest in digests):
            in_use.add(folder.name)
        with suppress(InputError):
            record = CacheRecord.read(folder)
            if from_tokens and record.request.get("asked", {}).get("layers") == "tokens":
                in_use.add(folder.name)
    return in_use


def _used_by_systems(task: Task) -> tuple[set[str], bool]:
    """Return digests of the caches that systems compute with; and whether tokens trained some."""
    digests: set[str] = set()
    from_tokens = False
    for name in systems(task):
        try:
            record = load_run(task, name).record
        except InputError:
            # Nothing can be read from it, so it needs no cache.
            continue
        sources = record.get("sources")
        digests |= set(map(str, sources.values())) if isinstance(sources, dict) else set()
        from_tokens |= bool(record.get("from_cache"))
    return digests, from_tokens


def verify_caches(task: Task, *, deep: bool = False) -> Verification:
    """Check every cache of the task; shards found damaged are set aside, to be computed again.

    Raises:
        InputError: a damaged shard cannot be set aside.
    """
    reports = [(folder, verify(folder, deep)) for folder in _folders(task)]
    for folder, report in reports:
        if report.bad_shards:
            repair(folder, report)
    in_use = _in_use(task)
    return Verification(
        ok=all(report.ok for _, report in reports),
        shards=sum(report.shards for _, report in reports),
        rows=sum(report.rows for _, report in reports),
        bad=[f"{folder.name}: {fault}" for folder, report in reports for fault in report.bad],
        removable=tuple(
            folder.name for folder, report in reports if report.bad and folder.name not in in_use
        ),
    )


@dataclass(frozen=True)
class Compacted:
    """The shards of one cache before and after, its rows, and the bytes in shards now."""

    cache: str
    before: int
    shards: int
    rows: int
    bytes: int


def compact_caches(task: Task, *, notify: Notify = lambda _: None) -> list[Compacted]:
    """Rewrite every cache of the task into few large shards.

    Raises:
        InputError: another run writes to a cache, a shard is damaged, or the disk is full.
    """
    lines = []
    for folder in _folders(task):
        done = compact(folder)
        for note in done.notes:
            notify(f"{folder.name}: {note}")
        reader = Reader(folder)
        lines.append(Compacted(folder.name, done.before, done.after, reader.rows, reader.size))
    return lines


def unused_caches(task: Task) -> list[Prunable]:
    """Return what `cache prune` would remove: caches that nothing here uses, and leftovers."""
    return prunable(task.caches, _in_use(task))
