"""Checks of what a notebook passes: a wrong argument is named, with what it may be and what came.

No type checker looks at a notebook, and without these an argument of the wrong type would fail
somewhere inside a library.
"""

from collections.abc import Collection, Iterable
from numbers import Integral
from os import PathLike
from pathlib import Path
from reprlib import repr as shown

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import first_few
from archiveprobe.embed.device import check_device

_SHOWN = 8


def check_name(argument: str, value: object, known: Iterable[str] = ()) -> str:
    """Return a name; `known` are those to choose from.

    Raises:
        InputError: it is of another type.
    """
    if not isinstance(value, str):
        names = first_few(known, _SHOWN)
        choice = f": there are {names}" if names else ""
        raise InputError(f"{argument} must be a name, got {shown(value)}{choice}")
    return value


def check_choice(argument: str, value: object, known: Collection[str]) -> None:
    """Refuse what is none of the names in `known`.

    Raises:
        InputError: it is another one.
    """
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{argument} must be {' or '.join(known)}, got {shown(value)}")


def check_number(argument: str, value: object, least: int) -> None:
    """Refuse what is no whole number of at least `least`.

    Raises:
        InputError: it is a smaller one, or of another type.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise InputError(f"{argument} must be a whole number from {least}, got {shown(value)}")


def check_resources(device: object, batch_size: object, workers: object) -> None:
    """Refuse resources that nothing can be computed with; None leaves a choice to the machine.

    Raises:
        InputError: it is of another type, too small, or no device of this machine.
    """
    if device is not None:
        check_device(check_name("device", device))
    if batch_size is not None:
        check_number("batch_size", batch_size, 1)
    if workers is not None:
        check_number("workers", workers, 0)


def path_of(argument: str, value: object, what: str = "a path") -> Path:
    """Return a path, with the home folder for "~".

    Raises:
        InputError: it is of another type, or names the home folder of nobody.
    """
    if not isinstance(value, str | PathLike):
        raise InputError(f"{argument} must be {what}, got {shown(value)}")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise InputError(f"{argument} {str(value)!r}: {error}") from None


def place_of(argument: str, value: object) -> str:
    """Return where images lie: a path, with the home folder for "~", or a URL as it is.

    Raises:
        InputError: it is of another type, or names the home folder of nobody.
    """
    if isinstance(value, str) and "://" in value:
        return value
    return str(path_of(argument, value, "one folder of images"))
