"""The queue in front of the encoder, with arithmetic in the encoder's place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiveprobe.embed.batches import Batches
from archiveprobe.embed.views import Rendered


def picture(number: int, crops: int, views: list[tuple[int, bool]]) -> Rendered:
    """A rendered photograph whose crop c consists of pixels of the value 10 * number + c."""
    pixels = np.stack([np.full((2, 2, 3), 10 * number + crop, np.uint8) for crop in range(crops)])
    return Rendered(pixels, tuple(at for at, _ in views), tuple(mirror for _, mirror in views))


class Arithmetic:
    """Embeds a crop as (its value, 1 if mirrored), and remembers the sizes of its batches."""

    def __init__(self, most: int = 1000, message: str = "CUDA out of memory") -> None:
        self.sizes: list[int] = []
        self.most, self.message = most, message

    def __call__(self, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        if len(crops) > self.most:
            raise RuntimeError(self.message)
        self.sizes.append(len(crops))
        return np.stack([crops[:, 0, 0, 0], mirror], axis=1).astype(np.float32)


looks = st.integers(1, 3).flatmap(
    lambda crops: st.tuples(
        st.just(crops),
        st.lists(st.tuples(st.integers(0, crops - 1), st.booleans()), min_size=1, max_size=6),
    )
)


@settings(max_examples=60, deadline=None)
@given(st.lists(looks, min_size=1, max_size=8), st.integers(1, 7))
def test_every_look_is_embedded_once_and_every_view_gets_its_own(photographs, size) -> None:
    batches, encode = Batches(size, lambda _: None), Arithmetic()
    for number, (crops, views) in enumerate(photographs):
        batches.push(bytes([number]), picture(number, crops, views))
    results = list(batches.drain(encode))
    assert [key for key, _ in results] == [bytes([n]) for n in range(len(photographs))]
    for number, ((_, views), (_, rows)) in enumerate(zip(photographs, results, strict=True)):
        wanted = [(10 * number + crop, mirror) for crop, mirror in views]
        np.testing.assert_array_equal(rows, np.array(wanted, np.float32))
    assert sum(encode.sizes) == sum(len(set(views)) for _, views in photographs)
    assert max(encode.sizes) <= size
    assert not batches.waiting


def test_full_counts_distinct_looks() -> None:
    batches = Batches(3, lambda _: None)
    assert not batches.waiting
    batches.push(b"a", picture(0, 1, [(0, False), (0, False), (0, True)]))
    assert batches.waiting
    assert not batches.full
    batches.push(b"b", picture(1, 1, [(0, False)]))
    assert batches.full
    list(batches.drain(Arithmetic()))
    assert not batches.full


def test_nothing_waiting_embeds_nothing() -> None:
    encode = Arithmetic()
    assert list(Batches(3, lambda _: None).drain(encode)) == []
    assert encode.sizes == []


def filled(size: int, said: list[str]) -> Batches:
    batches = Batches(size, said.append)
    for number in range(10):
        batches.push(bytes([number]), picture(number, 1, [(0, False)]))
    return batches


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    said: list[str] = []
    batches, encode = filled(8, said), Arithmetic(most=3)
    results = list(batches.drain(encode))
    assert [row[0, 0] for _, row in results] == [10 * number for number in range(10)]
    assert encode.sizes == [2] * 5
    assert said == ["out of memory: batch halved to 4", "out of memory: batch halved to 2"]
    assert batches.size == 2  # And stays there.


def test_out_of_memory_for_one_crop_is_raised() -> None:
    said: list[str] = []
    with pytest.raises(RuntimeError, match="out of memory"):
        list(filled(4, said).drain(Arithmetic(most=0)))
    assert said[-1] == "out of memory: batch halved to 1"


@pytest.mark.parametrize("count", [1, 7, 8, 9, 12, 17])
def test_passes_are_as_few_and_as_even_as_can_be(count) -> None:
    batches, encode = Batches(8, lambda _: None), Arithmetic()
    for number in range(count):
        batches.push(bytes([number]), picture(number, 1, [(0, False)]))
    list(batches.drain(encode))
    assert sum(encode.sizes) == count
    assert len(encode.sizes) == -(-count // 8)
    assert max(encode.sizes) - min(encode.sizes) <= 1


def test_another_fault_is_raised_at_once_and_nothing_is_lost() -> None:
    said: list[str] = []
    batches = filled(8, said)
    with pytest.raises(RuntimeError, match="shape"):
        list(batches.drain(Arithmetic(most=0, message="shape mismatch")))
    assert said == []
    assert len(list(batches.drain(Arithmetic()))) == 10
