"""Groups of images that are copies of each other, exact or nearly so."""

from collections.abc import Iterator, Sequence
from typing import Any

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
    digests = {at: entry.digest for at, entry in enumerate(entries) if entry.digest}
    hashes = {
        at: int(entry.observed.phash, 16)
        for at, entry in enumerate(entries)
        if entry.observed and entry.observed.phash and entry.status not in ("blank", "tiny")
    }
    known = np.array(list(hashes.values()), np.uint64)
    pairs = [
        _pairs_of_equal([*digests], np.array(list(digests.values()), np.bytes_)),
        _pairs_of_equal([*hashes], known),
        *_near_pairs([*hashes], known, bits),
    ]
    heads, tails = map(np.concatenate, zip(*pairs, strict=True))
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


def _pairs_of_equal(places: Sequence[int], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Link every place with the first of an equal value: n members make n pairs, not n * n."""
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    numbers = np.array(places, np.int64)
    return numbers[first[which]], numbers


def _near_pairs(places: Sequence[int], hashes: np.ndarray, bits: int) -> Iterator[Any]:
    """Yield pairs of places with unlike hashes, the first of each kind, within `bits` bits."""
    values, first = np.unique(hashes, return_index=True)
    numbers = np.array(places, np.int64)[first]
    start = 0
    while start < len(values):
        later = values[start:]
        block = later[: max(1, _PAIRS // len(later))]
        row, column = np.nonzero(np.bitwise_count(block[:, None] ^ later) <= bits)
        once = row < column
        yield numbers[start + row[once]], numbers[start + column[once]]
        start += len(block)
