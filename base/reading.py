"""Reading files that anybody may have put there: ordinary ones only, and no more than a limit.

A named pipe would keep its reader waiting for ever, a device never ends, and a film under the name
of an image would fill the memory.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from archiveprobe.base.errors import InputError

# More than 64 million pixels of four bytes, the largest image that is decoded.
IMAGE_BYTES = 256 * 1024 * 1024
TABLE_BYTES = 1024 * 1024 * 1024
# What a run has written itself: a manifest has some 300 bytes a row.
PRODUCT_BYTES = 16 * 1024 * 1024 * 1024
SETTINGS_BYTES = 16 * 1024 * 1024
_AT_ONCE = 1024 * 1024
# What is asked for where the file should end.
_BEYOND = 64 * 1024


class TooManyBytesError(OSError):
    """A file is larger than its limit; `size` is what it had when it was opened."""

    def __init__(self, size: int, limit: int, file: Path | str) -> None:
        super().__init__(errno.EFBIG, f"{size} bytes, limit {limit}", str(file))
        self.size = size


def read_ordinary(file: Path | str, limit: int) -> bytes:
    """Read an ordinary file whole.

    Raises:
        TooManyBytesError: it is larger than `limit`.
        OSError: it is missing, unreadable, a folder, a pipe or a device.
    """
    return b"".join(_chunks(file, limit, limit))


def read_product(file: Path, limit: int, remedy: str) -> bytes | None:
    """Read what a run has written itself; None where there is no file.

    Raises InputError, which ends with `remedy`: what the user can do about this file.
    """
    try:
        return read_ordinary(file, limit)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {file} ({error.strerror or error}): {remedy}") from None


def digest_of(file: Path | str, limit: int) -> str:
    """Hash an ordinary file (SHA-256, hex) in a bounded amount of memory.

    Raises:
        TooManyBytesError: it is larger than `limit`.
        OSError: it is missing, unreadable, a folder, a pipe or a device.
    """
    hashed = hashlib.sha256()
    for chunk in _chunks(file, limit, _AT_ONCE):
        hashed.update(chunk)
    return hashed.hexdigest()


def _chunks(file: Path | str, limit: int, at_once: int) -> Iterator[bytes]:
    # Without O_NONBLOCK a pipe waits here for a writer.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        if stat.S_ISDIR(facts.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file", str(file))
        size, done = facts.st_size, 0
        # The size alone does not do: a file may grow while it is read.
        while max(size, done) <= limit:
            left = size - done
            chunk = os.read(descriptor, min(left, at_once) if left > 0 else _BEYOND)
            if not chunk:
                return
            done += len(chunk)
            yield chunk
        raise TooManyBytesError(max(size, done), limit, file)
    finally:
        os.close(descriptor)
