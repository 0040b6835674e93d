"""Small caches that can be checked by eye."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_disk import dead, faulty_os, working_os

from archiveprobe.cache.store import Writer

__all__ = ["dead", "faulty_os", "working_os"]

FINGERPRINT = {"backbone": "tiny", "views": ["center", "flip"], "precision": "fp32"}
REQUEST = {"backbone": "tiny", "precision": "auto"}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is lost here, but where every call is recorded: nothing waits for a disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


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
