"""Intervals and tests: whole groups are drawn, chance is respected, differences are paired."""

import numpy as np
import pytest
from scipy.stats import binomtest

from evaluate.metrics import METRICS, figures
from evaluate.significance import compare, grouped_weights, intervals, mcnemar, two_sided


def test_groups_are_drawn_whole_and_as_many_as_there_are() -> None:
    groups = np.array([7, 3, 7, 9, 3, 3])
    weights = grouped_weights(groups, 500, seed=1)
    assert weights.shape == (500, 6)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert np.array_equal(weights[:, 1], weights[:, 4])
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert abs(weights.mean() - 1) < 0.05
    assert (grouped_weights(groups, 50, draws=2)[:, [0, 1, 3]].sum(1) == 2).all()


def test_the_same_seed_gives_the_same_weights() -> None:
    groups = np.arange(20)
    assert np.array_equal(grouped_weights(groups, 9, 4), grouped_weights(groups, 9, 4))
    assert not np.array_equal(grouped_weights(groups, 9, 4), grouped_weights(groups, 9, 5))


def test_an_interval_of_accuracy_is_that_of_the_binomial() -> None:
    n = 400
    y = np.zeros(n, int)
    decision = (np.arange(n) < 80).astype(int)
    found = intervals(y, decision, None, np.arange(n), 2, names=("accuracy",))["accuracy"]
    assert found is not None
    exact = binomtest(320, n).proportion_ci(method="wilson")
    assert found == pytest.approx((exact.low, exact.high), abs=0.006)


def test_copies_of_rows_do_not_narrow_an_interval() -> None:
    rng = np.random.default_rng(0)
    y, decision = rng.integers(0, 2, 80), rng.integers(0, 2, 80)
    alone = intervals(y, decision, None, np.arange(80), 2)["macro_f1"]
    copied = intervals(np.tile(y, 4), np.tile(decision, 4), None, np.tile(np.arange(80), 4), 2)[
        "macro_f1"
    ]
    assert copied == pytest.approx(alone, abs=1e-6)


def test_every_interval_holds_its_figure() -> None:
    rng = np.random.default_rng(1)
    y, decision = rng.integers(0, 3, 90), rng.integers(0, 3, (2, 90))
    proba = rng.dirichlet(np.ones(3), (2, 90))
    proba[:, 5] = np.nan
    found = intervals(y, decision, proba, np.arange(90) // 2, 3, replicates=200)
    whole = figures(y, decision, proba, 3)
    assert set(found) == set(METRICS)
    for name, interval in found.items():
        assert interval is not None
        assert interval[0] <= getattr(whole, name) <= interval[1]
        assert interval[1] - interval[0] > 0.01


def test_pieces_of_many_rows_give_what_one_piece_gives(monkeypatch) -> None:
    rng = np.random.default_rng(2)
    y, decision = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    whole = intervals(y, decision, None, np.arange(60), 2, replicates=300)
    monkeypatch.setattr("evaluate.significance._CHUNK", 60 * 7)
    assert intervals(y, decision, None, np.arange(60), 2, replicates=300) == whole


def test_an_undefined_figure_has_no_interval() -> None:
    y = np.ones(12, int)
    found = intervals(y, y, np.full((12, 2), 0.5), np.arange(12), 2, replicates=50)
    assert found["roc_auc"] is None
    assert found["accuracy"] == (1.0, 1.0)


def test_a_difference_is_paired_and_signed() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 300)
    worse = np.where(rng.random(300) < 0.2, 1 - y, y)
    better = np.where((worse != y) & (rng.random(300) < 0.5), y, worse)
    groups = np.arange(300)
    found = compare(y, better, worse, groups, 2)
    assert found.difference > 0 and 0 < found.low < found.difference < found.high
    assert found.p < 0.05 and found.mcnemar_p < 0.05 and found.only_b == 0
    turned = compare(y, worse, better, groups, 2)
    assert turned.difference == -found.difference and turned.only_a == 0
    alone = [intervals(y, each, None, groups, 2)["macro_f1"] for each in (better, worse)]
    unpaired = np.hypot(*(high - low for low, high in alone))
    assert found.high - found.low < 0.8 * unpaired


def test_equal_systems_do_not_differ() -> None:
    y = np.arange(40) % 2
    found = compare(y, np.zeros(40, int), np.zeros((1, 40), int), np.arange(40), 2, replicates=99)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert found.p == 1 and found.mcnemar_p == 1


def test_only_figures_of_decisions_are_compared() -> None:
    y = np.array([0, 1])
    with pytest.raises(ValueError, match="roc_auc"):
        compare(y, y, y, y, 2, name="roc_auc")


def test_small_tests_by_hand() -> None:
    assert mcnemar(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)
    assert two_sided(np.array([1.0, 2.0, 3.0])) == 0.5
    assert two_sided(np.array([-1.0, 1.0, np.nan])) == 1
