"""The caches of a task: which it asks for, what they hold, and handing them to others."""

from dataclasses import dataclass
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.cache.export import export
from archiveprobe.cache.prune import Prunable, prunable
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.cache.store import Reader
from archiveprobe.cache.verify import repair, verify
from archiveprobe.embed.backbones import Backbone, resolve, text_tower
from archiveprobe.embed.fingerprint import request
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.evaluate.system_store import load_run, systems
from archiveprobe.evaluate.task_state import read_state
from archiveprobe.task.config import Task
from archiveprobe.task.find_images import printable
from archiveprobe.task.manifest import Entry
from archiveprobe.task.output import output_file
from archiveprobe.task.rows import Row, locate
from archiveprobe.task.snapshot import Snapshot, find_snapshot
from archiveprobe.task.texts import has_texts


@dataclass(frozen=True)
class CacheLine:
    """One cache as `cache show` lists it; `bytes` is the size of its shards."""

    cache: str
    rows: int
    views: int
    shape: list[int]
    precision: str
    bytes: int
    failures: int
    in_use: bool
    random_weights: bool


@dataclass(frozen=True)
class Verdict:
    """What verifying all caches of a task found."""

    ok: bool
    shards: int
    rows: int
    bad: list[str]


@dataclass(frozen=True)
class Exported:
    """Rows written, and what their reader should know, a sentence each.

    `partial` says, where it is not None, how few of them embed has come to.
    """

    rows: int
    remarks: list[str]
    partial: str | None = None


def cache_root(task: Task) -> Path:
    """The folder that holds the caches."""
    return task.work / "cache"


def towers(task: Task) -> list[Backbone]:
    """What the task's embeddings come from: its backbones, and the text towers it has texts for.

    Raises:
        InputError: an unknown backbone.
    """
    images = [resolve(name, task) for name in dict.fromkeys(task.embed.backbones)]
    texts = [text_tower(backbone) for backbone in images] if has_texts(task) else []
    return [*images, *(tower for tower in texts if tower)]


def show(task: Task) -> list[CacheLine]:
    """Every cache below the task's work folder."""
    in_use = _in_use(task)
    return [_line(folder, folder.name in in_use) for folder in _folders(task)]


def _folders(task: Task) -> list[Path]:
    root = cache_root(task)
    if not root.is_dir():
        raise InputError(f"no cache in {root}: make one with `archiveprobe embed {task.file}`")
    return sorted(folder for folder in root.iterdir() if (folder / "fingerprint.json").is_file())


def _in_use(task: Task) -> set[str]:
    """The caches that the last `embed` used for what the task asks; and those that stored systems
    look through, or were trained from.
    """
    snapshot = find_snapshot(task) or Snapshot(task.file.name)
    asked = {
        one.folder
        for tower in towers(task)
        if (one := snapshot.cache(task.asks(tower.name, tower.tower))) and one.folder
    }
    digests, layers = _of_systems(task)
    for folder in cache_root(task).iterdir() if digests or layers else ():
        try:
            record = CacheRecord.read(folder)
        except InputError:
            continue
        if record.digest in digests or record.request.get("asked", {}).get("layers") in layers:
            asked.add(folder.name)
    return asked


def _of_systems(task: Task) -> tuple[set[str], set[str]]:
    """Digests of the caches that stored systems look through, and layers others were trained on."""
    digests: set[str] = set()
    layers: set[str] = set()
    for name in systems(task):
        try:
            record = load_run(task, name).record
        except InputError:
            # Nothing can be read from it, so it needs no cache.
            continue
        sources = record.get("sources")
        digests |= set(map(str, sources.values())) if isinstance(sources, dict) else set()
        if record.get("from_cache"):
            layers.add("tokens")
    return digests, layers


def _line(folder: Path, in_use: bool) -> CacheLine:
    reader = Reader(folder)
    shape = list(reader.row_shape or ())
    return CacheLine(
        cache=folder.name,
        rows=reader.rows,
        views=len(reader.fingerprint.get("views", ())),
        shape=shape[1:],
        precision=str(reader.fingerprint.get("precision")),
        bytes=reader.size,
        failures=len(reader.failures),
        in_use=in_use,
        random_weights=bool(reader.fingerprint.get("random_weights")),
    )


def verify_all(task: Task, *, deep: bool = False) -> Verdict:
    """Check every cache of the task; shards found damaged are set aside, to be computed again.

    Raises:
        InputError: a damaged shard cannot be set aside.
    """
    reports = [(folder, verify(folder, deep)) for folder in _folders(task)]
    for folder, report in reports:
        if report.bad_shards:
            repair(folder, report)
    return Verdict(
        ok=all(report.ok for _, report in reports),
        shards=sum(report.shards for _, report in reports),
        rows=sum(report.rows for _, report in reports),
        bad=[f"{folder.name}: {fault}" for folder, report in reports for fault in report.bad],
    )


def unused(task: Task) -> list[Prunable]:
    """What `cache prune` would remove: caches that no task file here asks for, and leftovers."""
    return prunable(cache_root(task), _in_use(task))


def export_task(
    task: Task,
    file: Path,
    backbones: tuple[str, ...] = (),
    *,
    overwrite: bool = False,
    partial: bool = False,
) -> Exported:
    """Write the table and the embeddings into one HDF5 file, in the order of the table.

    Raises:
        InputError: a backbone has no cache yet, the file must not be written, or rows wait for
            `embed`, which `partial` allows: their embeddings are NaN then.
        InputError: the file exists, or a cache is damaged.
    """
    target = output_file(task, file)
    state = read_state(task)
    rows, entries = state.rows, state.entries
    waiting = state.waiting()
    if not partial:
        state.check_complete()
    columns = {
        "id": [row.id for row in rows],
        "label": [row.label or "" for row in rows],
        "split": [row.split or "" for row in rows],
        "status": [entry.status for entry in entries],
        "path": [printable(row.path) for row in rows],
        "digest": [entry.digest or "" for entry in entries],
        "text": [row.text or "" for row in rows],
    }
    keys = [bytes.fromhex(entry.digest) if entry.digest else None for entry in entries]
    usable = [key for key, entry in zip(keys, entries, strict=True) if entry.usable]
    readers = {
        name: open_in_use(task, state.snapshot, name, keys=usable, partial=partial)
        for name in backbones or task.embed.backbones
    }
    lacking = _lacking(readers, usable)
    said = [f"{len(them)} images have no embedding by {name} yet" for name, them in lacking.items()]
    if lacking and not partial:
        raise InputError(f"{'; '.join(said)}: run `archiveprobe embed {task.file}`")
    export(target, columns, keys, readers, overwrite=overwrite)
    changed = sum(_has_changed(task, row, entry) for row, entry in zip(rows, entries, strict=True))
    without = set().union(*lacking.values())
    done = sum(
        row.id not in waiting and key not in without for row, key in zip(rows, keys, strict=True)
    )
    return Exported(
        len(rows),
        [*(f"partial: {one}" for one in said), *_remarks(task, readers, len(waiting), changed)],
        f"partial: {done} of {len(rows)} rows" if waiting or lacking else None,
    )


def _lacking(readers: dict[str, Reader], keys: list[bytes | None]) -> dict[str, set[bytes | None]]:
    """The rows that were decoded, and that a cache lacks, by the name of its backbone.

    Those that are known to have no embedding do not count.
    """
    lacking = {
        name: set(keys) - reader.keys - reader.failures.keys() for name, reader in readers.items()
    }
    return {name: them for name, them in lacking.items() if them}


def _has_changed(task: Task, row: Row, entry: Entry) -> bool:
    """Whether the image is here and has another size than when it was embedded."""
    try:
        size = locate(task.root, row.path).stat().st_size
    except (OSError, ValueError):
        return False
    return entry.observed is not None and entry.observed.bytes not in (None, size)


def _remarks(task: Task, readers: dict[str, Reader], waiting: int, changed: int) -> list[str]:
    remarks = []
    for name, reader in readers.items():
        if reader.fingerprint.get("random_weights"):
            remarks.append(f"{name}: RANDOM WEIGHTS, for trials only")
        if reader.record.request != request(task, resolve(name, task)):
            remarks.append(
                f"{name}: made with other weights or libraries than are here now; "
                "embed again if they should count"
            )
    if waiting:
        remarks.append(f"partial: {waiting} rows wait for embed, their embeddings are NaN")
    if changed:
        remarks.append(f"{changed} images have changed since they were embedded: run embed")
    return remarks
