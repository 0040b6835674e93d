"""Small caches that can be checked by eye, and a disk that fails on demand."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archiveprobe.cache import disk, lock
from archiveprobe.cache.store import Writer

FINGERPRINT = {"backbone": "tiny", "views": ["center", "flip"], "precision": "fp32"}
REQUEST = {"backbone": "tiny", "precision": "auto"}


@pytest.fixture
def rows() -> dict[bytes, np.ndarray]:
    """Seven rows of two views of three numbers."""
    rng = np.random.default_rng(7)
    return {bytes([i]) * 32: rng.standard_normal((2, 3)).astype(np.float32) for i in range(7)}


@pytest.fixture
def fingerprint() -> dict[str, Any]:
    """What `open_writer` and `write` say that the rows depend on."""
    return FINGERPRINT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "tiny-0123456789abcdef"


@pytest.fixture
def open_writer() -> Callable[..., Writer]:
    def open_writer(folder: Path, **options: Any) -> Writer:
        return Writer.open(folder, FINGERPRINT, REQUEST, **options)

    return open_writer


@pytest.fixture
def write(open_writer) -> Callable[..., None]:
    def write(folder: Path, rows: Mapping[bytes, np.ndarray], per_shard: int = 3) -> None:
        """Write `rows` in shards of `per_shard` rows."""
        with open_writer(folder) as writer:
            for number, (key, row) in enumerate(rows.items(), start=1):
                writer.add(key, row)
                if number % per_shard == 0:
                    writer.commit()

    return write


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
        "ftruncate",
        "mkdir",
        "unlink",
        "rmdir",
    )
    NEEDS_SPACE = ("open", "write", "pwrite", "fsync", "mkdir")
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
    def install(at: int, mode: str, number: int = errno.ENOSPC, modules: Any = (disk,)) -> FaultyOs:
        faulty = FaultyOs(at, mode, number)
        for module in modules:
            monkeypatch.setattr(module, "os", faulty)
        return faulty

    yield install
    monkeypatch.undo()


@pytest.fixture
def working_os(monkeypatch) -> Callable[[], None]:
    def working_os() -> None:
        for module in (disk, lock):
            monkeypatch.setattr(module, "os", os)

    return working_os


@pytest.fixture
def dead() -> type[BaseException]:
    return Dead
