"""Files written so that a killed run or a lost power supply leaves the old content or the new.

A fault-injection test replaces `files.os` and thereby sees every call that changes the disk, so
no other module writes, renames or removes anything that is read back.
"""

# ruff: noqa: PTH102, PTH105, PTH106, PTH108
# pathlib would hide the calls that a fault-injection test has to intercept one by one.

import contextlib
import errno
import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiveprobe.base.errors import InputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

TEMPORARY = ".tmp-"

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def explained(action: str) -> Iterator[None]:
    """Turn an OSError inside the block into a one-line InputError: "cannot <action>: ..."."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise InputError(f"cannot {action}: {reason}; {_advice(error)}") from error


def _advice(error: OSError) -> str:
    if error.errno in _NO_SPACE:
        return "free some space and run the same command again (finished rows are kept)"
    if error.errno in _NO_ACCESS:
        return "make it writable for this user, or work on a copy of the folder"
    return "check the disk and the path, then run the same command again"


def temporary_beside(path: Path) -> Path:
    """Make a new name in the folder of `path` that every later run knows as a leftover."""
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step, durable on return; missing folders are made.

    Raises OSError as the system gave it; the old file is then untouched, the temporary gone.
    """
    make_folder(path.parent)
    with Staged(path) as staged:
        staged.write(data)
        staged.finish()


def append_durable(path: Path, line: bytes) -> None:
    """Append `line` (it ends with a newline) and return only when it is on disk.

    After a failure the file has its old length again. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        length = os.fstat(descriptor).st_size
        try:
            # A torn line before this one must not swallow it.
            torn = length > 0 and os.pread(descriptor, 1, length - 1) != b"\n"
            _write_all(descriptor, b"\n" + line if torn else line)
            os.fsync(descriptor)
            if length == 0:
                fsync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, length)
                os.fsync(descriptor)
            raise
    finally:
        # The fsync has said all there is; what close adds would only hide it.
        with contextlib.suppress(OSError):
            os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable. Raises OSError."""
    _fsync(folder, os.O_DIRECTORY)


def fsync_file(path: Path) -> None:
    """Make the bytes of `path` durable; one that is not there is fine. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        _fsync(path, 0)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create `folder` and its missing parents, durably; an existing one is fine. Raises OSError."""
    if not folder.is_dir():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
    # Whoever made an empty folder may have been killed before its name was durable.
    if not any(folder.iterdir()):
        fsync_folder(folder.parent)


def move_durable(source: Path, target: Path) -> None:
    """Rename `source` to `target`, both folders fsynced. Raises OSError."""
    os.replace(source, target)
    fsync_folder(target.parent)
    fsync_folder(source.parent)


def remove(path: Path) -> None:
    """Remove one file; one that is gone already is fine. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def discard(path: Path) -> None:
    """Remove a file that is of no more use; one that cannot be removed is left."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def remove_folder(folder: Path) -> bool:
    """Remove `folder` when it is empty; says whether it is gone. Raises OSError."""
    try:
        os.rmdir(folder)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        if error.errno != errno.ENOENT:
            raise
    return True


def drop_temporaries(folder: Path) -> None:
    """Remove what killed writers left in `folder`. Only under the lock. Raises OSError."""
    for path in sorted(folder.glob(f"{TEMPORARY}*")):
        remove(path)


def _write_all(descriptor: int, data: "ReadableBuffer") -> None:
    rest = memoryview(data).cast("B")
    while rest:
        written = os.write(descriptor, rest)
        if written <= 0:
            raise OSError(errno.EIO, "the disk takes no more bytes")
        rest = rest[written:]


class Staged(io.RawIOBase):
    """A temporary file that takes its final name only by `finish`, and vanishes otherwise.

    Usable as the file object behind an HDF5 library handle. For its sake a failed write does
    not raise at once (HDF5 can crash the process while it unwinds from a full disk): the error
    is kept, and so is what could not be written, in memory, since HDF5 also crashes when it does
    not find what it wrote. So ask `raise_failure` now and then; `finish` raises it as well.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = temporary_beside(path)
        self._error: OSError | None = None
        self._unwritten: list[tuple[int, bytes]] = []
        self._finished = False
        self._descriptor = -1
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._temporary, flags, 0o666)

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all of `data`; an OSError is kept for `finish`."""
        size = memoryview(data).nbytes
        start = self.tell()
        if self._error is None:
            try:
                _write_all(self._descriptor, data)
                return size
            except OSError as error:
                self._error = error
        self._unwritten.append((start, bytes(data)))
        self.seek(start + size)
        return size

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read what was written so far, or was to be."""
        start = self.tell()
        count = os.readv(self._descriptor, [buffer])
        if not self._unwritten:
            return count
        view = memoryview(buffer).cast("B")
        view[count:] = bytes(len(view) - count)
        for place, data in self._unwritten:
            low, high = max(start, place), min(start + len(view), place + len(data))
            if low < high:
                view[low - start : high - start] = data[low - place : high - place]
        self.seek(start + len(view))
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move within the temporary."""
        place = os.lseek(self._descriptor, offset, whence)
        if whence == os.SEEK_END:
            end = max((place + len(data) for place, data in self._unwritten), default=0)
            place = max(place, os.lseek(self._descriptor, max(place, end + offset), os.SEEK_SET))
        return place

    def tell(self) -> int:
        """Return where the next write lands."""
        return os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def truncate(self, size: int | None = None, /) -> int:
        """Set the length; an OSError is kept for `finish`."""
        size = self.tell() if size is None else size
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            self._error = self._error or error
        return size

    def readable(self) -> bool:
        """Return true."""
        return True

    def writable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def raise_failure(self) -> None:
        """Raise the first OSError of a write, if there was one."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Make the content durable and give it its name. Raises the first OSError of all."""
        self.raise_failure()
        os.fsync(self._descriptor)
        os.replace(self._temporary, self._path)
        self._finished = True
        fsync_folder(self._path.parent)

    def __enter__(self) -> "Staged":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close; without `finish` the temporary is removed."""
        if self.closed:
            return
        super().close()
        if self._descriptor < 0:
            return
        # The first error matters more than these, and the next run drops a leftover.
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
        if not self._finished:
            with contextlib.suppress(OSError):
                remove(self._temporary)
