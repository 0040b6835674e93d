"""Near-duplicates among all images that a task has embedded, its own and those of its archives."""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.large_arrays import empty_array
from archiveprobe.base.progress import Progress, silent
from archiveprobe.base.wording import number_of
from archiveprobe.cache.reader import Reader
from archiveprobe.evaluate.caches import open_in_use, read_means
from archiveprobe.evaluate.near_duplicates import Stars, find_near_duplicates
from archiveprobe.evaluate.task_state import read_state
from archiveprobe.predict.tables import answer_target, write_answers
from archiveprobe.task.config import Task
from archiveprobe.task.output import writing

_COLUMNS = ["group", "id", "similarity", "digest"]
_AT_ONCE = 4096


@dataclass(frozen=True)
class DuplicatesFound:
    """Holds how many images were compared, and how many groups and lines were written.

    An image whose file occurs several times in the table has a line for each.
    """

    file: Path
    backbone: str
    similarity: float
    images: int
    groups: int
    rows: int
    seconds: float
    notes: list[str]

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {
            "file": str(self.file),
            "backbone": self.backbone,
            "similarity": self.similarity,
            "images": self.images,
            "groups": self.groups,
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
        }

    def lines(self) -> list[dict[str, Any]]:
        """Return nothing more than the summary says, for people."""
        return []

    def summary(self) -> str:
        """Return what was written, in a sentence."""
        return (
            f"{number_of(self.groups, 'group')} of near-duplicates among "
            f"{number_of(self.images, 'image')} by {self.backbone}, {self.rows} rows in {self.file}"
        )


def write_duplicates(
    task: Task,
    file: Path,
    *,
    backbone: str | None = None,
    similarity: float = 0.95,
    progress: Progress = silent,
) -> DuplicatesFound:
    """Write the groups of near-duplicates in the cache of a backbone, by default the first.

    Compared is the mean of the views of every image, as float16. A line is an image: group, id
    (empty for what is not in the table, as images of an archive), its cosine with the first image
    of the group, and digest. Rows of the table come first, in its order.

    Raises:
        InputError: nothing is embedded, a cache is damaged, or the file cannot be written.
    """
    started = time.monotonic()
    target = answer_target(task, file, spreadsheet_safe=False)
    state = read_state(task)
    name = backbone or task.embed.backbones[0]
    reader = open_in_use(task, state.snapshot, name, partial=True)
    reader.keep_shard = True
    if reader.row_shape is None:
        raise InputError(
            f"the cache of {name} has no rows: run `archiveprobe embed {task.shell_path}`"
        )
    ids = defaultdict(list)
    for entry in state.entries:
        if entry.digest:
            ids[bytes.fromhex(entry.digest)].append(entry.id)
    stored = reader.keys
    keys = [key for key in ids if key in stored]
    keys += [key for key in stored if key not in ids]
    matrix = read_means_to_file(reader, keys, task.work, progress)
    stars = find_near_duplicates(matrix, similarity, progress=progress)
    lines = _lines(stars, keys, ids)
    write_answers(target.in_form(None, None, ["similarity"]), _COLUMNS, lines)
    lost = int((stars.first < 0).sum())
    return DuplicatesFound(
        file=target.named,
        backbone=name,
        similarity=similarity,
        images=len(keys),
        groups=len({line[0] for line in lines}),
        rows=len(lines),
        seconds=time.monotonic() - started,
        notes=[f"{lost} embeddings have no direction and are in no group"] * bool(lost),
    )


def read_means_to_file(
    reader: Reader, keys: Sequence[bytes], folder: Path, progress: Progress
) -> np.ndarray:
    """Read embeddings (n, d) float16, many of them into a file, so that memory stays small."""
    if not keys:
        return np.empty((0, 1), np.float16)
    width = int(np.prod((reader.row_shape or ())[1:]))
    with writing(folder):
        matrix = empty_array((len(keys), width), np.float16, folder)
    # A shard is read whole for any of its rows: in the order of the shards each is read once.
    order = np.argsort(reader.keys.locate(keys), kind="stable")
    with progress("reading", len(keys)) as advance:
        for start in range(0, len(keys), _AT_ONCE):
            part = order[start : start + _AT_ONCE]
            matrix[part] = read_means(reader, [keys[at] for at in part])
            for _ in part:
                advance()
    return matrix


def _lines(stars: Stars, keys: Sequence[bytes], ids: dict[bytes, list[str]]) -> list[list[str]]:
    """Return a line for every image of a group: those alike, and equal files of the table."""
    size = np.bincount(stars.first[stars.first >= 0], minlength=len(keys))
    lines, number = [], dict[int, int]()
    together = np.argsort(stars.first, kind="stable")
    for at in together[np.searchsorted(stars.first[together], 0) :]:
        names = ids.get(keys[at], [""])
        first = int(stars.first[at])
        if size[first] > 1 or len(names) > 1:
            group = number.setdefault(first, len(number) + 1)
            cosine = np.format_float_positional(min(stars.cosine[at], 1), 4, trim="0")
            lines += [[str(group), name, cosine, keys[at].hex()] for name in names]
    return lines
