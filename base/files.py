"""Files written so that a killed run or a lost power supply leaves the old content or the new.

A fault-injection test replaces `files.os` and thereby sees every call that changes the disk, so
no other module writes, renames or removes anything that is read back.
"""

# ruff: noqa: PTH102, PTH105, PTH106, PTH108, PTH208
# pathlib would hide the calls that a fault-injection test has to intercept one by one.

import contextlib
import errno
import hashlib
import io
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError

TEMPORARY = ".tmp-"
# What file systems without hard links say: FAT, some network and user-space ones.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV}


@contextlib.contextmanager
def explained(action: str) -> Iterator[None]:
    """Turn an OSError inside the block into a one-line InputError: "cannot <action>: ..."."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        if error.errno and "errno = " in reason:
            # HDF5 tells the whole call.
            reason = os.strerror(error.errno)
        raise InputError(f"cannot {action}: {reason}; {_advice(error)}") from error


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space and run the same command again (finished rows are kept)"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "make it writable for this user, or work on a copy of the folder"
    return "check the disk and the path, then run the same command again"


def temporary_beside(path: Path) -> Path:
    """Make a new name in the folder of `path` that every later run knows as a leftover."""
    return path.with_name(f"{_temporaries_of(path)}{os.getpid()}-{secrets.token_hex(4)}")


def _temporaries_of(path: Path) -> str:
    """Return how the names of temporaries of one file begin; its own name may be too long."""
    return f"{TEMPORARY}{zlib.crc32(os.fsencode(path.name)):08x}-"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary that becomes `path` in one step, durably, at the block's end.

    An exception inside the block, or an OSError on the way, leaves the old file and no temporary.
    """
    temporary = temporary_beside(path)
    try:
        yield temporary
        fsync(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        discard(temporary)
        if isinstance(error, OSError) and error.filename in (None, os.fspath(temporary)):
            # A descriptor has no name, and that of a temporary says nothing.
            error.filename, error.filename2 = os.fspath(path), None
        raise
    fsync(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step, durable on return; missing folders are made.

    Raises OSError as the system gave it; the old file is then untouched, the temporary gone.
    """
    make_folder(path.parent)
    with replacing(path) as temporary:
        _create(temporary, data)


def write_new(path: Path, data: bytes) -> bool:
    """Write `path` in one step where there is no such file, durable on return.

    Says whether it was written: of several writers one does, and no file is replaced (but where
    the file system knows no hard links). Raises OSError as the system gave it.
    """
    make_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        _create(temporary, data)
        fsync(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if path.exists():
                return False
            os.replace(temporary, path)
    finally:
        discard(temporary)
    fsync(path.parent)
    return True


class HashedFile(io.RawIOBase):
    """A new file that is written from its start to its end; its bytes are counted and hashed.

    Raises OSError: the disk refuses, or there is such a file.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._hashed = hashlib.sha256()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    @property
    def sha256(self) -> str:
        """Return the digest of what was written, in hex."""
        return self._hashed.hexdigest()

    def writable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.size

    def write(self, data: Any) -> int:
        """Write all of `data`."""
        with memoryview(data) as view:
            _write_all(self._descriptor, view)
            self._hashed.update(view)
            self.size += view.nbytes
            return view.nbytes

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def write_digested(folder: Path, blocks: Iterable[bytes], suffix: str) -> Path:
    """Write `blocks` one after the other into a file of `folder`, named by its SHA-256 (hex).

    Durable on return; missing folders are made. Returns its path. Raises OSError.
    """
    make_folder(folder)
    temporary = temporary_beside(folder / suffix)
    try:
        with HashedFile(temporary) as file:
            for block in blocks:
                file.write(block)
        fsync(temporary)
        path = folder / f"{file.sha256}{suffix}"
        os.replace(temporary, path)
    except BaseException:
        discard(temporary)
        raise
    fsync(folder)
    return path


def link_whole(source: Path, target: Path) -> None:
    """Give `target` the bytes of a file that nobody changes: by a link, or else by a copy.

    A target that is there stays. Raises OSError as the system gave it.
    """
    make_folder(target.parent)
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        write_whole(target, source.read_bytes())


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
                fsync(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, length)
                os.fsync(descriptor)
            raise
    finally:
        # The fsync has said all there is; what close adds would only hide it.
        with contextlib.suppress(OSError):
            os.close(descriptor)


def shorten(path: Path, length: int) -> None:
    """Cut a file off after `length` bytes, durably. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, length)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync(path: Path) -> None:
    """Make the bytes of a file, or the names in a folder, durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
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
    if _is_empty(folder):
        fsync(folder.parent)


def _is_empty(folder: Path) -> bool:
    # A page's folder may hold a million images: to list them before each is written takes hours.
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def move_durable(source: Path, target: Path) -> None:
    """Rename `source` to `target`, both folders fsynced. Raises OSError."""
    os.replace(source, target)
    fsync(target.parent)
    fsync(source.parent)


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
    with contextlib.suppress(FileNotFoundError):
        if not _is_empty(folder):
            return False
        os.rmdir(folder)
    return True


def remove_files(folder: Path) -> None:
    """Remove a folder and the files in it; one that is gone already is fine. Raises OSError."""
    if folder.exists():
        for path in sorted(folder.iterdir()):
            remove(path)
        remove_folder(folder)
        fsync(folder.parent)


def drop_temporaries(folder: Path) -> None:
    """Remove what killed writers left in `folder`. Only under the lock. Raises OSError."""
    for path in sorted(folder.glob(f"{TEMPORARY}*")):
        remove(path)


def drop_temporaries_of(path: Path) -> None:
    """Remove what killed writers of one file left beside it. Only under the lock of its writers."""
    begin = _temporaries_of(path)
    # Beside a task.toml may lie a hundred thousand images: listed once, a Path for none of them.
    for name in os.listdir(path.parent):
        if name.startswith(begin):
            discard(path.with_name(name))


def _create(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        written = os.write(descriptor, rest)
        if written <= 0:
            raise OSError(errno.EIO, "the disk takes no more bytes")
        rest = rest[written:]
