"""What is shown of the embeddings of every backbone: maps, neighbours, similarity to words."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from archiveprobe.api.state import Pinned
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Progress
from archiveprobe.base.wording import quote_few
from archiveprobe.cache.reader import Reader
from archiveprobe.embed.words import prompts, stored_texts, takes_free_words, tower_of
from archiveprobe.evaluate.cosines import nearest_of_all, scale_to_unit, similarities
from archiveprobe.evaluate.dataset import Rows
from archiveprobe.look.collect.groups import MOST_PAIRED
from archiveprobe.look.collect.missing import missing_of
from archiveprobe.look.collect.parts import Missing, Part
from archiveprobe.look.embeddings.maps import MAPS, explained_shares
from archiveprobe.look.embeddings.matrix import read_embeddings


def collect_embeddings(
    pinned: Pinned,
    rows: Rows,
    readers: Mapping[str, Reader],
    *,
    maps: Sequence[str],
    neighbours: int,
    progress: Progress,
) -> Part:
    """Collect what the caches of a task give; a damaged one is missing."""
    part = Part(meta={"maps": [], "embeddings": [], "words": []})
    with progress("mapping", len(readers)) as advance:
        for name, reader in readers.items():
            try:
                matrix = read_embeddings(pinned.task, rows, name, reader)
            except InputError as error:
                again = f"archiveprobe embed {pinned.task.shell_path}"
                part.missing.append(missing_of(error, again))
                continue
            number = len(part.meta["embeddings"])
            part.meta["embeddings"].append(name)
            _add_maps(part, name, matrix, maps)
            scale_to_unit(matrix)
            if neighbours and len(matrix) <= MOST_PAIRED:
                near, cosines = nearest_of_all(matrix, neighbours)
                part.columns[f"near:{number}"] = near.ravel()
                part.columns[f"similarity:{number}"] = cosines.ravel()
            _add_words(part, number, pinned, name, matrix)
            advance()
    return part


def _add_maps(part: Part, name: str, matrix: np.ndarray, maps: Sequence[str]) -> None:
    listed: list[dict[str, Any]] = part.meta["maps"]
    for method in maps:
        places = MAPS[method](matrix)
        part.columns |= {
            f"{axis}:{len(listed)}": places[:, at].copy() for at, axis in enumerate("xy")
        }
        # What UMAP draws has no share of the variance.
        shares = explained_shares(matrix, places) if method == "PCA" else []
        listed.append({"name": name, "method": method, "explained": shares})


def _add_words(part: Part, number: int, pinned: Pinned, name: str, units: np.ndarray) -> None:
    """Add the similarity of every image to the prompts, through a CLIP that has embedded them."""
    task = pinned.task
    tower = tower_of(task, name)
    if tower is None:
        return
    texts = prompts(task)
    partial = pinned.partial is not None
    try:
        vectors = stored_texts(task, pinned.snapshot, name, texts, partial=partial)
    except InputError as error:
        if texts:
            part.missing.append(missing_of(error, f"archiveprobe embed {task.shell_path}"))
        texts, vectors = [], np.empty((0, units.shape[1]), np.float32)
    known = np.isfinite(vectors).all(1)
    waiting = [text for text, is_known in zip(texts, known, strict=True) if not is_known]
    if waiting:
        what = f"{name} has not embedded the prompts {quote_few(waiting)}"
        part.missing.append(Missing(what, f"archiveprobe embed {task.shell_path}"))
    texts = [text for text in texts if text not in waiting]
    for at, vector in enumerate(vectors[known]):
        part.columns[f"words:{number}:{at}"] = similarities(units, vector)
    free = takes_free_words(tower)
    if texts or free:
        part.meta["words"].append({"embedding": name, "texts": texts, "free": free})
