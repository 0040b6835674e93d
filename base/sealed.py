"""Records that prove themselves: JSON whose first line holds the SHA-256 of all that follows it.

Before anything in such a file is parsed, its digest is compared, so a flipped bit, a cut, a byte
too many and somebody's edit are all found, and never become a figure. To everybody else it is an
ordinary JSON object whose first key is `sha256`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
from archiveprobe.base.reading import read_product

LARGEST = 1 << 30
_REMEDY = "move it away, and run the command that writes it again"


def _first_line(rest: bytes) -> bytes:
    return f'{{"sha256": "{hashlib.sha256(rest).hexdigest()}",\n'.encode()


_LENGTH = len(_first_line(b""))


def seal(record: Mapping[str, Any]) -> bytes:
    """Write a record, which is not empty and has no key `sha256`, as a sealed JSON object."""
    if not record or "sha256" in record:
        raise ValueError("a sealed record has keys of its own, and leaves `sha256` to the seal")
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    # Names that are not UTF-8 hold halves of characters: Python's escape of one is JSON's as well.
    # The opening brace and its line end stand before the digest.
    rest = f"{text[2:]}\n".encode("utf-8", "backslashreplace")
    return _first_line(rest) + rest


def unseal(sealed: bytes) -> dict[str, Any]:
    """Read the record that `seal` has written.

    Raises:
        ValueError: it is not what was sealed.
    """
    rest = sealed[_LENGTH:]
    # The whole line is compared: a digest in capitals, or none at all, is a fault as well.
    if sealed[:_LENGTH] != _first_line(rest):
        raise ValueError("it has changed since it was written, or another version wrote it")
    return dict(json.loads("{" + rest.decode()))


def write_sealed(path: Path, record: Mapping[str, Any]) -> None:
    """Replace `path` by the sealed record in one step, durable on return.

    Raises:
        OSError: the disk is full or read-only; the old file is then untouched.
    """
    write_whole(path, seal(record))


def read_sealed(
    path: Path, *, largest: int = LARGEST, remedy: str = _REMEDY
) -> dict[str, Any] | None:
    """Read a sealed record; None where there is no file.

    `remedy` ends the message of a fault: what the user can do about this file.

    Raises:
        InputError: its digest does not match, it is no ordinary file, or it cannot be read.
    """
    content = read_product(path, largest, remedy)
    try:
        return None if content is None else unseal(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): {remedy}") from None
