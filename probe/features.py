"""From caches to matrices: which backbones, and what becomes of their views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from archiveprobe.base.errors import InputError
from archiveprobe.base.large_arrays import empty_array
from archiveprobe.base.wording import number_of
from archiveprobe.cache.log import Failure
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.shard import Embeddings
from archiveprobe.evaluate.caches import open_in_use, whole_name
from archiveprobe.evaluate.cosines import finite_rows
from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.evaluate.tuned import (
    TunedNetwork,
    current_networks,
    fold_name,
    is_tuned,
)
from archiveprobe.probe.choice import Choice
from archiveprobe.task.config import Task
from archiveprobe.task.output import writing
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
        return np.asarray(np.all([_finite(rows) for rows in seen], 0))

    @property
    def predictable(self) -> np.ndarray:
        """Say of every row to predict (m,) whether it has an embedding."""
        return _finite(self.unlabelled)


def _finite(rows: np.ndarray) -> np.ndarray:
    """Say of every row (n, V, d) whether its first view is finite."""
    finite = np.zeros(len(rows), bool)
    finite[finite_rows(rows[:, 0])] = True
    return finite


def load_features(dataset: Dataset, choice: Choice) -> Features:
    """Read the embeddings of a choice for all rows of the task.

    Raises:
        InputError: a backbone has no cache, lacks rows, or has other views than the rest.
        InputError: fine-tuned networks are not those of the folds as they are now.
        InputError: a cache is damaged.
    """
    tuned = {name: current_networks(dataset, name) for name in choice.backbones if is_tuned(name)}
    sources: dict[str, str] = {}

    def opened(name: str, network: TunedNetwork | None) -> tuple[str, Reader]:
        reader = find_reader(dataset, name)
        if network is not None:
            _check_network(dataset, reader, name, network)
        sources[name] = reader.record.digest
        return name, reader

    readers = [
        opened(name, tuned[name].final if name in tuned else None) for name in choice.backbones
    ]

    def as_seen_without(fold: int) -> np.ndarray:
        of_fold = [
            opened(fold_name(name, fold), tuned[name].folds[fold]) if name in tuned else whole
            for name, whole in zip(choice.backbones, readers, strict=True)
        ]
        return _read_side_by_side(dataset, dataset.labelled, choice, of_fold)

    labelled, unlabelled = (
        _read_side_by_side(dataset, rows, choice, readers)
        for rows in (dataset.labelled, dataset.unlabelled)
    )
    by_fold = [as_seen_without(fold) for fold in range(dataset.folds if tuned else 0)]
    return Features(choice, labelled, unlabelled, sources, by_fold)


def _check_network(dataset: Dataset, reader: Reader, name: str, network: TunedNetwork) -> None:
    """Check that a cache is of the very network that a fold has.

    Raises:
        InputError: it is of another one.
    """
    if reader.fingerprint.get("tuned") != network.record():
        raise InputError(
            f"{network.system} was trained again since it was embedded: run `archiveprobe embed "
            f"{dataset.task.shell_path} --backbone {whole_name(name)}`"
        )


def _read_side_by_side(
    dataset: Dataset, rows: Rows, choice: Choice, readers: Sequence[tuple[str, Reader]]
) -> np.ndarray:
    """Read rows (n, V, d) through several caches, with little more in memory than the answer.

    A large answer lies in a file. Raises InputError where the caches have unlike numbers of views.
    """
    task, out = dataset.task, None
    numbers = sum(prod(reader.row_shape or (1,)) for _, reader in readers)
    most = max(1, _READ_BYTES // (2 * numbers))
    # Once for no rows too: the answer has a shape.
    for start in range(0, max(1, len(rows)), most):
        part = rows.select(range(start, min(start + most, len(rows))))
        blocks = [read_matrix(reader, part, name, choice.views, task) for name, reader in readers]
        views = {block.shape[1] for block in blocks}
        if len(views) > 1:
            raise InputError(
                f"the backbones of {choice} have {sorted(views)} views: use "
                f"{choice.backbones[0]}:mean"
            )
        if out is None:
            shape = len(rows), views.pop(), sum(block.shape[2] for block in blocks)
            with writing(task.work):
                out = empty_array(shape, np.float32, task.work)
        np.concatenate(blocks, 2, out=out[start : start + len(part)])
    assert out is not None
    return out


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
            f"{number_of(waiting, 'row')} not in the cache {reader.folder.name} yet: run "
            f"`archiveprobe embed {task.shell_path}{option}`"
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
                f"prompts of {label!r} are not embedded yet: run "
                f"`archiveprobe embed {task.shell_path}`"
            )
        mean = normalize(rows[:, 0].astype(np.float64)).mean(0)
        vectors.append(normalize(mean[None])[0])
    tokens = reader.fingerprint["preprocess"]
    scale, bias = float(tokens["scale"]), float(tokens["bias"])
    return Prompts(np.stack(vectors), scale, bias, {text_cache(backbone): reader.record.digest})
