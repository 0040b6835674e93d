"""Thresholds: every one is scanned, ties go towards one half, and no fold sees its own labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import f1_score, precision_score, recall_score

from archiveprobe.evaluate.intervals import grouped_weights
from archiveprobe.evaluate.threshold_curve import Curve, curve, scan, score_at
from archiveprobe.evaluate.thresholding import THRESHOLD_RULES, decide, final, nested


def scores(n: int, seed: int = 0, levels: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Labels, a third positive, and probabilities in steps, so that some are equal."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.35).astype(int)
    y[:2] = 0, 1
    p = expit(2 * (y - 0.5) + rng.standard_normal(n))
    return y, np.round(p * levels) / levels


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 30), st.integers(0, 99), st.sampled_from([3, 10, 1000]))
def test_the_scan_is_brute_force(n, seed, levels) -> None:
    y, p = scores(n, seed, levels)
    thresholds, macro_f1 = scan(y == 1, p)
    assert len(thresholds) == len(np.unique(p)) + 1
    assert (
        (np.diff(thresholds) > 0).all() and thresholds[0] < p.min() and (p <= thresholds[-1]).all()
    )
    expected = [
        f1_score(y, p > threshold, average="macro", zero_division=0) for threshold in thresholds
    ]
    np.testing.assert_allclose(macro_f1, expected, atol=1e-12)


def test_neighbouring_floats_are_still_distinguished() -> None:
    p = np.array([0.3, np.nextafter(0.3, 1), np.nextafter(np.nextafter(0.3, 1), 1)])
    thresholds, macro_f1 = scan(np.array([False, True, True]), p)
    assert [int((p > threshold).sum()) for threshold in thresholds] == [3, 2, 1, 0]
    assert macro_f1[1] == 1


def test_weights_are_repeated_rows() -> None:
    y, p = scores(25, 4, 12)
    weights = np.random.default_rng(5).integers(0, 3, (4, 25)).astype(float)
    thresholds, macro_f1 = scan(y == 1, p, weights)
    for counts, found in zip(weights.astype(int), macro_f1, strict=True):
        again = np.repeat(np.arange(25), counts)
        own = [score_at(y[again] == 1, p[again], threshold) for threshold in thresholds]
        np.testing.assert_allclose(found, own, atol=1e-12)


@pytest.mark.parametrize("method", ["exact", "grid"])
def test_ties_go_to_the_threshold_nearest_one_half(method) -> None:
    y, groups = np.array([0, 0, 1, 1]), np.arange(4)
    low = final(y, np.array([[0.1, 0.2, 0.35, 0.9]]), groups, method=method)
    wide = final(y, np.array([[0.1, 0.2, 0.8, 0.9]]), groups, method=method)
    assert low.score == wide.score == 1
    assert wide.value == pytest.approx(0.5) and 0.2 <= low.value < 0.35
    if method == "grid":
        assert (low.low, low.high, low.value) == pytest.approx((0.3, 0.34, 0.34))


def test_exact_finds_the_best_threshold() -> None:
    y, p = scores(200)
    found = final(y, p[None], np.arange(200), method="exact")
    thresholds, macro_f1 = scan(y == 1, p)
    assert found.score == macro_f1.max()
    assert score_at(y == 1, p, found.value) == found.score
    assert found.low <= found.value <= found.high
    best = thresholds[macro_f1 == macro_f1.max()]
    assert abs(found.value - 0.5) == np.abs(best - 0.5).min()


def test_the_grid_is_the_clip_papers() -> None:
    y, p = scores(200)
    found = final(y, p[None], np.arange(200), method="grid")
    steps = np.arange(30, 71) / 100
    assert found.value in steps
    assert found.score == max(score_at(y == 1, p, step) for step in steps)


def test_smoothing_averages_the_best_thresholds_of_resamples() -> None:
    y, p = scores(150)
    groups = np.arange(150)
    found = final(y, p[None], groups, method="smoothed")
    assert 0 < found.low < found.value < found.high < 1
    assert found.score == score_at(y == 1, p, found.value)
    logit = np.log(p / (1 - p))
    optima = []
    for counts in grouped_weights(groups, 200, 0, draws=round(150**0.8)):
        thresholds, macro_f1 = scan(y == 1, logit, counts[None])
        best = thresholds[macro_f1[0] >= macro_f1.max() - 1e-6]
        optima.append(best[np.abs(best).argmin()])
    assert found.value == pytest.approx(expit(np.mean(optima)), abs=0.01)


def test_smoothing_moves_less_than_the_exact_threshold() -> None:
    drawn = [scores(200, seed) for seed in range(30)]
    spread = {
        method: np.std([final(y, p[None], np.arange(200), method=method).value for y, p in drawn])
        for method in ("smoothed", "exact")
    }
    assert spread["smoothed"] < 0.75 * spread["exact"]


@pytest.mark.proves("leaks")
@pytest.mark.parametrize("method", THRESHOLD_RULES)
def test_a_fold_never_sees_its_own_labels(method) -> None:
    y, p = scores(90)
    groups = np.arange(90) // 2
    fold = np.stack([groups % 3, (groups + groups // 3) % 3])
    p = np.stack([p, p**1.1])
    before = nested(y, p, fold, groups, method=method)
    turned = np.where(fold[0] == 1, 1 - y, y)
    after = nested(turned, p, fold, groups, method=method)
    assert after.thresholds[0, 1] == before.thresholds[0, 1]
    own = fold[0] == 1
    assert np.array_equal(after.decision[0, own], before.decision[0, own])
    if method in ("exact", "smoothed"):
        assert (after.thresholds[0, [0, 2]] != before.thresholds[0, [0, 2]]).all()


@pytest.mark.parametrize("method", THRESHOLD_RULES)
def test_rows_without_a_probability_take_no_part(method) -> None:
    y, p = scores(60)
    fold, groups = (np.arange(60) % 3)[None], np.arange(60)
    holes = np.where(np.arange(60) % 7 == 0, np.nan, p)[None]
    known = np.isfinite(holes[0])
    found = nested(y, holes, fold, groups, method=method)
    assert (found.decision[0] == -1).tolist() == (~known).tolist()
    turned = nested(np.where(known, y, 1 - y), holes, fold, groups, method=method)
    assert np.array_equal(turned.thresholds, found.thresholds)


def test_the_positive_class_may_be_the_first() -> None:
    y, p = scores(80)
    fold, groups = (np.arange(80) % 4)[None], np.arange(80)
    one = nested(y, p[None], fold, groups, 1, "exact")
    other = nested(1 - y, p[None], fold, groups, 0, "exact")
    assert np.array_equal(one.thresholds, other.thresholds)
    assert np.array_equal(one.decision, 1 - other.decision)


@pytest.mark.parametrize("method", THRESHOLD_RULES)
@pytest.mark.parametrize("only", [0, 1])
def test_one_class_outside_a_fold_means_one_half(method, only) -> None:
    y = np.where(np.arange(10) < 2, 1 - only, only)
    fold = (np.arange(10) >= 2).astype(int)[None]
    found = nested(y, np.linspace(0.1, 0.9, 10)[None], fold, np.arange(10), method=method)
    assert found.thresholds[0, 0] == 0.5


@pytest.mark.parametrize("method", THRESHOLD_RULES)
def test_equal_and_extreme_probabilities_give_a_threshold(method) -> None:
    y, groups = np.array([0, 1, 0, 1, 1, 0]), np.arange(6)
    for p in (np.full(6, 0.4), np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])):
        found = final(y, p[None], groups, method=method)
        assert np.isfinite([found.value, found.low, found.high]).all()
        assert found.score == score_at(y == 1, p, found.value)
        assert found.low <= found.value <= found.high


def test_decisions_are_above_the_threshold() -> None:
    p = np.array([0.2, 0.5, 0.8, np.nan])
    assert decide(p, 0.5).tolist() == [0, 0, 1, -1]
    assert decide(p, np.array([0.1, 0.1, 0.9, 0.5]), 0).tolist() == [0, 0, 1, -1]


def test_the_curve_is_scikit_learns_at_every_threshold() -> None:
    y, p = scores(40)
    found = curve(y, np.stack([p, p]))
    assert_is_scikit_learns(found, y, p)
    assert np.isnan(found.precision[-1])
    # Between two midpoints the decisions change where a probability lies.
    shown = np.r_[np.linspace(0.05, 0.95, 19), p[:5], np.nextafter(p[:5], 0)]
    assert_is_scikit_learns(curve(y, p[None], at=np.sort(shown)), y, p)


def test_the_curve_counts_rows_that_cannot_be_read_as_they_are_answered() -> None:
    y, p = np.array([0, 1, 1, 1]), np.array([[0.1, 0.6, 0.9, np.nan]])
    missed = curve(y, p, at=np.array([0.5]), unreadable=0)
    assert missed.recall.tolist() == [2 / 3]
    assert missed.precision.tolist() == [1.0]
    assert missed.macro_f1[0] == pytest.approx(f1_score(y, [0, 1, 1, 0], average="macro"))
    found = curve(y, p, at=np.array([0.5]), unreadable=1)
    assert found.recall.tolist() == [1.0]
    assert curve(y, p, unreadable=0).thresholds.tolist() == curve(y, p).thresholds.tolist()


def assert_is_scikit_learns(found: Curve, y: np.ndarray, p: np.ndarray) -> None:
    for at, threshold in enumerate(found.thresholds):
        chosen = p > threshold
        assert found.macro_f1[at] == pytest.approx(f1_score(y, chosen, average="macro"))
        assert found.recall[at] == pytest.approx(recall_score(y, chosen))
        if chosen.any():
            assert found.precision[at] == pytest.approx(precision_score(y, chosen))


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="'best'"):
        final(np.array([0, 1]), np.array([[0.1, 0.9]]), np.arange(2), method="best")
