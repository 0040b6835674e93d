"""Arrays that lie in memory where they are small, and else in a file that has no name."""

import os
import tempfile
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

# What is larger lies in a file, of which the kernel keeps in memory what it has room for.
LARGEST_IN_MEMORY = 1 << 30


def empty_array(
    shape: tuple[int, ...], dtype: DTypeLike, folder: Path, *, in_memory: int | None = None
) -> np.ndarray:
    """Make an array whose values are to be filled in; a large one in a file in a folder.

    Large is one of more than `in_memory` bytes, by default LARGEST_IN_MEMORY.

    The file goes with the array, however the process ends.

    Raises:
        OSError: the folder has no room for it.
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    if size <= (LARGEST_IN_MEMORY if in_memory is None else in_memory):
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        # Without this a full disk would be met only when a page is written: the kernel kills then.
        _reserve(file.fileno(), size)
        return np.memmap(file, dtype, "r+", shape=shape)


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)
