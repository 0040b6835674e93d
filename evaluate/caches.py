"""The cache that a backbone has in use: the one that the last `embed` used, and no other."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import differences
from archiveprobe.task.config import TUNED, Task, nearest
from archiveprobe.task.snapshot import Snapshot
from archiveprobe.task.texts import is_text_cache, text_cache

LEAVE_OUT = (
    "to leave them out, --partial of probe, ensemble, leaderboard, compare, audit, look and cache "
    "export, or partial=True of ap.open"
)
"""What to do where rows or images wait for `embed` and shall not hold up everything else."""


def asked_of(task: Task, name: str) -> dict[str, Any]:
    """Return what a task asks of the cache of a backbone or of its text tower ("<name>-text")."""
    if is_text_cache(name):
        return task.asks(name.removesuffix(text_cache("")), "text")
    return task.asks(name)


def open_in_use(
    task: Task,
    snapshot: Snapshot,
    name: str,
    *,
    keys: Iterable[bytes | None] = (),
    partial: bool = False,
) -> Reader:
    """Open the cache in use for a backbone of the task, or for its text tower.

    One that is not finished is refused, with the number of `keys` that it lacks, unless `partial`.

    Raises:
        InputError: there is none, it is unfinished, or it is not where the last `embed` used it.
        InputError: it is damaged.
    """
    asked = asked_of(task, name)
    in_use = snapshot.cache(asked)
    if in_use is None or in_use.folder is None:
        raise InputError(_absent(task, snapshot, asked))
    folder = task.caches / in_use.folder
    again = f"bring it back, or run `archiveprobe embed {task.shell_path}`"
    # The name comes out of a file: it must not lead anywhere else.
    if Path(in_use.folder).name != in_use.folder:
        raise InputError(f"{in_use.folder!r} is no cache of {task.caches}: {again}")
    if not (folder / "fingerprint.json").exists():
        raise InputError(f"the cache {folder}, which the last embed used, is gone: {again}")
    reader = Reader(folder)
    if reader.record.digest != in_use.fingerprint:
        raise InputError(f"the cache {folder} is not the one that the last embed used: {again}")
    if not in_use.finished and not partial:
        lacking = len({key for key in keys if key} - reader.keys - reader.failures.keys())
        wait = f"{lacking} images wait" if lacking else "it was interrupted before its end"
        raise InputError(
            f"embedding through {name} is not finished, {wait}: run `archiveprobe embed "
            f"{task.shell_path} --backbone {whole_name(name)}` ({LEAVE_OUT})"
        )
    return reader


def read_means(reader: Reader, keys: Sequence[bytes | None]) -> np.ndarray:
    """Read the mean over the views (n, d) float32 of every image, NaN where there is none.

    Raises:
        InputError: the cache is damaged, or has no row at all.
    """
    _, rows = reader.read(keys)
    means: np.ndarray = rows.mean(1, dtype=np.float32)
    return means.reshape(len(keys), -1) if len(keys) else np.empty((0, 1), np.float32)


def _absent(task: Task, snapshot: Snapshot, asked: Mapping[str, Any]) -> str:
    backbone, views = asked["backbone"], asked["views"]
    embedded = [cache.asked for cache in snapshot.caches]
    of_backbone = [then for then in embedded if then["backbone"] == backbone]
    # Of equal views the layers are others, the decoding, or the backbone's own settings ("own").
    other = sorted(
        repr(then["views"])
        if then["views"] != views
        else "another " + " and ".join(sorted({key.partition(".")[0] for key, *_ in changed}))
        for then in of_backbone
        for changed in [differences(then, asked)]
    )
    known_backbones = {then["backbone"] for then in embedded}
    hint = f", only with {', '.join(other)}" if other else nearest(backbone, known_backbones)
    return (
        f"no cache for backbone {backbone!r} with views {views!r} in {task.caches}"
        f"{hint}: run `archiveprobe embed {task.shell_path} --backbone {whole_name(backbone)}`"
    )


def whole_name(name: str) -> str:
    """Return what `--backbone` takes: of one network of a fine-tuned system all of them."""
    return name.partition("/")[0] if name.startswith(TUNED) else name
