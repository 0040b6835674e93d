"""Groups of images that are copies of each other, exact or nearly so."""

from collections.abc import Iterator, Sequence

import numpy as np

from archiveprobe.task.manifest import Entry
from archiveprobe.task.rows import Row

# Bits of 64 by which the hashes of two copies may differ. On the built-in archive 10 finds 39 of 40
# copies and joins one strange pair, 8 finds 36; among 1,714 distinct real images 8 joins no
# pair and 10 joins two. A strange pair costs nothing but a shared fold, a missed copy leaks.
NEAR_BITS = 10
_BANDS = 4
_BAND_BITS = 16
# Pairs compared at a time, and kept before their components are found, however many there are.
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
    values, first = np.unique(known, return_index=True)
    places = np.array([*hashes], np.int64)[first]
    joined = _Components(count)
    joined.link(*pairs_of_equal([*digests], np.array(list(digests.values()), np.bytes_)))
    joined.link(*pairs_of_equal([*hashes], known))
    for heads, tails in _near_pairs(values, bits):
        joined.link(places[heads], places[tails])
    return joined.numbers()


def join_groups(number: np.ndarray, heads: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """Join the groups `number` (n,) of rows that are linked, and number them by their first member.

    Row `heads[i]` is linked with row `tails[i]`.
    """
    joined = _Components(len(number))
    joined.link(*pairs_of_equal(np.arange(len(number)), number))
    joined.link(heads, tails)
    return joined.numbers()


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


class _Components:
    """The connected components of a number of places; of many links it keeps the few it needs."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._links: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting = 0

    def link(self, heads: np.ndarray, tails: np.ndarray) -> None:
        """Join each place of `heads` with that of `tails`."""
        self._links.append((heads, tails))
        self._waiting += len(heads)
        if self._waiting > _PAIRS:
            numbers = self.numbers()
            self._links = [pairs_of_equal(np.arange(self._count), numbers)]
            # What is left grows no more: there are as many links as places.
            self._waiting = 0

    def numbers(self) -> np.ndarray:
        """Return the number of every place's component (n,), by their first member."""
        # Here, since most commands join nothing, and importing it takes as long as all they do.
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        heads, tails = map(np.concatenate, zip(*self._links, strict=True))
        links = coo_array((np.ones(len(heads), bool), (heads, tails)), shape=(self._count,) * 2)
        component = connected_components(links, directed=False)[1]
        _, first, number = np.unique(component, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[number].astype(np.int64)


def pairs_of_equal(
    places: Sequence[int] | np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Link every place with the first of an equal value: n members make n pairs, not n * n."""
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    numbers = np.array(places, np.int64)
    return numbers[first[which]], numbers


def _near_pairs(hashes: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places of pairs of hashes, all distinct, within `bits` bits; some pairs twice.

    Two hashes are compared only where one of their four bands of 16 bits is nearly equal (Norouzi
    and others, Multi-index hashing, 2014). Were the bands all farther apart than `most`, one each,
    they would differ by at least sum(most + 1) = bits - 3 + 4 bits altogether.
    """
    bands = hashes.view(np.uint16).reshape(len(hashes), _BANDS)
    for number in range(_BANDS):
        # Rounded down, these add up to bits - 3, whatever the remainder.
        most = (bits - _BANDS + 1 + number) // _BANDS
        order = np.argsort(bands[:, number], kind="stable")
        band = bands[order, number].astype(np.int64)
        for first, second in _alike(band, hashes[order], most, bits):
            yield order[first], order[second]


def _alike(
    band: np.ndarray, hashes: np.ndarray, most: int, bits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the near pairs of hashes, sorted by `band`, whose bands differ by at most `most`."""
    begins = np.searchsorted(band, np.arange((1 << _BAND_BITS) + 1))
    for mask in np.flatnonzero(np.bitwise_count(np.arange(1 << _BAND_BITS)) <= most):
        other = band ^ mask
        # Every pair once: of two bands the greater one is the other, of one band the later places.
        begin = begins[other] if mask else np.arange(1, len(band) + 1)
        count = np.where(other >= band, begins[other + 1] - begin, 0)
        for first, second in _ranges(begin, count):
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= bits
            yield first[near], second[near]


def _ranges(begin: np.ndarray, count: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield every place with each of the `count` places from `begin` on, a bounded many at once."""
    places = np.flatnonzero(count)
    total = np.cumsum(count[places])
    start = 0
    while start < len(places):
        done = total[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(total, done + _PAIRS, "right")))
        some = places[start:end]
        # Of each range the number at which it would have begun, had all been one.
        shift = begin[some] - (total[start:end] - count[some] - done)
        second = np.arange(total[end - 1] - done) + np.repeat(shift, count[some])
        yield np.repeat(some, count[some]), second
        start = end
