"""The rows of a task as the audit sees them: labelled ones first, then the rows to predict."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.probe.features import find_reader, read_matrix
from archiveprobe.task.manifest import Entry

Notify = Callable[[str], None]


@dataclass(frozen=True)
class AuditRows:
    """N rows: n labelled ones, then those to predict.

    `labels` (N,) are indices into `classes`, -1 for a row to predict; `entries` say what was
    observed of every image.
    """

    dataset: Dataset
    ids: np.ndarray
    labels: np.ndarray
    entries: list[Entry]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        return self.dataset.classes

    @property
    def labelled(self) -> np.ndarray:
        """(N,) whether a row is labelled."""
        return np.asarray(self.labels >= 0)

    @property
    def usable(self) -> np.ndarray:
        """(N,) whether a row's image was decoded."""
        return np.array([entry.usable for entry in self.entries], bool)


def gather(dataset: Dataset) -> AuditRows:
    """The rows of a task with their observations.

    Raises:
        InputError: no image was decoded.
    """
    ids = np.concatenate([dataset.labelled.ids, dataset.unlabelled.ids])
    entries = [*dataset.labelled.entries, *dataset.unlabelled.entries]
    if not any(entry.usable for entry in entries):
        raise InputError(
            f"no image of {dataset.task.file} was decoded: run `archiveprobe embed "
            f"{dataset.task.file}`"
        )
    labels = np.concatenate([dataset.labels, np.full(len(dataset.unlabelled), -1, np.int64)])
    return AuditRows(dataset, ids, labels, entries)


def cached_backbones(dataset: Dataset, notify: Notify = lambda _: None) -> dict[str, str]:
    """The task's backbones that have a cache, with the digest of its fingerprint.

    Raises:
        InputError: none has one, or embedding through one of them was not finished.
        InputError: a cache is damaged.
    """
    names = list(dict.fromkeys(dataset.task.embed.backbones))
    absent = [name for name in names if dataset.snapshot.cache(dataset.task.asks(name)) is None]
    if len(absent) < len(names):
        for name in absent:
            notify(f"{name}: left out, it has no cache yet")
        names = [name for name in names if name not in absent]
    return {name: find_reader(dataset, name).record.digest for name in names}


def unit_embeddings(dataset: Dataset, backbones: Sequence[str], places: np.ndarray) -> np.ndarray:
    """Embeddings (len(places), D) float32 of rows at `places` (labelled first), NaN where none.

    Views are averaged. Every backbone is centred and scaled to length one before they are put side
    by side, all rows have length one, and products of rows are mean cosines over the backbones.
    Centring spreads the cosines: in the raw space of a network all images point the same way.

    Raises:
        InputError: rows are not embedded yet.
        InputError: a cache is damaged.
    """
    rows = _select(dataset, places)
    parts = []
    for name in backbones:
        reader = find_reader(dataset, name)
        x = read_matrix(reader, rows, name, "mean", dataset.task)[:, 0]
        there = np.isfinite(x).all(1)
        if there.any():
            x -= x[there].mean(0, dtype=np.float64).astype(np.float32)
        length = np.linalg.norm(x, axis=1, keepdims=True)
        x /= np.where(length > 0, length, 1)
        parts.append(x)
    return np.asarray(np.concatenate(parts, 1) / np.float32(np.sqrt(len(parts))))


def _select(dataset: Dataset, places: np.ndarray) -> Rows:
    both = (dataset.labelled, dataset.unlabelled)
    whole = Rows(
        np.concatenate([rows.ids for rows in both]),
        [key for rows in both for key in rows.keys],
        [caption for rows in both for caption in rows.captions],
    )
    return whole.select(places)
