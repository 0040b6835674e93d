"""Near-duplicates by perceptual hash and by embeddings together, within and across the split.

The hash finds what was re-encoded, scaled or framed; embeddings also find strong crops, mirrors and
overlays, at the price that two images of one place may be taken for copies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from archiveprobe.probe.audit_rows import AuditRows
from archiveprobe.task.duplicates import near_duplicate_groups

BYTES, HASH, EMBEDDINGS = "equal bytes", "hash", "embeddings"
# Among 1,714 distinct real images (two MobileNets, mean of six views) the threshold below is
# 0.778 and joins no pair; the nearest strangers have 0.741. Of 120 copies of each kind it finds all
# that were mirrored or darkened, 98 % of those cropped to 80 % of the area, 74 % of those turned by
# 5 degrees, 50 % of those with banners over a quarter, 26 % of those cropped to 60 %.
_SPREADS = 6.5
_LOWEST, _HIGHEST = 0.75, 0.97
# The least cosine seen between an image and those copies is 0.29; of the two pairs of strangers
# that the hash joins there, one has -0.07.
_STRANGERS = 0.25
_SAMPLE = 2000
_FEWEST = 20
# Cosines computed at a time, 32 MB, and pairs kept before they are reduced to a spanning few.
_COSINES = 1 << 23
_PAIRS = 1 << 21


@dataclass(frozen=True)
class Group:
    """Rows that are copies of each other, in the order of the rows.

    `found_by` is the coarsest means that was needed to join them all: "equal bytes", "hash" or
    "embeddings". `labels` are names, None for a row to predict.
    """

    ids: tuple[str, ...]
    labels: tuple[str | None, ...]
    found_by: str

    @property
    def straddles(self) -> bool:
        """Whether some rows are labelled and others to predict."""
        return 0 < self.labels.count(None) < len(self.labels)

    @property
    def conflicting(self) -> bool:
        """Whether labels differ within the group."""
        return len(set(self.labels) - {None}) > 1

    def record(self) -> dict[str, Any]:
        """As it stands in the record of an audit."""
        return {
            "ids": list(self.ids),
            "labels": list(self.labels),
            "found_by": self.found_by,
            "straddles": self.straddles,
            "conflicting": self.conflicting,
        }


@dataclass(frozen=True)
class Duplicates:
    """Groups of two and more rows; `number` (N,) is the group of every row, singles included.

    What the hash joins and the embeddings hold for strangers has one number, which costs nothing
    but a shared fold, and is no group.
    `threshold` is the cosine above which embeddings join two rows, None where they were not used.
    """

    groups: tuple[Group, ...]
    number: np.ndarray
    threshold: float | None


def find_duplicates(rows: AuditRows, embeddings: np.ndarray) -> Duplicates:
    """Group rows by bytes, hash and unit embeddings (N, D); rows of NaN have none.

    Blank and tiny images all look alike to a network, so only equal bytes join them.
    """
    by_hash = near_duplicate_groups(rows.entries)
    fit = np.array([entry.status not in ("blank", "tiny") for entry in rows.entries])
    known = np.flatnonzero(fit & np.isfinite(embeddings).all(1))
    known = _first_of([rows.entries[at].digest for at in known], known)
    x = np.ascontiguousarray(embeddings[known])
    # Copies that are known already say nothing of how alike unrelated images are.
    threshold = copy_threshold(x[_first_of(by_hash[known], np.arange(len(known)))])
    left, right = (np.zeros(0, np.int64),) * 2
    if threshold is not None:
        left, right = near_pairs(x, threshold)
    first = np.unique(by_hash, return_index=True)[1]
    number = _components(
        len(rows),
        np.concatenate([first[by_hash], known[left]]),
        np.concatenate([np.arange(len(rows)), known[right]]),
    )
    alike = np.empty((0, 0)) if threshold is None else embeddings
    return Duplicates(tuple(_groups(rows, number, by_hash, alike)), number, threshold)


def _first_of(values: Sequence[Any] | np.ndarray, places: np.ndarray) -> np.ndarray:
    """The places of the first of every value, in their order."""
    if not len(places):
        return places
    return places[np.sort(np.unique(np.asarray(values), return_index=True)[1])]


def copy_threshold(x: np.ndarray) -> float | None:
    """The cosine from which two unit rows x (n, D) count as copies; None for very few rows.

    It lies far beyond the nearest neighbours that unrelated images have in these very embeddings:
    6.5 spreads above their median, after Fisher's transformation. Spread is measured below the
    median, where copies do not reach as long as most images have none.
    """
    if len(x) < _FEWEST:
        return None
    sample = np.arange(len(x))
    if len(x) > _SAMPLE:
        sample = np.sort(np.random.default_rng(0).choice(len(x), _SAMPLE, replace=False))
    nearest = np.empty(len(sample))
    step = max(1, _COSINES // len(x))
    for start in range(0, len(sample), step):
        part = sample[start : start + step]
        cosines = x[part] @ x.T
        cosines[np.arange(len(part)), part] = -1
        nearest[start : start + step] = cosines.max(1)
    low, middle = np.arctanh(np.clip(np.quantile(nearest, [0.1, 0.5]), -0.999, 0.999))
    spread = (middle - low) / 1.2816
    return float(np.clip(np.tanh(middle + _SPREADS * spread), _LOWEST, _HIGHEST))


def near_pairs(x: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of unit rows x (n, D) whose cosine reaches the threshold, enough to join all of them.

    Blocks against all later rows, so that memory stays small; pairs that follow from others are
    dropped on the way.
    """
    heads, tails, kept = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for start, cosines in _blocks(x):
        row, column = np.nonzero(cosines >= threshold)
        later = row < column
        heads.append(row[later] + start)
        tails.append(column[later] + start)
        kept += len(heads[-1])
        if kept > _PAIRS:
            link = _spanning(len(x), np.concatenate(heads), np.concatenate(tails))
            heads, tails, kept = [link[0]], [link[1]], len(link[0])
    return np.concatenate(heads), np.concatenate(tails)


def _blocks(x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    start = 0
    while start < len(x):
        later = x[start:]
        step = max(1, _COSINES // len(later))
        yield start, later[:step] @ later.T
        start += step


def _spanning(count: int, heads: np.ndarray, tails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fewer pairs that join the same rows: every row with the first of its component."""
    number = _components(count, heads, tails)
    first = np.unique(number, return_index=True)[1][number]
    apart = np.flatnonzero(first != np.arange(count))
    return first[apart], apart


def _components(count: int, heads: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """Connected components, numbered in the order of their first member."""
    links = coo_array((np.ones(len(heads), bool), (heads, tails)), shape=(count, count))
    _, component = connected_components(links, directed=False)
    _, first, number = np.unique(component, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[number].astype(np.int64))


def _groups(
    rows: AuditRows, number: np.ndarray, by_hash: np.ndarray, embeddings: np.ndarray
) -> Iterator[Group]:
    order = np.argsort(number, kind="stable")
    ends = np.flatnonzero(np.diff(number[order])) + 1
    for together in np.split(order, ends):
        members = _without_strangers(together, embeddings) if len(together) > 1 else together
        if len(members) > 1:
            labels = rows.labels[members]
            yield Group(
                tuple(str(rows.ids[at]) for at in members),
                tuple(rows.classes[label] if label >= 0 else None for label in labels),
                _means(rows, members, by_hash),
            )


def _without_strangers(members: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """The members that resemble another one; those without an embedding stay."""
    if not len(embeddings) or len(members) > _SAMPLE:
        return members
    x = embeddings[members]
    cosines = x @ x.T
    np.fill_diagonal(cosines, -1)
    known = np.isfinite(x).all(1)
    nearest = np.where(known, cosines, 1.0).max(1, initial=-1.0)
    return np.asarray(members[~known | (nearest >= _STRANGERS)])


def _means(rows: AuditRows, members: np.ndarray, by_hash: np.ndarray) -> str:
    digests = {rows.entries[at].digest for at in members}
    if len(digests) == 1:
        return BYTES
    return HASH if len(set(by_hash[members].tolist())) == 1 else EMBEDDINGS
