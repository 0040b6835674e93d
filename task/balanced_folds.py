"""Assign rows to folds: balanced by label, whole groups together. Numbers only."""

from collections.abc import Sequence

import numpy as np


def balanced_folds(
    labels: Sequence[str],
    groups: Sequence[str],
    fixed: Sequence[tuple[int, ...] | None],
    *,
    folds: int,
    repeats: int,
    seed: int,
) -> list[tuple[int, ...]]:
    """Deal whole groups to folds so that every fold gets its share of every label.

    Groups go in random order, larger ones first, each to the fold where it adds least to the sum of
    squared label counts, weighted by the labels' rarity. Rows with `fixed` folds stay there and
    count.

    Returns:
        For every row its fold in every repeat.
    """
    classes, label_of = np.unique(np.asarray(labels), return_inverse=True)
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    loose = np.array([given is None for given in fixed])
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (group_of[loose], label_of[loose]), 1)
    weight = 1 / np.bincount(label_of, minlength=len(classes))
    assigned = np.zeros((len(labels), repeats), np.int64)
    for repeat in range(repeats):
        have = np.zeros((folds, len(classes)))
        for at, place in enumerate(fixed):
            if place is not None:
                assigned[at, repeat] = place[repeat]
                have[place[repeat], label_of[at]] += 1
        placed = _deal(counts, have, weight, np.random.default_rng([seed, repeat]))
        assigned[loose, repeat] = placed[group_of[loose]]
    return [tuple(int(fold) for fold in row) for row in assigned]


def _deal(
    counts: np.ndarray, have: np.ndarray, weight: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Assign a fold to every group; `counts` (groups, classes), `have` (folds, classes)."""
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    tie = rng.permutation(len(have))
    placed = np.full(len(counts), -1)
    sizes = counts[order].sum(1)
    for group in order[sizes > 1]:
        gain = counts[group]
        # What the group adds to the sum over classes of weight * count^2, for every fold:
        # (have + gain)^2 - have^2 = (2 * have + gain) * gain. The sum is least where the counts of
        # each class are equal; weight = 1 / class size lets a rare class count as much as a
        # frequent one. Ties go to the fold with fewest rows, then by the draw.
        cost = ((2 * have + gain) * gain * weight).sum(1)
        best = np.lexsort((tie, have.sum(1), cost.round(9)))[0]
        placed[group] = best
        have[best] += gain
    single = order[sizes == 1]
    placed[single] = _deal_single(counts[single].argmax(1), have, tie)
    return placed


def _deal_single(labels: np.ndarray, have: np.ndarray, tie: np.ndarray) -> list[int]:
    """Assign a fold to every group of one row, of which there may be a million.

    Of one label it costs least, by the sum of `_deal`, where the fewest rows have it.
    """
    by_label = have.T.astype(np.int64).tolist()
    totals = have.sum(1).astype(np.int64).tolist()
    in_order = np.argsort(tie).tolist()
    placed = []
    for label in labels.tolist():
        own = by_label[label]
        best = min(in_order, key=lambda fold: (own[fold], totals[fold]))
        own[best] += 1
        totals[best] += 1
        placed.append(best)
    return placed
