"""The embeddings that a page shows: one row per image."""

import numpy as np

from archiveprobe.api.state import Pinned
from archiveprobe.base.errors import InputError
from archiveprobe.cache.reader import Reader
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.evaluate.dataset import Rows
from archiveprobe.look.missing import missing_of
from archiveprobe.look.parts import Missing
from archiveprobe.probe.features import read_matrix
from archiveprobe.task.config import Task

_AT_ONCE = 16_384


def standing_caches(pinned: Pinned, rows: Rows) -> tuple[dict[str, Reader], list[Missing]]:
    """Open the cache of every backbone of the task; say of the others why there is none."""
    readers, missing = {}, []
    for name in dict.fromkeys(pinned.task.embed.backbones):
        try:
            partial = pinned.partial is not None
            reader = open_in_use(
                pinned.task, pinned.snapshot, name, keys=rows.keys, partial=partial
            )
            if reader.row_shape is None:
                raise InputError(f"the cache of {name} has no rows")
            readers[name] = reader
        except InputError as error:
            missing.append(missing_of(error, f"archiveprobe embed {pinned.task.file}"))
    return readers, missing


def read_embeddings(
    task: Task, rows: Rows, name: str, reader: Reader, view: int | None = None
) -> np.ndarray:
    """Read one embedding of every row (n, d) float32, NaN where there is none.

    It is that of the view at a place, by default the mean of all.

    Raises:
        InputError: the cache is damaged.
    """
    place = {key: at for at, key in enumerate(reader.keys)}
    # In the order of the cache, so that no shard is read more than twice.
    where = np.array([place.get(key or b"", -1) for key in rows.keys], np.intp)
    order = np.argsort(where, kind="stable")
    result = np.empty((0, 0), np.float32)
    for start in range(0, max(1, len(order)), _AT_ONCE):
        part = order[start : start + _AT_ONCE]
        views = "mean" if view is None else "rows"
        found = read_matrix(reader, rows.select(part), name, views, task)[:, view or 0]
        if not start:
            result = np.empty((len(rows), found.shape[1]), np.float32)
        result[part] = found
    return result


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    """Scale rows (n, d) to length one, NaN where a row is not finite or zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        length = np.linalg.norm(matrix, axis=1, keepdims=True)
        return np.asarray(np.where(length > 0, matrix / length, np.nan), np.float32)
