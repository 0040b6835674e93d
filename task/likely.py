"""Which file a path means that leads nowhere: a hint for people, never a guess to act on."""

import os
import unicodedata
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from archiveprobe.task.pictures import named_like_a_picture

# All files of a large archive on a network disk would take minutes.
_LOOKED_AT = 50_000


def likely_file(root: Path, path: str) -> str | None:
    """The file below `root` that a missing `path` most likely means, or None.

    It differs in case, in its ending or the lack of one, or lies in another folder.
    """
    files = islice(_files(root, path), _LOOKED_AT)
    # A dead link bears the very name.
    ranked = ((_unlikeness(path, file), file) for file in files if file != path)
    best = min(((rank, file) for rank, file in ranked if rank), default=None)
    return best[1] if best else None


def _unlikeness(wanted: str, file: str) -> int:
    """1 (another case) to 4 (another folder and another ending); 0 where nothing fits."""
    one, other = _plain(wanted), _plain(file)
    if one == other:
        return 1
    one_name, other_name = one.rpartition("/")[2], other.rpartition("/")[2]
    if one_name == other_name:
        return 3
    if not named_like_a_picture(other_name):
        return 0
    if _stem(other) in (one, _stem(one)):
        return 2
    return 4 if _stem(other_name) in (one_name, _stem(one_name)) else 0


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def _files(root: Path, path: str) -> Iterator[str]:
    """Paths of files below `root`: those in the folder of `path` first, then all."""
    folder = path.rpartition("/")[0]
    is_below = not ("\0" in folder or folder.startswith("/") or ".." in folder.split("/"))
    beside = islice(_walk(root, root / folder), 1) if is_below else ()
    return chain.from_iterable(chain(beside, _walk(root, root)))


def _walk(root: Path, start: Path) -> Iterator[list[str]]:
    """The files of `start`, then those of every folder below it, as paths below `root`."""
    for folder, subfolders, files in os.walk(start):
        subfolders[:] = sorted(n for n in subfolders if not n.startswith(".") and n != "work")
        below = Path(folder).relative_to(root)
        yield [(below / name).as_posix() for name in sorted(files)]
