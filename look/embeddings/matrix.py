"""The embeddings that a page shows: one row per image.

Beyond some 250 MB they lie in a temporary file without a name, so that memory stays small.
"""

import tempfile
from pathlib import Path

import numpy as np

from archiveprobe.api.state import Pinned
from archiveprobe.base.errors import InputError
from archiveprobe.base.large_arrays import empty_array
from archiveprobe.cache.reader import Reader
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.evaluate.dataset import Rows
from archiveprobe.look.collect.missing import missing_of
from archiveprobe.look.collect.parts import Missing
from archiveprobe.probe.features import read_matrix
from archiveprobe.task.config import Task

_AT_ONCE = 16_384
_IN_MEMORY = 1 << 28


def standing_caches(pinned: Pinned, rows: Rows) -> tuple[dict[str, Reader], list[Missing]]:
    """Open the cache of every backbone of the task; say of the others why there is none."""
    readers, missing = {}, []
    task, partial = pinned.task, pinned.partial is not None
    for name in dict.fromkeys(task.embed.backbones):
        try:
            reader = open_in_use(task, pinned.snapshot, name, keys=rows.keys, partial=partial)
            if reader.row_shape is None:
                raise InputError(f"the cache of {name} has no rows")
            readers[name] = reader
        except InputError as error:
            missing.append(missing_of(error, f"archiveprobe embed {task.shell_path}"))
    return readers, missing


def read_embeddings(
    task: Task, rows: Rows, name: str, reader: Reader, view: int | None = None
) -> np.ndarray:
    """Read one embedding of every row (n, d) float32, NaN where there is none.

    It is that of the view at a place, by default the mean of all.

    Raises:
        InputError: the cache is damaged, or rows are not embedded yet.
    """
    # In the order of the cache, so that no shard is read more than twice.
    order = np.argsort(reader.keys.locate(rows.keys), kind="stable")
    views = "mean" if view is None else "rows"
    result = np.empty((0, 0), np.float32)
    for start in range(0, max(1, len(order)), _AT_ONCE):
        part = order[start : start + _AT_ONCE]
        found = read_matrix(reader, rows.select(part), name, views, task)[:, view or 0]
        if not start:
            shape, folder = (len(rows), found.shape[1]), Path(tempfile.gettempdir())
            result = empty_array(shape, np.float32, folder, in_memory=_IN_MEMORY)
        result[part] = found
    return result
