"""Several files by one name: a pattern with `*`, `?`, `[...]` or braces, or a folder of them."""

import glob
import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from archiveprobe.archive.store import glob_objects, is_file, list_objects, protocol_of
from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import first_few
from archiveprobe.task.find_images import printable

_WILD = re.compile(r"[*?[]")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MOST_FILES = 1_000_000


def is_pattern(text: str) -> bool:
    """Return whether a name means several files, unless a file has this very name."""
    return bool(_WILD.search(text) or _BRACES.search(text))


def expand(place: str, endings: Sequence[str]) -> list[str]:
    """Return the files that a place means: itself, those of a pattern, or those below a folder.

    `endings` are those of the files below a folder. Sorted, but for the order within braces.

    Raises:
        InputError: there is none, or one that braces name is missing.
    """
    if not is_pattern(place) or _exists(place):
        files = _below(place, endings)
    else:
        files = [file for name in _without_braces(place) for file in _matching(name)]
    if not files:
        raise InputError(f"no file at {printable(place)}: correct its name")
    return list(dict.fromkeys(files))


def common_folder(files: Sequence[str]) -> str:
    """Return the folder of all files, with `/` at its end."""
    folders = [file.split("/")[:-1] for file in files]
    pairs = zip(min(folders), max(folders), strict=False)
    shared = [name for name, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return "/".join([*shared, ""])


def _exists(place: str) -> bool:
    # A pattern in a store is one: `*` in the name of an object is too rare to ask for.
    return protocol_of(place) is None and os.path.lexists(place)


def _below(place: str, endings: Sequence[str]) -> list[str]:
    if protocol_of(place):
        if is_file(place):
            return [place]
        root = place.rstrip("/")
        return [f"{root}/{name}" for name, _ in list_objects(root) if _ends(name, endings)]
    if not Path(place).is_dir():
        return [place]
    names = (f"{folder}/{name}" for folder, _, names in os.walk(place) for name in names)
    return sorted(name for name in names if _ends(name[len(place) :], endings))


def _ends(name: str, endings: Sequence[str]) -> bool:
    return name.lower().endswith(tuple(endings)) and "/." not in f"/{name}"


def _matching(name: str) -> list[str]:
    if protocol_of(name):
        if _WILD.search(name):
            return glob_objects(name)
        there = [name] if is_file(name) else []
    else:
        if _WILD.search(name):
            # Path.glob takes no absolute pattern.
            return sorted(glob.glob(name, recursive=True))  # noqa: PTH207
        there = [name] if Path(name).is_file() else []
    if not there:
        raise InputError(f"no file {printable(name)}, which the braces name: correct them")
    return there


def _without_braces(text: str) -> list[str]:
    """Write out `{000..099}` and `{a,b}`.

    Raises:
        InputError: they mean more files than a source may have.
    """
    done, rest = [], [text]
    while rest:
        name = rest.pop()
        match = _BRACES.search(name)
        if match is None:
            done.append(name)
            continue
        words = _words(match)
        if len(words) * (len(rest) + len(done) + 1) > _MOST_FILES:
            listed = first_few(words)
            raise InputError(f"the braces of {printable(text)} mean too many files: {listed}")
        begin, end = name[: match.start()], name[match.end() :]
        rest += [f"{begin}{word}{end}" for word in reversed(words)]
    return done


def _words(match: re.Match[str]) -> list[str]:
    first, last, listed = match.groups()
    if listed is not None:
        return listed.split(",")
    count = int(last) - int(first)
    if abs(count) > _MOST_FILES:
        return [f"{first}..{last}"] * (_MOST_FILES + 1)
    width = len(first) if first.startswith("0") else 0
    step = 1 if count >= 0 else -1
    return [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]
