"""Intervals and tests: whole groups are drawn, chance is respected, differences are paired."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm
from scipy.stats import t as student

from archiveprobe.evaluate.intervals import (
    compare,
    effective_groups,
    grouped_weights,
    intervals,
    standard_error,
    two_sided,
)
from archiveprobe.evaluate.metrics import METRICS, replicated


def sources(seed: int, count: int, rows: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, decisions and groups: sources of `rows` rows, each with its own share of errors."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(count), rows)
    y = rng.integers(0, 2, len(groups))
    share = rng.beta(2, 6, count)[groups]
    return y, np.where(rng.random(len(groups)) < share, 1 - y, y), groups


def width(interval: tuple[float, float] | None) -> float:
    assert interval is not None
    return interval[1] - interval[0]


def test_groups_are_drawn_whole_and_as_many_as_there_are() -> None:
    groups = np.array([7, 3, 7, 9, 3, 3])
    weights = grouped_weights(groups, 500, seed=1)
    assert weights.shape == (500, 6)
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert np.array_equal(weights[:, 1], weights[:, 4])
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert abs(weights.mean() - 1) < 0.05
    assert np.array_equal(weights, grouped_weights(groups, 500, seed=1))
    assert not np.array_equal(weights, grouped_weights(groups, 500, seed=2))
    assert (grouped_weights(groups, 50, draws=2)[:, [0, 1, 3]].sum(1) == 2).all()


def test_an_interval_of_accuracy_is_that_of_the_binomial() -> None:
    n = 400
    y = np.zeros(n, int)
    decision = (np.arange(n) < 80).astype(int)
    found = intervals(y, decision, np.arange(n), 2, names=("accuracy",))["accuracy"]
    assert found is not None
    exact = binomtest(320, n).proportion_ci(method="wilson")
    assert found == pytest.approx((exact.low, exact.high), abs=0.006)


def test_copies_of_rows_do_not_narrow_an_interval() -> None:
    rng = np.random.default_rng(0)
    y, decision = rng.integers(0, 2, 80), rng.integers(0, 2, 80)
    alone = intervals(y, decision, np.arange(80), 2)["macro_f1"]
    copied = intervals(np.tile(y, 4), np.tile(decision, 4), np.tile(np.arange(80), 4), 2)[
        "macro_f1"
    ]
    assert copied == pytest.approx(alone, abs=1e-6)


@pytest.mark.proves("intervals")
def test_few_groups_widen_an_interval_by_the_t_quantile() -> None:
    y, decision, groups = sources(0, 8)
    found = intervals(y, decision, groups, 2, names=("accuracy",))["accuracy"]
    weights = grouped_weights(groups, 2000)
    resampled = replicated(y, decision, 2, weights=weights, names=("accuracy",))["accuracy"]
    plain = np.diff(np.quantile(resampled, [0.025, 0.975]))[0]
    stretch = student.ppf(0.975, 7) / norm.ppf(0.975) * np.sqrt(8 / 7)
    assert width(found) == pytest.approx(plain * stretch, rel=0.01)


def test_the_order_of_rows_moves_nothing() -> None:
    y, decision, groups = sources(1, 12)
    order = np.random.default_rng(0).permutation(len(y))
    fold = np.stack([groups % 5, groups // 2 % 5])
    decisions = np.stack([decision, np.roll(decision, 20)])
    whole = intervals(y, decisions, groups, 2, fold=fold)["macro_f1"]
    moved = intervals(y[order], decisions[:, order], groups[order], 2, fold=fold[:, order])
    assert moved["macro_f1"] == pytest.approx(whole, abs=1e-5)
    renamed = (groups + 5) % 12
    again = intervals(y, decisions, renamed, 2, fold=fold)["macro_f1"]
    assert again == pytest.approx(whole, abs=0.02)


def test_more_groups_narrow_an_interval() -> None:
    widths = [
        np.mean([width(intervals(*_flat(*sources(seed, count)))["macro_f1"]) for seed in range(4)])
        for count in (5, 10, 20, 80)
    ]
    assert sorted(widths, reverse=True) == widths
    assert widths[0] > 4 * widths[-1]


def _flat(y, decision, groups):
    return y, decision, groups, 2


def test_a_single_group_bounds_nothing() -> None:
    y = np.array([0, 1, 1, 0])
    found = intervals(y, np.array([0, 1, 0, 0]), np.zeros(4, int), 2)
    assert found["macro_f1"] == found["accuracy"] == (0, 1)
    difference = compare(y, y, 1 - y, np.zeros(4, int), 2)
    assert (difference.low, difference.high) == (-1, 1)


@pytest.mark.proves("intervals")
def test_models_that_waver_widen_an_interval() -> None:
    rng = np.random.default_rng(5)
    n = 200
    y = rng.integers(0, 2, n)
    fold = np.stack([rng.permutation(n) % 5 for _ in range(4)])
    wavering = np.where(rng.random((4, n)) < 0.25, 1 - y, y)
    groups = np.arange(n)
    given = intervals(y, wavering, groups, 2)["macro_f1"]
    counted = intervals(y, wavering, groups, 2, fold=fold)["macro_f1"]
    assert width(counted) > 1.3 * width(given)
    steady = np.tile(wavering[0], (4, 1))
    error = standard_error(y, steady, groups, 2, fold=fold)
    assert error.training == 0 and error.held_out > 0
    other = np.roll(wavering, 1, 1)
    pair = [compare(y, wavering, other, groups, 2, fold=each) for each in (None, fold)]
    assert pair[1].high - pair[1].low > 1.2 * (pair[0].high - pair[0].low)


def test_few_sources_keep_their_promise() -> None:
    # Accuracy of any new source is 3/4; percentiles of the replicates alone hold it in 84 %.
    held = plain = 0
    for seed in range(200):
        y, decision, groups = sources(seed, 8)
        names = ("accuracy",)
        found = intervals(y, decision, groups, 2, names=names, replicates=300)["accuracy"]
        weights = grouped_weights(groups, 300)
        each = replicated(y, decision, 2, weights=weights, names=names)["accuracy"]
        low, high = np.quantile(each, [0.025, 0.975])
        held += found[0] <= 0.75 <= found[1]
        plain += low <= 0.75 <= high
    assert held / 200 >= 0.92
    assert plain / 200 < 0.9


def test_every_interval_holds_its_score() -> None:
    rng = np.random.default_rng(1)
    y, decision = rng.integers(0, 3, 90), rng.integers(0, 3, (2, 90))
    found = intervals(y, decision, np.arange(90) // 2, 3, replicates=200)
    whole = replicated(y, decision, 3)
    assert set(found) == set(METRICS)
    for name, interval in found.items():
        assert interval is not None
        assert interval[0] <= whole[name][0] <= interval[1]
        assert interval[1] - interval[0] > 0.01


def test_pieces_of_many_rows_give_what_one_piece_gives(monkeypatch) -> None:
    rng = np.random.default_rng(2)
    y, decision = rng.integers(0, 2, 60), rng.integers(0, 2, 60)
    whole = intervals(y, decision, np.arange(60), 2, replicates=300)
    monkeypatch.setattr("archiveprobe.evaluate.intervals._CHUNK", 60 * 7)
    assert intervals(y, decision, np.arange(60), 2, replicates=300) == whole


def test_a_difference_is_paired_and_signed() -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 300)
    worse = np.where(rng.random(300) < 0.2, 1 - y, y)
    better = np.where((worse != y) & (rng.random(300) < 0.5), y, worse)
    groups = np.arange(300)
    found = compare(y, better, worse, groups, 2)
    assert found.difference > 0 and 0 < found.low < found.difference < found.high
    assert found.p < 0.05
    turned = compare(y, worse, better, groups, 2)
    assert turned.difference == -found.difference
    alone = [intervals(y, each, groups, 2)["macro_f1"] for each in (better, worse)]
    unpaired = np.hypot(*(high - low for low, high in alone))
    assert found.high - found.low < 0.8 * unpaired


def test_equal_systems_do_not_differ() -> None:
    y = np.arange(40) % 2
    found = compare(y, np.zeros(40, int), np.zeros((1, 40), int), np.arange(40), 2, replicates=99)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert found.p == 1


def test_small_numbers_by_hand() -> None:
    uneven = np.array([0] * 96 + [1, 2, 3, 4])
    assert effective_groups(np.arange(50)) == pytest.approx(50)
    assert effective_groups(uneven) == pytest.approx(1e4 / (96**2 + 4))
    assert two_sided(np.array([1.0, 2.0, 3.0])) == 0.5
    assert two_sided(np.array([-1.0, 1.0, np.nan])) == 1
