"""The embeddings of a page: many of them lie in a file, which the disk must have room for."""

import errno
import os
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from archiveprobe.evaluate.dataset import Rows
from archiveprobe.look.embeddings import matrix


def test_a_disk_without_room_refuses_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the kernel kills the process at the first page that finds no room."""
    reader = cast(Any, SimpleNamespace(keys=SimpleNamespace(locate=lambda keys: [0] * len(keys))))
    rows = Rows(np.array(["a", "b"]), [None, None], [None, None])
    found = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
    monkeypatch.setattr(matrix, "read_matrix", lambda *_: found)
    monkeypatch.setattr(matrix, "_IN_MEMORY", 0)
    task = cast(Any, None)
    assert np.array_equal(matrix.read_embeddings(task, rows, "hog", reader), found[:, 0])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        matrix.read_embeddings(task, rows, "hog", reader)
