"""A faster precision is taken only where every row agrees with fp32."""

import numpy as np
import pytest

from archiveprobe.embed.precision import AGREEMENT, check_precision, choose_precision, cosines

CROPS, MIRROR = np.zeros((4, 2, 2, 3), np.uint8), np.zeros(4, bool)


class Leaning:
    """Rows of which the last leans from fp32's by a given cosine at a faster precision."""

    def __init__(self, cosine: float, precision: str = "fp32", faster=("bf16",)) -> None:
        self.cosine, self.precision, self.faster = cosine, precision, faster

    def embed(self, crops: np.ndarray, _: np.ndarray) -> np.ndarray:
        rows = np.tile(np.array([1.0, 0.0], np.float32), (len(crops), 1))
        if self.precision != "fp32":
            rows[-1] = self.cosine, np.sqrt(1 - self.cosine**2)
        return 7 * rows

    def at(self, precision: str) -> "Leaning":
        return Leaning(self.cosine, precision, self.faster)

    def faster_precisions(self) -> tuple[str, ...]:
        return self.faster


@pytest.mark.parametrize(
    ("cosine", "taken"), [(1.0, "bf16"), (0.9996, "bf16"), (0.9994, "fp32"), (-1.0, "fp32")]
)
def test_one_row_that_disagrees_is_enough(cosine, taken) -> None:
    encoder, why = choose_precision(Leaning(cosine), CROPS, MIRROR)
    assert encoder.precision == taken
    assert why.startswith(taken)
    assert f"worst cosine to fp32 {cosine:.5f} over 4 crops" in why


def test_a_row_that_is_nowhere_disagrees() -> None:
    assert choose_precision(Leaning(np.nan), CROPS, MIRROR)[0].precision == "fp32"


def test_without_a_faster_one_it_is_fp32() -> None:
    encoder, why = choose_precision(Leaning(1, faster=()), CROPS, MIRROR)
    assert (encoder.precision, why) == ("fp32", "fp32")


def test_fp16_needs_a_gpu(fault_of) -> None:
    fault_of(lambda: check_precision("fp16", "cpu"), "fp16", "GPU", "bf16")
    check_precision("fp16", "cuda:1")
    check_precision("bf16", "cpu")
    check_precision("auto", "cpu")


def test_the_threshold_is_the_promised_one() -> None:
    assert AGREEMENT == 0.9995


def test_cosines_by_hand() -> None:
    left = np.array([[1, 0], [1, 1], [2, 0], [0, 0]], np.float16)
    right = np.array([[0, 3], [2, 2], [-1, 0], [1, 0]], np.float32)
    np.testing.assert_allclose(cosines(left, right), [0, 1, -1, np.nan], atol=1e-12)
    tokens = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_allclose(cosines(tokens, 3 * tokens), [1, 1])
