"""A disk that fails on demand."""

import errno
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from archiveprobe.base import files, lock


class Dead(BaseException):
    """The process is gone: nothing runs after this, no cleaning up either."""


class FaultyOs:
    """Stands in for `os` in `cache.disk`; the call number `at` that concerns the disk fails.

    mode "once": this call alone raises the error `number`; "full": this and every later one that
    needs space; "gone": this and every later one; "dead": nothing changes the disk from here on.
    A failing write puts half its bytes, a failing close closes. Only EIO meets reads as well.
    """

    CHANGES = (
        "open",
        "write",
        "pwrite",
        "fsync",
        "replace",
        "link",
        "ftruncate",
        "mkdir",
        "unlink",
        "rmdir",
    )
    NEEDS_SPACE = ("open", "write", "pwrite", "fsync", "mkdir", "link")
    READS = ("pread", "fstat", "lseek", "readv", "close")

    def __init__(self, at: int, mode: str, number: int = errno.ENOSPC) -> None:
        self.at, self.mode, self.number, self.calls = at, mode, number, 0
        self._names = {*self.CHANGES, *(self.READS if number == errno.EIO else ())}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self._names:
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if not self._fails(name):
                return real(*arguments, **options)
            if name == "write" and self.calls == self.at:
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            if name == "close":
                real(*arguments)
            if self.mode == "dead":
                raise Dead
            raise OSError(self.number, os.strerror(self.number))

        return call

    def _fails(self, name: str) -> bool:
        if self.calls <= self.at or self.mode == "once":
            return self.calls == self.at
        return self.mode in ("dead", "gone") or name in self.NEEDS_SPACE


@pytest.fixture
def faulty_os(monkeypatch) -> Iterator[Callable[..., FaultyOs]]:
    def install(
        at: int, mode: str, number: int = errno.ENOSPC, modules: Any = (files,)
    ) -> FaultyOs:
        faulty = FaultyOs(at, mode, number)
        for module in modules:
            monkeypatch.setattr(module, "os", faulty)
        return faulty

    yield install
    monkeypatch.undo()


@pytest.fixture
def working_os(monkeypatch) -> Callable[[], None]:
    def working_os() -> None:
        for module in (files, lock):
            monkeypatch.setattr(module, "os", os)

    return working_os


@pytest.fixture
def dead() -> type[BaseException]:
    return Dead
