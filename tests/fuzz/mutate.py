"""Valid files, damaged as disks, editors and strangers damage them."""

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy], int]
_LONGEST = 64


@st.composite
def mutated(draw, valid: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of the `valid` files after one to four changes; `words` are spliced in."""
    data = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(1, 4))):
        change = draw(st.sampled_from(CHANGES))
        start, end = sorted((_place(draw, data), _place(draw, data)))
        data = change(draw, data, start, end, words or valid)
    return data


def _place(draw: Draw, data: bytes) -> int:
    return draw(st.integers(0, len(data)))


def _flip(draw, data, start, end, words):
    if start == len(data):
        return data
    return data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]


def _cut_end(draw, data, start, end, words):
    return data[:start]


def _cut_out(draw, data, start, end, words):
    return data[:start] + data[min(end, start + _LONGEST) :]


def _insert(draw, data, start, end, words):
    return data[:start] + draw(st.binary(max_size=_LONGEST)) + data[start:]


def _splice(draw, data, start, end, words):
    return data[:start] + draw(st.sampled_from(words)) + data[start:]


def _overwrite_by_word(draw, data, start, end, words):
    word = draw(st.sampled_from(words))
    return data[:start] + word + data[start + len(word) :]


def _overwrite(draw, data, start, end, words):
    """A sector that was erased, or never written."""
    return data[:start] + bytes([draw(st.sampled_from([0, 0xFF]))]) * (end - start) + data[end:]


def _exchange_zeros(draw, data, start, end, words):
    """Runs of zeros and of ones, which a Fletcher checksum cannot tell apart."""
    part = data[start : start + _LONGEST]
    return data[:start] + part.replace(b"\0\0", b"\xff\xff") + data[start + _LONGEST :]


def _double(draw, data, start, end, words):
    return data[:end] + data[start:end] + data[end:]


def _reorder(draw, data, start, end, words):
    middle = (start + end) // 2
    return data[:start] + data[middle:end] + data[start:middle] + data[end:]


def _reorder_lines(draw, data, start, end, words):
    lines = data.splitlines(keepends=True)
    return b"".join(draw(st.permutations(lines))) if len(lines) <= 20 else data


CHANGES = [
    _flip, _cut_end, _cut_out, _insert, _splice, _overwrite_by_word, _overwrite, _exchange_zeros,
    _double, _reorder, _reorder_lines,
]  # fmt: skip
