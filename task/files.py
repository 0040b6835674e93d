"""Products of a task: written so that a killed run never leaves half a file."""

# ruff: noqa: PTH102, PTH105, PTH108
# pathlib would hide the calls that a fault-injection test has to intercept one by one.

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".tmp-"


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step, durable on return.

    Raises:
        OSError: the disk is full or read-only; the old file is then untouched.
    """
    make_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}")
    try:
        _write_durable(temporary, content)
        os.replace(temporary, path)
        _fsync_folder(path.parent)
    except BaseException:
        remove(temporary)
        raise


def make_folder(folder: Path) -> None:
    """Create `folder` and its missing parents, durably; an existing one is fine.

    Raises:
        OSError: the disk refuses.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
    # Whoever made an empty folder may have been killed before its name was durable.
    if not any(folder.iterdir()):
        _fsync_folder(folder.parent)


def remove(path: Path) -> None:
    """Remove a file that is of no more use; one that cannot be removed is left."""
    with contextlib.suppress(OSError):
        os.unlink(path)


@contextlib.contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Let writers below a folder go one after the other; a killed one holds up nobody.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write_durable(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_folder(folder: Path) -> None:
    """Without this the new name may be lost with the power, though the bytes are safe."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
