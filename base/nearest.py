"""The known name that is nearest to a mistyped one, also among a hundred thousand of them."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# So few are compared faster than numpy is loaded.
_FEW = 500
_BITS = 64
# Characters compared at a time: 16 MB, however long the names are.
_CELLS = 1 << 22


def nearest_name(word: str, known: Iterable[str], cutoff: float) -> str | None:
    """Return the best of difflib.get_close_matches(word, known, n=1, cutoff); None for none.

    difflib compares the word with every name, which takes 11 s for 100,000 ids. Its ratio counts
    characters in blocks that follow each other in both texts, so they are a common subsequence: the
    longest one is a bound, which numpy computes for all names at once. Names are compared from the
    highest bound down, until no bound reaches the best ratio.
    """
    names = list(known)
    if len(names) <= _FEW:
        return next(iter(difflib.get_close_matches(word, names, n=1, cutoff=cutoff)), None)
    bounds = _bounds(word, names)
    matcher = difflib.SequenceMatcher(b=word)
    best: tuple[float, str] | None = None
    for at in (-bounds).argsort(kind="stable").tolist():
        if bounds[at] < (cutoff if best is None else best[0]):
            break
        matcher.set_seq1(names[at])
        found = matcher.ratio(), names[at]
        # Of equally good ones difflib gives the last in the order of names.
        if found[0] >= cutoff and (best is None or found > best):
            best = found
    return None if best is None else best[1]


def _bounds(word: str, names: Sequence[str]) -> "np.ndarray":
    """Return what difflib's ratio of the word and every name cannot exceed, (n,)."""
    import numpy as np

    lengths = np.fromiter(map(len, names), np.int64, len(names))
    shared = np.zeros(len(names), np.int64)
    for rows in _parts(lengths):
        text = np.array([names[at] for at in rows])
        letters = np.ascontiguousarray(text.view(np.uint32).reshape(len(rows), -1).T)
        # What is common to the whole word is at most the sum over its parts.
        for start in range(0, len(word), _BITS):
            shared[rows] += _longest_common(word[start : start + _BITS], letters)
    shared = np.minimum(shared, lengths)
    # As difflib computes a ratio, to the last bit; that of two empty texts is one.
    total = lengths + len(word)
    return np.where(total > 0, 2.0 * shared / np.maximum(1, total), 1.0)


def _parts(lengths: "np.ndarray") -> Iterator["np.ndarray"]:
    """Yield places of names of about one length, few enough for a table of their characters."""
    order = lengths.argsort(kind="stable")
    while len(order):
        widest = lengths[order[min(len(order), _CELLS // 64) - 1]]
        step = max(1, _CELLS // max(64, int(widest)))
        yield order[:step]
        order = order[step:]


def _longest_common(word: str, letters: "np.ndarray") -> "np.ndarray":
    """Return the length of the longest common subsequence of the word and every column, (n,).

    `letters` (length, n) are the names' characters, 0 behind their end; the word has at most 64.
    Bit j of `level` says that the row of the table of lengths does not rise at the word's character
    j; one step takes a character of all names (Hyyrö, "Bit-parallel LCS-length computation
    revisited", 2004).
    """
    import numpy as np

    masks = np.zeros(max(map(ord, word)) + 1, np.uint64)
    for at, character in enumerate(word):
        masks[ord(character)] |= np.uint64(1 << at)
    none = np.uint64(0)
    level: np.ndarray = np.full(letters.shape[1], ~none)
    for row in letters:
        # What lies beyond the table stands nowhere in the word.
        mask = np.where(row < len(masks), masks[np.minimum(row, len(masks) - 1)], none)
        met = level & mask
        level = (level + met) | (level - met)
    used = ~none >> np.uint64(_BITS - len(word))
    return np.asarray(np.bitwise_count(~level & used).astype(np.int64))
