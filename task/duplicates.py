"""Groups of images that are copies of each other, exact or nearly so."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from archiveprobe.task.manifest import Entry
from archiveprobe.task.rows import Row

# Bits of 64 by which the hashes of two copies may differ. On the built-in archive 10 finds 39 of 40
# copies and joins one strange pair, 8 finds 36; among 1,714 distinct real images 8 joins no
# pair and 10 joins two. A strange pair costs nothing but a shared fold, a missed copy leaks.
NEAR_BITS = 10
# Pairs compared at a time: 8 MB of distances, however many images there are.
_PAIRS = 1 << 20


def near_duplicate_groups(entries: Sequence[Entry], *, bits: int = NEAR_BITS) -> np.ndarray:
    """Assign numbers to the groups of equal and near-duplicate images.

    Two images belong together when their bytes are equal or their perceptual hashes (taken
    inside any uniform border) differ in at most `bits` bits; groups are the connected components.
    Blank images all look alike to such a hash, so only equal bytes join them.

    Returns:
        (n,) int64, group numbers from 0 in the order of their first member.
    """
    count = len(entries)
    left, right = _near_pairs(entries, bits)
    equal = _equal_pairs(entries)
    heads, tails = np.concatenate([left, equal[0]]), np.concatenate([right, equal[1]])
    links = coo_array((np.ones(len(heads), bool), (heads, tails)), shape=(count, count))
    _, component = connected_components(links, directed=False)
    _, first, number = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number].astype(np.int64)


def contradictions(rows: Sequence[Row], entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Find pairs of ids whose files are equal and whose labels differ, one pair per file."""
    first: dict[str, Row] = {}
    found: dict[str, tuple[str, str]] = {}
    for row, entry in zip(rows, entries, strict=True):
        if row.label is None or not entry.digest:
            continue
        other = first.setdefault(entry.digest, row)
        if other.label != row.label:
            found.setdefault(entry.digest, (other.id, row.id))
    return list(found.values())


def _equal_pairs(entries: Sequence[Entry]) -> tuple[np.ndarray, np.ndarray]:
    first: dict[str, int] = {}
    pairs = [
        (first.setdefault(entry.digest, at), at) for at, entry in enumerate(entries) if entry.digest
    ]
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _near_pairs(entries: Sequence[Entry], bits: int) -> tuple[np.ndarray, np.ndarray]:
    hashes = [
        int(entry.observed.phash, 16)
        if entry.observed and entry.observed.phash and entry.status not in ("blank", "tiny")
        else None
        for entry in entries
    ]
    places = np.array([at for at, value in enumerate(hashes) if value is not None], np.int64)
    known = np.array([value for value in hashes if value is not None], np.uint64)
    # Equal hashes join the first of their kind: a re-post seen n times makes n pairs, not n * n.
    values, first, which = np.unique(known, return_index=True, return_inverse=True)
    firsts = places[first]
    heads, tails = [firsts[which]], [places]
    start = 0
    while start < len(values):
        later = values[start:]
        block = later[: max(1, _PAIRS // len(later))]
        row, column = np.nonzero(np.bitwise_count(block[:, None] ^ later) <= bits)
        once = row < column
        heads.append(firsts[start + row[once]])
        tails.append(firsts[start + column[once]])
        start += len(block)
    return np.concatenate(heads), np.concatenate(tails)
