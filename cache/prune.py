"""Find and remove what no task needs any more; only what the cache itself has written."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archiveprobe.base import files, lock
from archiveprobe.base.errors import InputError
from archiveprobe.cache import log, spec
from archiveprobe.cache.key_index import INDEX
from archiveprobe.cache.key_piece import SUFFIX
from archiveprobe.cache.log import SET_ASIDE, SHARDS
from archiveprobe.cache.reader import Reader

_CACHE_NAME = re.compile(r".+-[0-9a-f]{16}", re.DOTALL)


@dataclass(frozen=True)
class Prunable:
    """Something that may go: `path` (a cache folder, a set-aside shard or a temporary), its size
    in bytes, the reason, and the cache folder it belongs to."""

    path: Path
    bytes: int
    reason: str
    cache: Path


def prunable(root: Path, keep: Iterable[str]) -> list[Prunable]:
    """Find what may be removed below `root`, where `keep` names the cache folders in use.

    Caches that somebody writes to, links, and folders that are not caches are never listed.
    Changes nothing. Raises InputError when `root` cannot be read.
    """
    kept = set(keep)
    items: list[Prunable] = []
    with files.explained(f"read {root}"):
        for folder in sorted(root.iterdir()) if root.is_dir() else []:
            if not is_cache(folder) or lock.is_locked(folder):
                continue
            sizes = {path: path.lstat().st_size for path in _own_files(folder)}
            if folder.name not in kept:
                items.append(Prunable(folder, sum(sizes.values()), _reason(folder), folder))
                continue
            for path, size in sizes.items():
                if path.is_relative_to(folder / SET_ASIDE):
                    reason = "a damaged shard that was set aside"
                    items.append(Prunable(path, size, reason, folder))
                elif path.name.startswith(files.TEMPORARY):
                    reason = "left behind by a run that was killed"
                    items.append(Prunable(path, size, reason, folder))
    return items


def prune(items: Iterable[Prunable]) -> int:
    """Remove `items`, each under its cache's lock, and return the bytes freed.

    Files that the cache has not written stay, and so does their folder. An item that is gone is
    passed over. Raises InputError, also when somebody has begun to write to a cache.
    """
    freed = 0
    for item in items:
        if not is_cache(item.cache):
            continue
        with lock.Lock(item.cache), files.explained(f"remove {item.path}"):
            whole = item.path == item.cache
            own = list(_own_files(item.cache))
            for path in own if whole else [path for path in own if path == item.path]:
                freed += path.lstat().st_size
                files.remove(path)
            if whole:
                _remove_folders(item.cache)
    return freed


def is_cache(folder: Path) -> bool:
    """Return whether a folder is a cache, whole or damaged, by its name and the files of a cache.

    Links never are.
    """
    own = [folder / name for name in (spec.FILE, log.COMMITS)]
    plain = not any(path.is_symlink() for path in (folder, *own))
    named = _CACHE_NAME.fullmatch(folder.name) is not None
    return named and plain and any(path.is_file() for path in own)


def _reason(folder: Path) -> str:
    """Say why a cache that nothing uses may go."""
    try:
        Reader(folder)
    except InputError:
        return "damaged, and nothing uses it"
    return "the task does not ask for it"


def _own_files(folder: Path) -> Iterator[Path]:
    # The record comes last: what a killed prune leaves still looks like a cache to the next.
    for place in _own_folders(folder):
        yield from (path for path in sorted(place.iterdir()) if _is_own(path))
    yield from sorted(path for path in folder.glob(f"{files.TEMPORARY}*") if path.is_file())
    logs = [path for path in sorted(folder.iterdir()) if log.is_log(path.name)]
    for path in (*logs, folder / spec.FILE):
        if path.is_file():
            yield path


def _own_folders(folder: Path) -> Iterator[Path]:
    """List the folders in which a cache has files, those inside another one first."""
    for name in (SHARDS, SET_ASIDE, INDEX):
        place = folder / name
        if place.is_dir() and not place.is_symlink():
            shares = [path for path in sorted(place.iterdir()) if log.is_share(path.name)]
            yield from (path for path in shares if path.is_dir() and not path.is_symlink())
            yield place


def _is_own(path: Path) -> bool:
    base = path.name[: path.name.find(".h5") + 3]
    own = path.name.startswith(files.TEMPORARY) or log.shard_sequence(base) is not None
    return (own or path.suffix == SUFFIX) and not path.is_dir()


def _remove_folders(folder: Path) -> None:
    for place in list(_own_folders(folder)):
        files.remove_folder(place)
    locks = [path for path in folder.iterdir() if path.name.startswith(lock.NAME)]
    if len(locks) == len(list(folder.iterdir())):
        # That of the folder last, since it is held.
        for path in sorted(locks, reverse=True):
            files.remove(path)
        if files.remove_folder(folder):
            files.fsync(folder.parent)
