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

    `what` is what the message calls the folder. With `share` ("2of4") it is one of several that
    may be held at once, each under a name of its own, `LOCK-2of4`; the lock without a share
    excludes them all. The files stay behind, empty: removing one would let two writers lock two
    files of one name.
    """

    def __init__(self, folder: Path, what: str = "the cache", share: str | None = None) -> None:
        self._folder = folder
        self._what = what
        own = (folder / (NAME if share is None else f"{NAME}-{share}"), fcntl.LOCK_EX)
        self._wanted = [own] if share is None else [(folder / NAME, fcntl.LOCK_SH), own]
        self._descriptors: list[tuple[int, int]] = []

    def acquire(self) -> None:
        """Take the lock at once. Raises InputError naming the holder, or why there is no lock."""
        try:
            with explained(f"lock {self._folder} for writing"):
                for path, kind in self._wanted:
                    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                    self._descriptors.append((descriptor, kind))
                    self._claim(path, descriptor, kind)
        except BaseException:
            # What is closed is unlocked; the note is left, since it may be another holder's.
            while self._descriptors:
                with contextlib.suppress(OSError):
                    os.close(self._descriptors.pop()[0])
            raise

    @property
    def held(self) -> bool:
        """Return whether this object holds the lock."""
        return bool(self._descriptors)

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        while self._descriptors:
            descriptor, kind = self._descriptors.pop()
            # A stale note in LOCK misleads nobody: only the kernel's lock counts.
            if kind == fcntl.LOCK_EX:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, 0)
            # Unlocked by hand, because forked workers share the descriptor and may outlive us.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)

    def _claim(self, path: Path, descriptor: int, kind: int) -> None:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another process writes to {self._what} {self._folder}: "
                f"{_describe_holder(path, descriptor)}; wait until it ends or stop it, then run "
                "the same command again"
            ) from None
        # A prune may have removed the folder between our open and our flock.
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(descriptor)):
            raise InputError(f"{self._what} {self._folder} was just removed; run it again")
        if kind != fcntl.LOCK_EX:
            return
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
def wait_for_lock(folder: Path, name: str | None = None) -> Iterator[None]:
    """Let short writers below `folder` go one after the other.

    `name` is a lock file in it; without one the folder itself is locked, which some network file
    systems refuse.

    Raises:
        OSError: the folder cannot be opened.
    """
    if name is None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    else:
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path, name: str = NAME) -> bool:
    """Return whether some process writes to `folder` right now; changes nothing."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _describe_holder(path: Path, descriptor: int) -> str:
    """Say who holds a lock; of several holders of shares, the first."""
    note = os.pread(descriptor, _HOLDER_BYTES, 0)
    for share in [] if note else sorted(path.parent.glob(f"{NAME}-*")):
        if is_locked(share.parent, share.name):
            note = share.read_bytes()[:_HOLDER_BYTES]
            break
    return _describe_note(note)


def _describe_note(note: bytes) -> str:
    """Say who left a note, whatever bytes stand in it."""
    try:
        holder = json.loads(note)
        known = [str(holder.get(key, "?")) for key in ("pid", "host", "since")]
    except (ValueError, RecursionError, AttributeError):
        known = ["?"] * 3
    pid, host, since = (" ".join(word.split()) for word in known)
    return f"pid {pid} on host {host} since {since}"
