"""Metrics: the paper's table, scikit-learn's values, and weights that are repeated rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sklearn_metrics

from archiveprobe.evaluate.metrics import (
    METRICS,
    confusions,
    from_confusion,
    macro_f1,
    replicated,
)


def test_the_convnext_papers_table() -> None:
    found = from_confusion(np.array([[232, 28], [24, 118]]))
    assert {name: round(float(value), 4) for name, value in found.items()} == {
        "macro_f1": 0.8593,
        "accuracy": 0.8706,
        "balanced_accuracy": 0.8616,
        "precision": 0.8572,
        "recall": 0.8616,
        "specificity": 0.8616,
    }


@st.composite
def decided(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Labels with every class, and decisions."""
    k = draw(st.integers(2, 4))
    n = draw(st.integers(k, 40))
    y = draw(arrays.arrays(np.int64, n, elements=st.integers(0, k - 1)))
    y[:k] = range(k)
    return y, draw(arrays.arrays(np.int64, n, elements=st.integers(0, k - 1))), k


def _specificity(y: np.ndarray, decision: np.ndarray, k: int) -> float:
    kept_out = [(decision[y != label] != label).mean() for label in range(k)]
    return float(np.mean(kept_out))


@settings(max_examples=60, deadline=None)
@given(decided())
def test_every_metric_is_scikit_learns(drawn) -> None:
    y, decision, k = drawn
    macro = {"labels": range(k), "average": "macro", "zero_division": 0}
    expected = {
        "macro_f1": sklearn_metrics.f1_score(y, decision, **macro),
        "accuracy": sklearn_metrics.accuracy_score(y, decision),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(y, decision),
        "precision": sklearn_metrics.precision_score(y, decision, **macro),
        "recall": sklearn_metrics.recall_score(y, decision, **macro),
        "specificity": _specificity(y, decision, k),
    }
    found = from_confusion(confusions(y, decision, k)[0])
    assert found == pytest.approx(expected, abs=1e-9)
    assert expected.keys() == METRICS.keys(), "a new metric needs its expected value here"


@settings(max_examples=40, deadline=None)
@given(decided(), st.integers(0, 2**32 - 1))
def test_a_weight_is_that_many_equal_rows(drawn, seed) -> None:
    y, decision, k = drawn
    weights = np.random.default_rng(seed).integers(0, 3, (3, len(y)))
    found = replicated(y, decision, k, weights.astype(np.float32))
    for at, counts in enumerate(weights):
        again = np.repeat(np.arange(len(y)), counts)
        whole = replicated(y[again], decision[again], k)
        for name in METRICS:
            np.testing.assert_allclose(found[name][at], whole[name][0], atol=2e-5, err_msg=name)


def test_a_metric_of_repeats_is_their_mean() -> None:
    rng = np.random.default_rng(0)
    y, decision = rng.integers(0, 3, 50), rng.integers(0, 3, (4, 50))
    of_repeats = [macro_f1(y, row, 3) for row in decision]
    assert macro_f1(y, decision, 3) == pytest.approx(np.mean(of_repeats))


@pytest.mark.parametrize("bad", [[-1, 0], [0, 2], [0]])
def test_decisions_that_cannot_be_are_refused(bad) -> None:
    with pytest.raises(ValueError, match="decisions"):
        confusions(np.array([0, 1]), np.array(bad), 2)
