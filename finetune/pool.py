"""Bytes that grow: in memory up to a limit, then in a file that is locked while it is in use.

A file that a killed run left has no lock, and the next run drops it.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from archiveprobe.base.files import explained

_LEFT = "pixels-"


@dataclass(frozen=True)
class Place:
    """Where an image and its crops lie in the pool of bytes."""

    offset: int
    shape: tuple[int, ...]
    crops: tuple[int, ...]
    crop: tuple[int, ...]
    mirror: tuple[bool, ...]


class Pool:
    """Bytes that grow: in memory up to a limit, then in a file that is locked by this process."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._parts: list[np.ndarray] = []
        self._size = 0
        self._file: Path | None = None
        self._stream: Any = None
        self._finished = False

    def __enter__(self) -> Self:
        drop_left(self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None and not self._finished:
            assert self._file is not None
            self._file.unlink(missing_ok=True)
            # What a full disk did not take is tried again here, for nobody.
            with contextlib.suppress(OSError):
                self._stream.close()

    def add(
        self,
        image: np.ndarray,
        crops: np.ndarray,
        crop: tuple[int, ...],
        mirror: tuple[bool, ...],
    ) -> Place:
        """Keep an image and its distinct crops, uint8; view v is crop[v], mirrored or not.

        Raises:
            InputError: the disk takes no more.
        """
        place = Place(self._size, image.shape, crops.shape, crop, mirror)
        self._keep([np.ascontiguousarray(part).reshape(-1) for part in (image, crops)])
        return place

    def _keep(self, parts: Iterable[np.ndarray]) -> None:
        new = list(parts)
        self._size += sum(part.nbytes for part in new)
        self._parts += new
        if self._stream is not None or self._size > self._limit:
            with explained(f"keep decoded images in {self._folder}"):
                self._spill()

    def _spill(self) -> None:
        if self._stream is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file, self._stream = _locked_file(self._folder)
        # Written, not stored through the map: a full disk is then an error and not a dead process.
        for part in self._parts:
            self._stream.write(part)
        self._parts.clear()

    def finish(self) -> tuple[np.ndarray, Path | None, Any]:
        """All bytes (b,) to be read; their file and the open stream that locks it, where it is one.

        Raises:
            InputError: the disk takes no more.
        """
        if self._stream is None:
            pool = np.concatenate(self._parts) if self._parts else np.empty(0, np.uint8)
            return pool, None, None
        assert self._file is not None
        with explained(f"keep decoded images in {self._folder}"):
            self._stream.flush()
            mapped = np.memmap(self._file, np.uint8, "r")
        self._finished = True
        return mapped, self._file, self._stream


def _locked_file(folder: Path) -> tuple[Path, Any]:
    while True:
        file = folder / f"{_LEFT}{os.getpid()}-{secrets.token_hex(4)}"
        stream = file.open("xb")
        fcntl.flock(stream, fcntl.LOCK_EX)
        # A run that began before it was locked took it for one that was left.
        if file.exists():
            return file, stream
        stream.close()


def drop_left(folder: Path) -> None:
    """Remove the files of runs that were killed: nobody holds their lock."""
    for path in sorted(folder.glob(f"{_LEFT}*")):
        with contextlib.suppress(OSError), path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
