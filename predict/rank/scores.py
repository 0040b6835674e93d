"""The scores by which images are ranked: from their answers, or from their embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.cache.reader import Reader
from archiveprobe.evaluate.caches import open_in_use, read_means
from archiveprobe.evaluate.cosines import scale_to_unit
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.predict.rank.candidates import Candidates

# Rows read from a cache at a time: six views of width 1,280 are 31 MB.
_AT_ONCE = 2048

Scores = Callable[[Candidates], np.ndarray]
"""Gives the score (n,) of every image of a block, the highest for the first; NaN: not ranked."""


@dataclass(frozen=True)
class Embeddings:
    """The cache in use of a backbone of the task, in which images are found by content."""

    backbone: str
    reader: Reader

    @classmethod
    def open(cls, dataset: Dataset, backbone: str) -> "Embeddings":
        """Open it. Raises InputError: there is none, or embedding was not finished."""
        partial = dataset.partial is not None
        reader = open_in_use(dataset.task, dataset.snapshot, backbone, partial=partial)
        reader.keep_shard = True
        if reader.row_shape is None:
            raise InputError(
                f"the cache of {backbone} has no rows: run "
                f"`archiveprobe embed {dataset.task.shell_path}`"
            )
        return cls(backbone, reader)

    def units(self, keys: Sequence[bytes | None]) -> np.ndarray:
        """Read unit embeddings (n, d) float32, the mean of the views; NaN where there is none."""
        parts = [
            read_means(self.reader, keys[start : start + _AT_ONCE])
            for start in range(0, len(keys), _AT_ONCE)
        ]
        units = np.concatenate(parts) if parts else np.empty((0, 1), np.float32)
        scale_to_unit(units)
        return units


def likeliest(label: int) -> Scores:
    """Score by the probability of a label."""
    return lambda block: np.asarray(block.proba[:, label], np.float64)


def least_certain(label: int, threshold: float | None) -> Scores:
    """Score by how near an image lies to where its answer would change: minus the margin.

    With a threshold t of the positive label that is |p - t|; else half the margin between the label
    and the likeliest other one ("margin sampling", Scheffer, Decomain and Wrobel 2001): of two
    labels |p - (1 - p)| / 2 = |p - 0.5|, the same thing at t = 0.5.
    """

    def scores(block: Candidates) -> np.ndarray:
        p = block.proba[:, label]
        if threshold is not None:
            return np.asarray(-np.abs(p - threshold))
        others = np.delete(block.proba, label, 1).max(1)
        return np.asarray(-np.abs(p - others) / 2)

    return scores


def most_typical(dataset: Dataset, label: int, embeddings: Embeddings) -> tuple[Scores, int]:
    """Score images by their closeness to the labelled images of a label; count these.

    Typical is what lies nearest to the mean m of the unit embeddings u of the labelled images: the
    prototype of a class (nearest class mean: Mensink et al. 2013; Snell, Swersky and Zemel 2017),
    where a Gaussian of equal spread in all directions is densest. Since |u| = 1,

        |u - m|^2 = 1 + |m|^2 - 2 u.m,

    so the nearest has the largest u.m, and so the largest cosine with m.

    Raises:
        InputError: no labelled image of it has an embedding.
    """
    of_label = np.flatnonzero(dataset.labels == label)
    units = embeddings.units([dataset.labelled.keys[at] for at in of_label])
    units = units[np.isfinite(units).all(1)]
    name = dataset.classes[label]
    mean = units.mean(0, keepdims=True) if len(units) else np.full((1, 1), np.nan, np.float32)
    scale_to_unit(mean)
    if not np.isfinite(mean).all():
        raise InputError(
            f"no labelled image of {name!r} has an embedding by {embeddings.backbone}: label some, "
            "or name another --backbone"
        )
    return alike(embeddings, mean[0]), len(units)


def alike(embeddings: Embeddings, vector: np.ndarray) -> Scores:
    """Score by the cosine with a unit vector (d,)."""
    return lambda block: np.asarray(embeddings.units(block.keys) @ vector, np.float64)
