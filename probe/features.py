"""From caches to matrices: which backbones, and what becomes of their views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from archiveprobe.base.errors import InputError
from archiveprobe.cache.log import Failure
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.shard import Embeddings
from archiveprobe.evaluate.caches import open_in_use, whole_name
from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.evaluate.tuned import (
    TunedNetwork,
    current_networks,
    fold_name,
    is_tuned,
)
from archiveprobe.probe.choice import Choice
from archiveprobe.task.config import Task
from archiveprobe.task.texts import is_text_cache, text_cache, text_key


class RowReader(Protocol):
    """Reads embeddings by key: those of a cache, or of a unit that is in memory."""

    @property
    def folder(self) -> Path:
        """Return the folder of the cache."""
        ...

    @property
    def failures(self) -> Mapping[bytes, Failure]:
        """Return images without an embedding."""
        ...

    def read(self, keys: Sequence[bytes | None]) -> tuple[NDArray[np.bool_], Embeddings]:
        """Return present (n,) and embeddings (n, views, *shape) float16; see Reader.read."""
        ...


# Views of many rows are read and averaged in parts: all of them may be six times as large.
_READ_BYTES = 1 << 28


@dataclass(frozen=True)
class Features:
    """Embeddings of one choice: labelled (n, V, d), unlabelled (m, V, d), float32.

    V is 1 for averaged views. Rows without an embedding are NaN; `sources` maps each backbone to
    the digest of its cache's fingerprint. `by_fold` are the labelled rows as the networks of every
    fold see them, where fine-tuned networks are among the backbones; else it is empty.
    """

    choice: Choice
    labelled: np.ndarray
    unlabelled: np.ndarray
    sources: dict[str, str]
    by_fold: Sequence[np.ndarray] = ()

    def outside(self, fold: int) -> np.ndarray:
        """Return labelled rows (n, V, d) as networks see them that were trained without a fold."""
        return self.by_fold[fold] if self.by_fold else self.labelled

    @property
    def readable(self) -> np.ndarray:
        """Say of every labelled row (n,) whether it has an embedding."""
        seen = (self.labelled, *self.by_fold)
        return np.asarray(np.all([np.isfinite(rows[:, 0]).all(1) for rows in seen], 0))

    @property
    def predictable(self) -> np.ndarray:
        """Say of every row to predict (m,) whether it has an embedding."""
        return np.asarray(np.isfinite(self.unlabelled[:, 0]).all(1))


def load_features(dataset: Dataset, choice: Choice) -> Features:
    """Read the embeddings of a choice for all rows of the task.

    Raises:
        InputError: a backbone has no cache, lacks rows, or has other views than the rest.
        InputError: fine-tuned networks are not those of the folds as they are now.
        InputError: a cache is damaged.
    """
    sources: dict[str, str] = {}

    def read(name: str, rows: Rows, network: TunedNetwork | None = None) -> np.ndarray:
        reader = find_reader(dataset, name)
        if network is not None:
            _check_network(dataset, reader, name, network)
        sources[name] = reader.record.digest
        return _read_in_parts(reader, rows, name, choice.views, dataset.task)

    tuned = {name: current_networks(dataset, name) for name in choice.backbones if is_tuned(name)}
    finals = {name: networks.final for name, networks in tuned.items()}
    labelled, unlabelled = (
        [read(name, rows, finals.get(name)) for name in choice.backbones]
        for rows in (dataset.labelled, dataset.unlabelled)
    )
    views = {part.shape[1] for part in labelled}
    if len(views) > 1:
        raise InputError(
            f"the backbones of {choice} have {sorted(views)} views: use {choice.backbones[0]}:mean"
        )

    def as_seen_without(fold: int) -> np.ndarray:
        parts = [
            read(fold_name(name, fold), dataset.labelled, tuned[name].folds[fold])
            if name in tuned
            else part
            for name, part in zip(choice.backbones, labelled, strict=True)
        ]
        return np.concatenate(parts, 2)

    by_fold = [as_seen_without(fold) for fold in range(dataset.folds if tuned else 0)]
    every = np.concatenate(labelled, 2), np.concatenate(unlabelled, 2)
    return Features(choice, *every, sources, by_fold)


def _check_network(dataset: Dataset, reader: Reader, name: str, network: TunedNetwork) -> None:
    """Check that a cache is of the very network that a fold has.

    Raises:
        InputError: it is of another one.
    """
    if reader.fingerprint.get("tuned") != network.record():
        raise InputError(
            f"{network.system} was trained again since it was embedded: run `archiveprobe embed "
            f"{dataset.task.file} --backbone {whole_name(name)}`"
        )


def _read_in_parts(reader: Reader, rows: Rows, name: str, views: str, task: Task) -> np.ndarray:
    """Read as `read_matrix` does, so many rows at a time that little more than it gives is held."""
    most = max(1, _READ_BYTES // (2 * prod(reader.row_shape or (1,))))
    parts = [range(at, min(at + most, len(rows))) for at in range(0, len(rows), most)]
    if len(parts) < 2:
        return read_matrix(reader, rows, name, views, task)
    read = (read_matrix(reader, rows.select(part), name, views, task) for part in parts)
    return np.concatenate([*read])


def read_matrix(
    reader: RowReader, rows: Rows, name: str, views: str, task: Task, *, as_stored: bool = False
) -> np.ndarray:
    """Read embeddings (n, V, d) float32 of one backbone for some rows, NaN where there is none.

    With `as_stored` they stay in half precision where no views are averaged, which halves the work
    of whoever converts them anyway.

    Raises:
        InputError: rows are not embedded yet.
        InputError: the cache is damaged.
    """
    of_text = is_text_cache(name)
    keys = rows.captions if of_text else rows.keys
    present, embeddings = reader.read(keys)
    missing = [key for key, known in zip(keys, present, strict=True) if key and not known]
    waiting = sum(key not in reader.failures for key in missing)
    if waiting:
        option = f" --backbone {whole_name(name)}" if is_tuned(name) else ""
        raise InputError(
            f"{waiting} rows are not in the cache {reader.folder.name} yet: run "
            f"`archiveprobe embed {task.file}{option}`"
        )
    # Not -1: there may be no row at all.
    flat = embeddings.reshape(*embeddings.shape[:2], prod(embeddings.shape[2:]))
    averaged = views == "mean" and flat.shape[1] > 1
    if averaged:
        result = flat.mean(1, dtype=np.float32)[:, None]
    else:
        result = flat if as_stored else flat.astype(np.float32)
    if of_text:
        # A row without a caption is no fault of the image.
        result[[key is None for key in keys]] = 0.0
    return np.asarray(result)


def find_reader(dataset: Dataset, name: str) -> Reader:
    """Open the cache that a backbone, or its text tower ("clip-vit-b32-text"), has in use.

    Raises:
        InputError: there is none, or embedding through it was not finished.
        InputError: it is damaged.
    """
    rows = (dataset.labelled, dataset.unlabelled)
    of_text = is_text_cache(name)
    keys = (key for part in rows for key in (part.captions if of_text else part.keys))
    partial = dataset.partial is not None
    return open_in_use(dataset.task, dataset.snapshot, name, keys=keys, partial=partial)


@dataclass(frozen=True)
class Prompts:
    """The prompts of every class as one unit vector each (K, d), and the CLIP's logit scale.

    `sources` maps the text tower to the digest of its cache's fingerprint.
    """

    vectors: np.ndarray
    scale: float
    bias: float
    sources: dict[str, str]


def load_prompts(dataset: Dataset, backbone: str) -> Prompts | None:
    """Read the prompts of a task as a CLIP sees them; None where the task or the backbone has none.

    Raises:
        InputError: some prompts are not embedded yet.
    """
    task = dataset.task
    # Reading a matrix for a stored linear probe must not load scikit-learn.
    from sklearn.preprocessing import normalize

    in_use = dataset.snapshot.cache(task.asks(backbone, "text"))
    if in_use is None or set(task.prompts) != set(task.labels):
        return None
    reader = find_reader(dataset, text_cache(backbone))
    vectors = []
    for label in task.labels:
        present, rows = reader.read([text_key(text) for text in task.prompts[label]])
        if not present.all():
            raise InputError(
                f"prompts of {label!r} are not embedded yet: run `archiveprobe embed {task.file}`"
            )
        mean = normalize(rows[:, 0].astype(np.float64)).mean(0)
        vectors.append(normalize(mean[None])[0])
    tokens = reader.fingerprint["preprocess"]
    scale, bias = float(tokens["scale"]), float(tokens["bias"])
    return Prompts(np.stack(vectors), scale, bias, {text_cache(backbone): reader.record.digest})
