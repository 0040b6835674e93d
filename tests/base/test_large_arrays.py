"""Arrays in memory or in files without a name; a disk without room is said before it is used."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from archiveprobe.base import large_arrays
from archiveprobe.base.large_arrays import empty_array


def test_large_arrays_lie_in_a_file_that_nobody_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large_arrays, "LARGEST_IN_MEMORY", 4000)
    small, large = (empty_array((n, 10), np.float32, tmp_path) for n in (100, 101))
    assert not isinstance(small, np.memmap) and isinstance(large, np.memmap)
    assert small.shape == (100, 10) and large.shape == (101, 10) and large.dtype == np.float32
    large[:] = np.arange(1010).reshape(101, 10)
    assert large.sum() == 1009 * 505 and not list(tmp_path.iterdir())


@pytest.mark.proves("disk")
def test_a_full_disk_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(large_arrays, "LARGEST_IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        empty_array((10,), np.uint8, tmp_path)
    assert not list(tmp_path.iterdir())
