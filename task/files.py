"""Products of a task: written so that a killed run never leaves half a file, read with a limit."""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step, durable on return.

    Raises:
        OSError: the disk is full or read-only; the old file is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _fsync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_ordinary(path: Path, largest: int) -> bytes:
    """Read a whole file of at most `largest` bytes, without ever waiting for a writer.

    Raises:
        OSError: there is none, it is larger, or it is a folder, a named pipe or a device.
    """
    with open(path, "rb", buffering=0, opener=_open_at_once) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file", str(path))
        if status.st_size > largest:
            raise OSError(errno.EFBIG, f"larger than {largest:,} bytes", str(path))
        return stream.readall()


def _open_at_once(path: str, flags: int) -> int:
    """Without O_NONBLOCK, opening a named pipe waits until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _fsync_folder(folder: Path) -> None:
    """Without this the new name may be lost with the power, though the bytes are safe."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
