import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy.sparse.csgraph import connected_components

from archiveprobe.task import duplicates
from archiveprobe.task.decoding import Observation, decode, digest
from archiveprobe.task.duplicates import NEAR_BITS, contradictions, near_duplicate_groups
from archiveprobe.task.manifest import Entry
from archiveprobe.task.rows import Row


def groups_of(*contents):
    entries = []
    for at, content in enumerate(contents):
        result = decode(content)
        seen = result if isinstance(result, Observation) else result.observation
        entries.append(Entry(str(at), str(at), digest(content), seen))
    return near_duplicate_groups(entries).tolist()


def hashed(value, key="", status="ok"):
    return Entry("x", "x", key, Observation(status, phash=f"{value:016x}"))


def test_copies_belong_together(draw, encode):
    picture, other = draw(1, 300, 200), draw(2, 300, 200)
    copies = [
        encode(picture),
        encode(other),
        encode(picture, "JPEG", quality=50),
        encode(ImageOps.expand(picture, (0, 40), "black")),
        encode(picture.resize((150, 100))),
        encode(other),
        encode(picture, "WEBP", quality=60),
    ]
    assert groups_of(*copies) == [0, 1, 0, 0, 0, 1, 0]


def test_distinct_images_stay_apart(draw, encode):
    assert groups_of(*(encode(draw(seed)) for seed in range(20))) == [*range(20)]


def test_blank_and_unreadable_ones_by_equal_bytes_only(encode):
    black = encode(Image.new("RGB", (64, 64)))
    white = encode(Image.new("RGB", (64, 64), "white"))
    assert groups_of(black, white, black, b"broken", b"", b"broken") == [0, 1, 0, 2, 3, 2]


def test_rows_without_a_file_stay_apart():
    assert near_duplicate_groups([Entry("a", "a"), Entry("b", "b")]).tolist() == [0, 1]


def test_no_rows():
    assert near_duplicate_groups([]).tolist() == []


@pytest.mark.parametrize(("bits", "expected"), [(NEAR_BITS, [0, 0]), (NEAR_BITS + 1, [0, 1])])
def test_how_near(bits, expected):
    pair = [hashed(0), hashed(2**bits - 1)]
    assert near_duplicate_groups(pair).tolist() == expected
    assert near_duplicate_groups(pair, bits=bits - 1).tolist() == [0, 1]
    assert near_duplicate_groups(pair, bits=bits).tolist() == [0, 0]


def test_chains_and_numbers():
    """0-1 and 1-2 are near, 0-2 are not; 4 has the bytes of 3."""
    chain = [hashed(0), hashed(0xFF), hashed(0xFFFF)]
    far = hashed(0xFFFF_FFFF_0000_0000, "k")
    same = hashed(0x0000_FFFF_FFFF_0000, "k")
    assert near_duplicate_groups([*chain, far, same]).tolist() == [0, 0, 0, 1, 1]
    assert near_duplicate_groups([far, *chain, same]).tolist() == [0, 1, 1, 1, 0]


def test_contradictions():
    facts = [("a", "yes", "1"), ("b", "no", "1"), ("c", None, "1"), ("d", "no", "1")]
    facts += [("e", "yes", "2"), ("f", "yes", "2"), ("g", "yes", ""), ("h", "no", "")]
    facts += [("i", None, "3"), ("j", "no", "3"), ("k", "no", "3"), ("l", "yes", "3")]
    rows = [Row(name, name, label) for name, label, _ in facts]
    entries = [Entry(name, name, key) for name, _, key in facts]
    assert contradictions(rows, entries) == [("a", "b"), ("j", "l")]
    assert contradictions([], []) == []


def brute_force(entries, bits):
    parent = list(range(len(entries)))

    def top(at):
        while parent[at] != at:
            at = parent[at]
        return at

    def alike(a, b):
        if a.digest and a.digest == b.digest:
            return True
        if {a.status, b.status} & {"blank", "tiny", "corrupt"}:
            return False
        return (int(a.observed.phash, 16) ^ int(b.observed.phash, 16)).bit_count() <= bits

    for i in range(len(entries)):
        for j in range(i):
            if alike(entries[i], entries[j]):
                parent[top(i)] = top(j)
    numbers = {}
    return [numbers.setdefault(top(at), len(numbers)) for at in range(len(entries))]


BASES = [0, 2**64 - 1, 0x0F0F_0F0F_0F0F_0F0F, 0xFFFF_0000_FFFF_0000]


@st.composite
def entries(draw):
    value = draw(st.sampled_from(BASES))
    for bit in draw(st.lists(st.integers(0, 63), max_size=7)):
        value ^= 1 << bit
    status = draw(st.sampled_from(["ok", "ok", "ok", "blank", "tiny", "extreme_aspect", "corrupt"]))
    entry = hashed(value, draw(st.sampled_from(["", "", "a", "b"])), status)
    if status == "corrupt":
        return Entry("x", "x", entry.digest, Observation("corrupt"))
    return entry


@given(st.lists(entries(), max_size=14), st.integers(0, 12), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_against_brute_force(rows, bits, pairs):
    with mock.patch.object(duplicates, "_PAIRS", pairs):
        groups = near_duplicate_groups(rows, bits=bits)
    assert groups.dtype == np.int64
    assert groups.tolist() == brute_force(rows, bits)


@pytest.mark.parametrize("bits", [0, 2, 3, 8, 10, 13])
def test_hashes_at_every_distance(bits):
    """Every one of 400 has a neighbour in up to 15 bits, of which it must find those within."""
    rng = np.random.default_rng(bits)
    hashes = rng.integers(0, 2**64, 800, np.uint64, endpoint=False)
    for at in range(400):
        flipped = rng.choice(64, rng.integers(0, 16), replace=False)
        hashes[at] = int(hashes[at + 400]) ^ sum(1 << int(bit) for bit in flipped)
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= bits
    _, expected = connected_components(near, directed=False)
    groups = near_duplicate_groups([hashed(int(value)) for value in hashes], bits=bits)
    assert len(set(zip(groups.tolist(), expected.tolist(), strict=True))) == len(set(groups))
    assert len(set(groups.tolist())) == len(set(expected.tolist()))


@pytest.mark.parametrize("different", [True, False])
def test_memory_does_not_grow_with_the_square(different):
    """4,000 x 4,000 distances, or as many pairs of one re-post, would take 128 MB."""
    numbers = np.random.default_rng(0).integers(0, 2**64, 4000, np.uint64, endpoint=False)
    rows = [hashed(int(number) if different else 5) for number in numbers]
    tracemalloc.start()
    try:
        groups = near_duplicate_groups(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(set(groups.tolist())) == (len(rows) if different else 1)
    assert peak < 32e6
