"""The parts of a variance that held-out rows hide: few groups, training rows, unlike models."""

import numpy as np
import pytest

from archiveprobe.evaluate.metrics import METRICS, replicated
from archiveprobe.evaluate.variance import (
    fold_shift,
    group_correction,
    group_sums,
    influence,
    likeness,
    mass_by_label,
    training_variance,
)

FOLDS, REPEATS = 5, 5


def chance_archive(seed: int, n: int = 100, d: int = 10) -> tuple[np.ndarray, ...]:
    """Labels, decisions (R, n) and folds (R, n) of the nearer class mean on columns of noise."""
    rng = np.random.default_rng(seed)
    y, x = np.arange(n) % 2, rng.standard_normal((n, d))
    fold = np.empty((REPEATS, n), np.int64)
    for repeat in range(REPEATS):
        for label in (0, 1):
            rows = np.flatnonzero(y == label)
            fold[repeat, rng.permutation(rows)] = np.arange(len(rows)) % FOLDS
    decision = np.empty_like(fold)
    for repeat, placed in enumerate(fold):
        for held in range(FOLDS):
            out, inside = placed != held, placed == held
            zero, one = (x[out & (y == label)].mean(0) for label in (0, 1))
            decision[repeat, inside] = (x[inside] - (zero + one) / 2) @ (one - zero) > 0
    return y, decision, fold


@pytest.mark.parametrize("name", METRICS)
def test_influence_is_the_slope_over_a_rows_weight(name) -> None:
    rng = np.random.default_rng(0)
    y, decision = rng.integers(0, 3, 60), rng.integers(0, 3, (2, 60))
    found = influence(y, decision, 3, name)
    weights = np.ones((61, 60))
    weights[np.arange(1, 61), np.arange(60)] += 1e-4
    moved = replicated(y, decision, 3, weights=weights, names=(name,))[name]
    assert found.mean(0) == pytest.approx((moved[1:] - moved[0]) / 1e-4, abs=1e-5)
    assert found.sum(1) == pytest.approx(0, abs=1e-5)


def test_a_class_that_is_absent_moves_nothing() -> None:
    y = np.array([0, 0, 1, 1])
    assert np.isfinite(influence(y, y[None, ::-1], 3, "balanced_accuracy")).all()


def test_equal_groups_have_the_degrees_of_freedom_of_a_mean() -> None:
    for count in (2, 10, 57):
        assert group_correction(np.full(count, 4.0), 0.3) == pytest.approx(
            (count / (count - 1), count - 1)
        )


@pytest.mark.parametrize("rho", [0.0, 0.2, 1.0])
def test_uneven_groups_agree_with_the_matrices(rho) -> None:
    sizes = np.array([1.0, 1, 2, 3, 30, 12, 7])
    v, w = sizes * (1 + (sizes - 1) * rho), sizes / sizes.sum()
    seen = np.eye(7) - np.outer(w, np.ones(7))
    product = seen.T @ seen @ np.diag(v)
    few, freedom = group_correction(sizes, rho)
    assert few == pytest.approx(v.sum() / np.trace(product))
    assert freedom == pytest.approx(np.trace(product) ** 2 / np.trace(product @ product))
    assert freedom < 6


def test_a_rare_label_rests_on_its_own_rows() -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(1000) < 30).astype(int)
    decision = np.where(rng.random(1000) < np.where(y, 0.3, 0.01), 1 - y, y)[None]
    values, groups = influence(y, decision, 2, "macro_f1")[0], np.arange(1000)
    mass = mass_by_label(values, y, groups)
    assert mass.sum() == pytest.approx((values**2).sum())
    assert len(set(mass)) == 2
    few, freedom = group_correction(np.ones(1000), 0.0, mass)
    assert 29 < freedom < 100
    assert 1.005 < few < 1.05


def test_a_group_with_all_of_the_mass_bounds_nothing() -> None:
    assert group_correction(np.array([5.0]), 0.5) == (np.inf, 1)
    assert group_correction(np.array([5.0, 5.0]), 0.5, np.array([1.0, 0.0])) == (np.inf, 1)
    assert group_correction(np.ones(3), 0.0, np.zeros(3)) == (1, np.inf)


def test_likeness_tells_copies_from_strangers() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(2000)
    members, sizes = np.repeat(np.arange(500), 4), np.full(500, 4.0)
    assert likeness(values, group_sums(values, members), sizes) < 0.05
    copied = np.repeat(values[:500], 4)
    assert likeness(copied, group_sums(copied, members), sizes) == 1
    assert likeness(values, values, np.ones(2000)) == 0


def test_repeats_that_do_not_differ_tell_nothing_of_training_rows() -> None:
    y, decision, fold = chance_archive(0)
    moves, groups = influence(y, decision, 2, "macro_f1"), np.arange(len(y))
    assert training_variance(moves, groups, fold) > 0
    assert training_variance(moves[:1], groups, fold[:1]) == 0
    # The same folds under other names.
    assert training_variance(moves, groups, (fold[:1] + np.arange(REPEATS)[:, None]) % FOLDS) == 0
    assert training_variance(np.tile(moves[:1], (REPEATS, 1)), groups, fold) == 0


def test_at_chance_training_rows_are_nearly_half_of_the_variance() -> None:
    drawn = [chance_archive(seed) for seed in range(250)]
    scores = [(y == decision).mean() for y, decision, _ in drawn]
    held_out, training = [], []
    for y, decision, fold in drawn:
        moves = influence(y, decision, 2, "accuracy")
        held_out.append((moves.mean(0) ** 2).sum())
        training.append(training_variance(moves, np.arange(len(y)), fold))
    true = np.var(scores)
    # Folds balanced by label make the mean .5 but for a little; see the module for the theory.
    assert np.mean(held_out) < 0.75 * true
    assert np.mean(held_out) + np.mean(training) == pytest.approx(true, rel=0.25)


def test_rows_that_flip_for_themselves_are_no_response_of_their_group() -> None:
    rng = np.random.default_rng(0)
    groups, fold = np.repeat(np.arange(10), 40), rng.integers(0, 5, (5, 10)).repeat(40, 1)
    own = rng.standard_normal((5, 400))
    shared = rng.standard_normal((5, 10)).repeat(40, 1)
    alone = np.mean([training_variance(np.roll(own, at), groups, fold) for at in range(400)])
    together = training_variance(shared, groups, fold)
    assert together > 20 * alone
    # Copies of a row say what the row says, times the square of their number.
    once = training_variance(own[:, :10], np.arange(10), fold[:, ::40])
    copied = training_variance(own[:, :10].repeat(40, 1), groups, fold)
    assert copied == pytest.approx(40**2 * once)


def test_the_scores_of_models_that_differ_lie_below_that_of_their_pool() -> None:
    # Two folds of 40 rows in either repeat; one model says always no, the other always yes.
    y = np.tile([0, 1], 40)
    fold = np.stack([np.arange(80) // 40, np.arange(80) % 4 // 2])
    # Alone each has F1 2/3 and 0: 1/3 on average; pooled they look like coins: 1/2.
    assert fold_shift(y, fold.copy(), fold, 2, "macro_f1") == pytest.approx(1 / 3 - 1 / 2)
    coins = np.stack([np.arange(80) // 2 % 2, np.arange(80) // 2 % 2]) ^ y
    assert fold_shift(y, np.abs(coins), fold, 2, "accuracy") == pytest.approx(0)
    assert fold_shift(y, fold[:1], fold[:1], 2, "macro_f1") == 0
