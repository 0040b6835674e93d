"""Figures: the papers' tables, scikit-learn's values, and weights that are repeated rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as theirs

from archiveprobe.evaluate.metrics import (
    METRICS,
    confusions,
    figures,
    from_confusion,
    replicated,
    running_sums,
)


def rows_of(tp: int, fn: int, fp: int, tn: int) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([1, 1, 0, 0], [tp, fn, fp, tn]), np.repeat([1, 0, 1, 0], [tp, fn, fp, tn])


def test_the_convnext_papers_table() -> None:
    y, decision = rows_of(118, 24, 28, 232)
    found = figures(y, decision, None, 2)
    assert found.n == 402
    assert found.confusion.tolist() == [[232, 28], [24, 118]]
    table = {
        "macro_f1": 0.8593,
        "accuracy": 0.8706,
        "balanced_accuracy": 0.8616,
        "recall": 0.8616,
        "specificity": 0.8616,
        "precision": 0.8572,
    }
    for name, value in table.items():
        assert round(getattr(found, name), 4) == value
    assert found.roc_auc is None and found.brier is None


@st.composite
def decided(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels with every class, decisions, and coarse probabilities with many ties."""
    k = draw(st.integers(2, 4))
    n = draw(st.integers(k, 40))
    y = draw(arrays.arrays(np.int64, n, elements=st.integers(0, k - 1)))
    y[:k] = range(k)
    decision = draw(arrays.arrays(np.int64, n, elements=st.integers(0, k - 1)))
    counts = draw(arrays.arrays(np.int64, (n, k), elements=st.integers(1, 9)))
    return y, decision, counts / counts.sum(1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(decided())
def test_every_figure_is_scikit_learns(drawn) -> None:
    y, decision, proba = drawn
    k = proba.shape[1]
    found = figures(y, decision, np.asfortranarray(proba), k, k - 1)
    macro = {"labels": range(k), "average": "macro", "zero_division": 0}
    score, one_hot = (proba[:, -1], y == k - 1) if k == 2 else (proba, np.eye(k)[y])
    expected = {
        "macro_f1": theirs.f1_score(y, decision, **macro),
        "accuracy": theirs.accuracy_score(y, decision),
        "balanced_accuracy": theirs.balanced_accuracy_score(y, decision),
        "precision": theirs.precision_score(y, decision, **macro),
        "recall": theirs.recall_score(y, decision, **macro),
        "average_precision": theirs.average_precision_score(one_hot, score),
        "roc_auc": theirs.roc_auc_score(one_hot, score),
        "brier": theirs.brier_score_loss(y, score)
        if k == 2
        else ((proba - np.eye(k)[y]) ** 2).sum(1).mean(),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-9), name


@settings(max_examples=40, deadline=None)
@given(decided(), st.integers(0, 2**32 - 1))
def test_a_weight_is_that_many_equal_rows(drawn, seed) -> None:
    y, decision, proba = drawn
    k = proba.shape[1]
    weights = np.random.default_rng(seed).integers(0, 3, (3, len(y)))
    found = replicated(y, decision, proba, k, weights=weights.astype(np.float32))
    for at, counts in enumerate(weights):
        again = np.repeat(np.arange(len(y)), counts)
        whole = replicated(y[again], decision[again], proba[again], k)
        for name in METRICS:
            np.testing.assert_allclose(found[name][at], whole[name][0], atol=2e-5, err_msg=name)


def test_a_figure_of_repeats_is_their_mean() -> None:
    rng = np.random.default_rng(0)
    y, decision = rng.integers(0, 3, 50), rng.integers(0, 3, (4, 50))
    proba = rng.dirichlet(np.ones(3), (4, 50))
    whole = figures(y, decision, proba, 3)
    each = [figures(y, d, p, 3) for d, p in zip(decision, proba, strict=True)]
    for name in METRICS:
        assert getattr(whole, name) == pytest.approx(np.mean([getattr(f, name) for f in each]))
    assert whole.confusion.sum() == pytest.approx(50)


def test_specificity_of_three_classes_counts_the_rows_kept_out() -> None:
    # Of the other classes' rows, 3 of 4, 4 of 4 and 3 of 4 are kept out.
    confusion = np.array([[2, 0, 0], [0, 1, 1], [1, 0, 1]])
    assert from_confusion(confusion)["specificity"] == pytest.approx((0.75 + 1 + 0.75) / 3)


def test_calibration_error_on_a_case_small_enough_to_check() -> None:
    # Confidence .8 twice, right once: a gap of .3; confidence .6, right: a gap of .4.
    proba = np.array([[0.2, 0.8], [0.8, 0.2], [0.4, 0.6]])
    y = np.array([1, 1, 1])
    found = figures(y, y, proba, 2)
    assert found.calibration_error == pytest.approx((2 * 0.3 + 0.4) / 3)
    assert found.roc_auc is None


def test_rows_without_probabilities_count_with_their_decision_only() -> None:
    y = np.array([0, 1, 1, 0])
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [np.nan, np.nan], [0.6, 0.4]])
    found = figures(y, np.array([0, 1, 0, 0]), proba, 2)
    assert found.accuracy == 0.75
    assert found.brier == pytest.approx((0.01 + 0.04 + 0.16) / 3)


@pytest.mark.parametrize("bad", [[-1, 0], [0, 2], [0]])
def test_decisions_that_cannot_be_are_refused(bad) -> None:
    with pytest.raises(ValueError, match="decisions"):
        confusions(np.array([0, 1]), np.array(bad), 2)


@given(st.integers(0, 70), st.integers(1, 3))
def test_running_sums_are_cumulative(n, width) -> None:
    values = np.random.default_rng(n).integers(0, 9, (n, width)).astype(np.float32)
    expected = np.concatenate([np.zeros((1, width)), values.cumsum(0)])
    assert np.array_equal(running_sums(values), expected)
