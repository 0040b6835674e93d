"""What is shown of the embeddings of every backbone: maps, neighbours, similarity to words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.cache.reader import Reader
from archiveprobe.evaluate.dataset import Rows
from archiveprobe.look.embeddings import read_embeddings
from archiveprobe.look.maps import MAPS, explained_shares
from archiveprobe.look.missing import missing_of
from archiveprobe.look.parts import Part
from archiveprobe.task.config import Task


def collect_embeddings(
    task: Task, rows: Rows, readers: Mapping[str, Reader], maps: Sequence[str]
) -> Part:
    """Collect what the caches of a task give; a damaged one is missing."""
    part = Part(meta={"maps": [], "embeddings": [], "words": []})
    for name, reader in readers.items():
        try:
            matrix = read_embeddings(task, rows, name, reader)
        except InputError as error:
            part.missing.append(missing_of(error, f"archiveprobe embed {task.file}"))
            continue
        part.meta["embeddings"].append(name)
        for method in maps:
            columns, about = _map(len(part.meta["maps"]), method, matrix)
            part.columns |= columns
            part.meta["maps"].append({"name": name, **about})
    return part


def _map(
    number: int, method: str, matrix: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    places = MAPS[method](matrix)
    columns = {f"{axis}:{number}": places[:, at].copy() for at, axis in enumerate("xy")}
    shares = explained_shares(matrix, places) if method == "PCA" else []
    return columns, {"method": method, "explained": shares}
