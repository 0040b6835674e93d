"""Calibration: the optimum of its loss, never learned from the fold it serves, and never broken."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

from archiveprobe.evaluate.calibration import Calibration, cross_fitted, fit


def drawn(k: int, n: int = 120, repeats: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = 3 * rng.standard_normal((repeats, n, k)) + 2 * np.eye(k)[labels] + 0.7
    return logits, labels


def folds(n: int, repeats: int = 2) -> np.ndarray:
    return np.stack([np.random.default_rng(at).permutation(n) % 4 for at in range(repeats)])


def test_platts_optimum() -> None:
    logits, labels = drawn(2, repeats=1)
    margin = logits[0, :, 1] - logits[0, :, 0]
    ones, zeros = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))

    def loss(at: np.ndarray) -> float:
        z = at[0] * margin + at[1]
        return float((np.logaddexp(0, z) - target * z).sum())

    found = fit(logits, labels)
    assert found.method == "platt"
    assert found.parameters == pytest.approx(minimize(loss, [1, 0], tol=1e-10).x, abs=1e-5)


def test_the_best_temperature() -> None:
    logits, labels = drawn(4, repeats=1)
    n, k = logits.shape[1:]
    target = np.eye(k)[labels] * (1 - k / (n + k)) + 1 / (n + k)

    def loss(at: np.ndarray) -> float:
        z = at[0] * logits[0]
        return float((logsumexp(z, 1) - (target * z).sum(1)).sum())

    found = fit(logits, labels)
    assert found.method == "temperature"
    assert found.parameters == pytest.approx(minimize(loss, [1], tol=1e-10).x, abs=1e-5)


@pytest.mark.parametrize("k", [2, 4])
def test_probabilities_follow_from_the_parameters(k) -> None:
    logits, labels = drawn(k)
    found = fit(logits, labels)
    if k == 2:
        slope, level = found.parameters
        expected = expit(slope * (logits[..., 1] - logits[..., 0]) + level)
        np.testing.assert_allclose(found.apply(logits)[..., 1], expected)
    else:
        np.testing.assert_allclose(found.apply(logits), softmax(found.parameters[0] * logits, -1))
    np.testing.assert_allclose(found.apply(logits).sum(-1), 1)
    assert found.apply(logits[0, :0]).shape == (0, k)


def test_calibrated_margins_mean_what_they_say() -> None:
    rng = np.random.default_rng(3)
    margin = 2 * rng.standard_normal(20_000)
    labels = (rng.random(20_000) < expit(0.5 * margin - 1)).astype(int)
    logits = np.stack([np.zeros_like(margin), margin], -1)[None]
    assert fit(logits, labels).parameters == pytest.approx((0.5, -1), abs=0.05)


@pytest.mark.parametrize("k", [2, 3])
def test_each_fold_is_served_by_a_fit_outside_it(k) -> None:
    logits, labels = drawn(k)
    fold = folds(120)
    found = cross_fitted(logits, labels, fold)
    applied = found.apply(logits, fold)
    for repeat in range(2):
        for held in range(4):
            own = fold[repeat] == held
            alone = fit(logits[repeat : repeat + 1, ~own], labels[~own])
            assert found.parameters[repeat, held] == pytest.approx(alone.parameters, abs=1e-6)
            np.testing.assert_allclose(
                applied[repeat, own], alone.apply(logits[repeat, own]), atol=1e-6
            )


@pytest.mark.parametrize("k", [2, 3])
def test_a_fold_never_sees_its_own_labels(k) -> None:
    logits, labels = drawn(k)
    fold = folds(120)
    turned = np.where(fold[0] == 2, (labels + 1) % k, labels)
    before, after = (cross_fitted(logits, each, fold).parameters for each in (labels, turned))
    assert after[0, 2] == pytest.approx(before[0, 2], abs=1e-9)
    assert not np.isclose(before[0, 0], after[0, 0]).all()


@pytest.mark.parametrize("k", [2, 3])
def test_unreadable_rows_stay_unreadable_and_teach_nothing(k) -> None:
    logits, labels = drawn(k)
    fold = folds(120)
    logits[:, 5] = np.nan
    held = cross_fitted(logits, labels, fold)
    turned = labels.copy()
    turned[5] = (labels[5] + 1) % k
    assert np.array_equal(cross_fitted(logits, turned, fold).parameters, held.parameters)
    proba = held.apply(logits, fold)
    assert np.isnan(proba[:, 5]).all() and np.isfinite(np.delete(proba, 5, 1)).all()
    assert np.isnan(fit(logits, labels).apply(logits)[:, 5]).all()


@pytest.mark.parametrize("k", [2, 3])
def test_views_every_fold_and_undoing_agree_with_rows(k) -> None:
    logits, labels = drawn(k)
    fold = folds(120)
    held = cross_fitted(logits, labels, fold)
    logits[:, 3] *= 30
    logits[:, 5] = np.nan
    proba = held.apply(logits, fold)
    views = held.apply(np.stack([logits, logits[::-1]], 2), fold)
    np.testing.assert_allclose(views[:, :, 0], proba)
    np.testing.assert_allclose(views[:, :, 1], held.apply(logits[::-1], fold))
    seen = held.of_every_fold(logits)
    assert seen.shape == (2, 4, 120, k)
    own = np.take_along_axis(seen, fold[:, None, :, None], 1)[:, 0]
    np.testing.assert_allclose(own, proba)
    back = held.undo(proba, fold)
    np.testing.assert_allclose(back - back[..., :1], logits - logits[..., :1], atol=1e-8)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_size_and_memory_order_of_logits_do_not_matter(scale, order) -> None:
    for k in (2, 3):
        logits, labels = drawn(k)
        given = np.array(logits * scale, order=order)
        expected = fit(logits, labels).apply(logits)
        np.testing.assert_allclose(fit(given, labels).apply(given), expected, atol=1e-7)


@pytest.mark.parametrize("k", [2, 3])
def test_faultless_logits_have_a_finite_optimum(k) -> None:
    _, labels = drawn(k)
    logits = np.tile(50 * np.eye(k)[labels], (2, 1, 1))
    proba = fit(logits, labels).apply(logits)
    true = np.take_along_axis(proba, labels[None, :, None], 2)
    assert (true > 0.9).all() and (true < 1).all()


def test_a_slope_is_never_negative() -> None:
    logits, labels = drawn(2)
    found = fit(-logits, labels)
    share = (labels.sum() + 1) / (labels.sum() + 2) * labels.mean()
    share += (1 - labels).mean() / ((1 - labels).sum() + 2)
    # Nearly flat, so that the order of the rows survives.
    assert 0 < found.parameters[0] < 1e-3
    assert expit(found.parameters[1]) == pytest.approx(share, abs=1e-3)
    logits, labels = drawn(3)
    assert 0 < fit(-logits, labels).parameters[0] < 0.01


@pytest.mark.parametrize("k", [2, 3])
def test_constant_logits_and_one_class_are_no_trouble(k) -> None:
    labels = np.zeros(12, int)
    # The log of 1/3 three times has a mean that differs from it by rounding.
    for logits in (np.full((2, 12, k), 3.0), np.full((2, 12, k), np.log(1 / 3)), drawn(k, 12)[0]):
        for y in (labels, np.arange(12) % k):
            assert np.isfinite(fit(logits, y).apply(logits)).all()
    nothing = np.full((2, 12, k), np.nan)
    assert fit(nothing, labels).parameters == pytest.approx([1, 0] if k == 2 else [1])


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("isotonic", (1.0,)), ("platt", (1.0,)), ("temperature", (float("nan"),))],
)
def test_foreign_parameters_are_refused(method, parameters) -> None:
    with pytest.raises(ValueError, match=method):
        Calibration(method, parameters)
