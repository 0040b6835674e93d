"""Words that every message shares."""

import getpass
import os
import shlex
from collections.abc import Iterable


def first_few(names: Iterable[str], shown: int = 3) -> str:
    """List the first few of some names, and how many more there are: "a, b, c and 4 more"."""
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more


def quote_few(names: Iterable[str]) -> str:
    """List the first few of some names, quoted."""
    return first_few(map(repr, names))


def number_of(count: int, noun: str) -> str:
    """Write a number of things: "1 row", "3 rows"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def clipped(text: str, most: int = 60) -> str:
    """Quote a text of any length, shortened to `most` characters."""
    return repr(text if len(text) <= most else text[: most - 3] + "...")


def one_line(text: object, most: int = 120) -> str:
    """Write what a library says, such as an error, in one line of at most `most` characters."""
    return " ".join(str(text).split())[:most]


def shell_path(path: str | os.PathLike[str]) -> str:
    """Write a path as a shell takes it, for a command to be copied: quoted where it must be."""
    return shlex.quote(os.fspath(path))


def user_name() -> str:
    """Return the name that this user logged in with, or the number where a container has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def duration(seconds: float) -> str:
    """Write a time in at most two units: "0.4 s", "35 s", "4 min 20 s", "3 h 12 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    largest = next(at for at, (_, size) in enumerate(units) if whole >= size)
    (name, size), *smaller = units[largest:]
    text = f"{whole // size} {name}"
    if smaller and (rest := whole % size // smaller[0][1]):
        text += f" {rest} {smaller[0][0]}"
    return text


def file_size(count: int) -> str:
    """Write a number of bytes in a decimal unit: "640 B", "1.2 MB", "35 GB"."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5 or unit == "TB":
            break
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"
