"""The near-duplicate group of every row."""

from collections.abc import Sequence

import numpy as np

from archiveprobe.api.state import Pinned
from archiveprobe.task.duplicates import join_groups, near_duplicate_groups, pairs_of_equal

MOST_PAIRED = 20_000
"""Rows up to which every image is compared with every other one."""


def group_numbers(pinned: Pinned) -> np.ndarray:
    """Return the number (n,) int32 of every row's group of copies, -1 for a row of its own.

    Above `MOST_PAIRED` rows these are equal files, and the groups that the folds keep together.
    """
    entries = pinned.entries
    if len(entries) <= MOST_PAIRED:
        return renumbered(near_duplicate_groups(entries))
    number = np.arange(len(entries))
    dataset = pinned.dataset
    if dataset is not None and pinned.task.folds.group == "near-duplicates":
        labelled = np.flatnonzero([row.label is not None for row in pinned.rows])
        number = join_groups(number, *pairs_of_equal(labelled, dataset.groups))
    digests = np.array([entry.digest for entry in entries], np.bytes_)
    known = np.flatnonzero(digests != b"")
    return renumbered(join_groups(number, *pairs_of_equal(known, digests[known])))


def renumbered(number: np.ndarray) -> np.ndarray:
    """Count groups (n,) of two and more rows from 0 by their first row; -1 for a row alone."""
    _, first, which, counts = np.unique(
        number, return_index=True, return_inverse=True, return_counts=True
    )
    several = np.flatnonzero(counts > 1)
    names = np.full(len(counts), -1, np.int32)
    names[several[np.argsort(first[several])]] = np.arange(len(several))
    return names[which]


def numbered_groups(groups: Sequence[Sequence[int]], count: int) -> np.ndarray:
    """Return the number (count,) int32 of every row's group, given the places of their rows."""
    number = np.arange(count)
    for places in groups:
        number[places] = min(places)
    return renumbered(number)
