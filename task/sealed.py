"""Files that prove themselves: the first line holds the SHA-256 of all that follows it.

Before anything in such a file is parsed, its digest is compared, so a flipped bit, a cut, a byte
too many and somebody's edit are all found, and never become a figure.
"""

import hashlib
from pathlib import Path

from task.errors import InputError
from task.files import read_ordinary, write_whole

LARGEST = 1 << 30
_REMEDY = "move it away, and run the command that writes it again"


def _line(content: bytes) -> bytes:
    return f"# sha256 {hashlib.sha256(content).hexdigest()}\n".encode()


_LINE = len(_line(b""))


def seal(content: bytes) -> bytes:
    """Put the line with the digest before the content."""
    return _line(content) + content


def unseal(sealed: bytes) -> bytes:
    """Take the content out of what `seal` has made.

    Raises:
        ValueError: it is not what was sealed.
    """
    content = sealed[_LINE:]
    # The whole line is compared: a digest in capitals, or none at all, is a fault as well.
    if sealed[:_LINE] != _line(content):
        raise ValueError("it has changed since it was written, or another version wrote it")
    return content


def write_sealed(path: Path, content: bytes) -> None:
    """Replace `path` by the sealed content in one step, durable on return.

    Raises:
        OSError: the disk is full or read-only; the old file is then untouched.
    """
    write_whole(path, seal(content))


def read_sealed(path: Path, *, largest: int = LARGEST, remedy: str = _REMEDY) -> bytes | None:
    """Read the content of a sealed file; None where there is no file.

    `remedy` ends the message of a fault: what the user can do about this file.

    Raises:
        InputError: its digest does not match, it is no ordinary file, or it cannot be read.
    """
    try:
        return unseal(read_ordinary(path, largest))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}): {remedy}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): {remedy}") from None
