"""work/snapshot.json: the state of a task that every result is about.

`embed` writes it whole when it ends: which manifest it left, digests of the rows, labels, images,
folds and groups, and for every backbone the cache in use. While it works, and after it was
interrupted, the record says so. Whoever reads the products of a task starts here, so that all of
them are about one state, and nobody takes half a run for a whole one.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import make_folder
from archiveprobe.base.lock import wait_for_lock
from archiveprobe.base.sealed import read_sealed, write_sealed
from archiveprobe.task.config import Task

FORMAT = 1
_AT_ONCE = 10_000


def _check_asked(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    if not all(isinstance(asked.get(key), str) for key in ("backbone", "views", "layers")):
        raise ValueError("what it says of a cache is in another form")
    return asked


@dataclass(frozen=True)
class CacheInUse:
    """The cache that the last `embed` used for what a task asks of a backbone.

    `folder` and `fingerprint` (its digest) are None as long as no cache was chosen; `finished` says
    that it has every image of the manifest that can have an embedding.
    """

    asked: Annotated[Mapping[str, Any], AfterValidator(_check_asked)]
    folder: str | None = None
    fingerprint: str | None = None
    finished: bool = False


@dataclass(frozen=True)
class Snapshot:
    """What `embed` left: see the head of this file.

    `task` is the name of the task file; `manifest` the digest of manifest.csv; `decoded` says that
    every image was decoded, or refused for good; `parts` are digests by name.
    """

    task: str
    manifest: str = ""
    decoded: bool = False
    parts: Mapping[str, str] = field(default_factory=dict)
    caches: tuple[CacheInUse, ...] = ()

    @property
    def finished(self) -> bool:
        """Return whether the last `embed` of every backbone came to its end."""
        return self.decoded and all(cache.finished for cache in self.caches)

    @property
    def in_use(self) -> dict[str, str]:
        """Return digests of the fingerprints of the caches in use, by what was asked of them."""
        return {
            " ".join(str(cache.asked[key]) for key in ("backbone", "views", "layers")): (
                cache.fingerprint
            )
            for cache in self.caches
            if cache.fingerprint
        }

    def cache(self, asked: Mapping[str, Any]) -> CacheInUse | None:
        """Find the cache in use for what a task asks; None where nothing was embedded so."""
        return next((cache for cache in self.caches if cache.asked == asked), None)

    def with_caches(self, caches: Iterable[CacheInUse]) -> "Snapshot":
        """Return a copy with these caches in use, each replacing what was asked the same way."""
        new = tuple(caches)
        kept = (cache for cache in self.caches if all(cache.asked != other.asked for other in new))
        return replace(self, caches=(*kept, *new))


_SNAPSHOT = TypeAdapter(Snapshot)


def snapshot_file(task: Task) -> Path:
    """Return where the snapshot of a task lies."""
    return task.work / "snapshot.json"


def find_snapshot(task: Task) -> Snapshot | None:
    """Read the snapshot; None before the first `embed`.

    Raises:
        InputError: it is damaged, or the work folder belongs to another task file.
    """
    snapshot = _parsed(task)
    if snapshot is not None:
        _check_owner(task, snapshot)
    return snapshot


def _parsed(task: Task) -> Snapshot | None:
    """Parse the record. Raises InputError: it is damaged."""
    remedy = f"run `archiveprobe embed {task.shell_path}`, which writes it again"
    record = read_sealed(snapshot_file(task), remedy=remedy)
    if record is None:
        return None
    try:
        form = record.pop("format")
        if form != FORMAT:
            raise ValueError(f"it has the form {form!r}")
        return _SNAPSHOT.validate_python(record)
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(
            f"{snapshot_file(task)} is of another version ({error}): {remedy}"
        ) from None


def read_snapshot(task: Task) -> Snapshot:
    """Read the snapshot.

    Raises:
        InputError: there is none yet, it is damaged, or the work folder belongs to another task.
    """
    snapshot = find_snapshot(task)
    if snapshot is None:
        raise InputError(
            f"nothing is embedded yet, {snapshot_file(task)} is missing: run `archiveprobe embed "
            f"{task.shell_path}` first"
        )
    return snapshot


def _check_owner(task: Task, snapshot: Snapshot) -> None:
    owner = snapshot.task
    # A task file that was renamed takes its work along.
    if owner != task.file.name and "/" not in owner and (task.folder / owner).is_file():
        raise InputError(
            f"{task.work} belongs to {owner}, not to {task.file.name}: move {task.file.name} into "
            "a folder of its own, with paths from there, and run `archiveprobe embed` with --from "
            f"{owner}, which takes over what is embedded"
        )


def update_snapshot(task: Task, change: Callable[[Snapshot], Snapshot]) -> Snapshot:
    """Change the snapshot in one step, also where several runs do so at a time; the new one.

    A damaged one is written again.

    Raises:
        InputError: the work folder belongs to another task file.
        OSError: the disk is full or read-only; the old one is then untouched.
    """
    make_folder(task.work)
    with wait_for_lock(task.work):
        new = replace(change(own_snapshot(task)), task=task.file.name)
        write_sealed(snapshot_file(task), {"format": FORMAT, **asdict(new)})
    return new


def own_snapshot(task: Task) -> Snapshot:
    """Read the snapshot for `embed`, which writes it again; an empty one where it is damaged.

    Raises:
        InputError: the work folder belongs to another task file.
    """
    try:
        snapshot = _parsed(task)
    except InputError:
        snapshot = None
    if snapshot is None:
        return Snapshot(task.file.name)
    _check_owner(task, snapshot)
    return snapshot


def digest_of_words(*words: str) -> str:
    """SHA-256 over words, whatever they hold and however they are split."""
    total = hashlib.sha256()
    # Many at a time: a call for every word takes longer than the digest.
    for at in range(0, len(words), _AT_ONCE):
        text = "".join([f"{len(word)}:{word}" for word in words[at : at + _AT_ONCE]])
        total.update(text.encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def snapshot_digest(parts: Mapping[str, str], caches: Mapping[str, str]) -> str:
    """Compute the one digest of a state: of its parts, and of the caches in use by backbone."""
    return digest_of_words(json.dumps([parts, caches], sort_keys=True))
