"""One writer per folder, held by the kernel so that a killed process never blocks the next.

`filelock` would do the waiting, but not what the messages need: who holds the lock, and whether the
folder was removed between opening and locking it.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import explained

NAME = "LOCK"
_HOLDER_BYTES = 4096


class Lock:
    """Context manager around `flock` on `<folder>/LOCK`.

    `what` is what the message calls the folder. The file stays behind, empty: removing it would
    let two writers lock two files of one name.
    """

    def __init__(self, folder: Path, what: str = "the cache") -> None:
        self._path = folder / NAME
        self._what = what
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock at once. Raises InputError naming the holder, or why there is no lock."""
        with explained(f"lock {self._path.parent} for writing"):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._claim(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """Return whether this object holds the lock."""
        return self._descriptor is not None

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        # A stale note in LOCK misleads nobody: only the kernel's lock counts.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        # Unlocked by hand, because forked workers share the descriptor and may outlive us.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _claim(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process writes to {self._what} {self._path.parent}: "
                f"{_describe_holder(descriptor)}; wait until it ends or stop it, then run the same "
                "command again"
            ) from None
        # A prune may have removed the folder between our open and our flock.
        if not self._path.exists() or not os.path.samestat(self._path.stat(), os.fstat(descriptor)):
            raise InputError(f"{self._what} {self._path.parent} was just removed; run it again")
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)

    def __enter__(self) -> "Lock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextlib.contextmanager
def wait_for_lock(folder: Path) -> Iterator[None]:
    """Let short writers below `folder` go one after the other.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Return whether some process writes to `folder` right now; changes nothing."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _describe_holder(descriptor: int) -> str:
    """Say who holds a lock, by the note in its file, whatever bytes stand there."""
    try:
        holder = json.loads(os.pread(descriptor, _HOLDER_BYTES, 0))
        known = [str(holder.get(key, "?")) for key in ("pid", "host", "since")]
    except (OSError, ValueError, RecursionError, AttributeError):
        known = ["?"] * 3
    pid, host, since = (" ".join(word.split()) for word in known)
    return f"pid {pid} on host {host} since {since}"
