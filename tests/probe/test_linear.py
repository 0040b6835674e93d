"""Linear paths: equal to scikit-learn penalty by penalty, in both cases of the decomposition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler

from archiveprobe.probe import spectrum
from archiveprobe.probe.lda import LDA
from archiveprobe.probe.linear import Logistic, Ridge
from archiveprobe.probe.selection import average_good, fit_slopes
from archiveprobe.probe.spectrum import decompose

CS = (1e-5, 1e-3, 1e-2, 0.1)
every_k = pytest.mark.parametrize("k", [2, 3])
# More rows than columns, and fewer: the two decompositions.
both_cases = pytest.mark.parametrize(("n", "d"), [(120, 30), (60, 150)])


def rows_of(n: int, d: int, k: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated columns of very different scales, and noisy labels that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12)) @ rng.normal(size=(12, d)) + 0.3 * rng.normal(size=(n, d))
    score = x[:, :k] / x[:, :k].std(0) + rng.gumbel(size=(n, k))
    y = score.argmax(1)
    y[:k] = range(k)
    return x * np.logspace(-2, 2, d) + 7, y


@every_k
@both_cases
def test_every_penalty_gives_scikit_learns_probabilities(n, d, k) -> None:
    x, y = rows_of(n, d, k)
    # The path starts at the strongest penalty, whatever the order that is asked for.
    shuffled = (CS[2], CS[0], CS[3], CS[1])
    path = softmax(Logistic(Cs=shuffled, tol=1e-6).fit_path(x, y).path_logits(x), 2)
    scaled = StandardScaler().fit_transform(x)
    for c, mine in zip(shuffled, path, strict=True):
        theirs = LogisticRegression(C=c, tol=1e-10, max_iter=100_000).fit(scaled, y)
        np.testing.assert_allclose(mine, theirs.predict_proba(scaled), atol=2e-5)


def test_the_strongest_penalty_is_fitted_to_its_end() -> None:
    """Its logits are tiny, and are scaled up when candidates are averaged: a fault would be too."""
    rng = np.random.default_rng(0)
    y = np.arange(47) % 2
    x = rng.normal(size=(47, 6)) + y[:, None] * rng.normal(size=6)
    path = Logistic(Cs=(1e-6,)).fit_path(x, y)
    scaled = StandardScaler().fit_transform(x)
    exact = LogisticRegression(C=1e-6, tol=1e-12, max_iter=100_000).fit(scaled, y)
    margin = np.diff(path.path_logits(x)[0], axis=1)[:, 0]
    np.testing.assert_allclose(margin, exact.decision_function(scaled), atol=1e-5)
    assert exact.intercept_[0] == pytest.approx(np.log(23 / 24), rel=1e-3)


@every_k
@both_cases
def test_every_ridge_is_scikit_learns(n, d, k) -> None:
    x, y = rows_of(n, d, k)
    alphas = (0.5, 20.0, 3000.0)
    path = Ridge(alphas=alphas).fit_path(x, y).path_logits(x)
    scaled = StandardScaler().fit_transform(x)
    for alpha, mine in zip(alphas, path, strict=True):
        theirs = RidgeClassifier(alpha=alpha, solver="cholesky").fit(scaled, y)
        scores = theirs.decision_function(scaled)
        given = mine if k > 2 else mine[:, 1]
        np.testing.assert_allclose(given, scores, atol=1e-6)


@every_k
@both_cases
def test_every_discriminant_is_scikit_learns(n, d, k) -> None:
    x, y = rows_of(n, d, k)
    amounts = (0.05, 0.5, 0.9)
    path = softmax(LDA(shrinkages=amounts).fit_path(x, y).path_logits(x), 2)
    scaled = StandardScaler().fit_transform(x)
    means = np.stack([scaled[y == label].mean(0) for label in range(k)])
    within = scaled - means[y]
    for amount, mine in zip(amounts, path, strict=True):
        covariance = (1 - amount) * within.T @ within / n
        covariance += amount * (within**2).sum() / n / d * np.eye(d)
        solved = np.linalg.solve(covariance, means.T)
        scores = scaled @ solved - 0.5 * (means.T * solved).sum(0) + np.log(np.bincount(y) / n)
        np.testing.assert_allclose(mine, softmax(scores, 1), atol=1e-7)
        # scikit-learn standardises inside each class first, which moves few decisions.
        theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=amount).fit(scaled, y)
        assert (mine.argmax(1) == theirs.predict(scaled)).mean() > 0.9


def test_copies_of_one_row_per_class_leave_nothing_within() -> None:
    x, y = np.eye(6)[[0, 1] * 9], np.arange(18) % 2
    model = LDA(shrinkages=(0.01, "ledoit-wolf")).fit(x, y)
    assert (model.predict(x) == y).all()


@pytest.mark.parametrize("amount", [0, -0.1, 1.5, "ledoit"])
def test_a_shrinkage_that_is_none_is_refused(amount, draw) -> None:
    with pytest.raises(ValueError, match="a shrinkage is above 0 and at most 1"):
        LDA(shrinkages=(amount,)).fit_path(*draw())


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 40), st.integers(1, 60), st.integers(0, 1000))
def test_the_decomposition_is_the_standardised_rows(n, d, seed) -> None:
    x = np.random.default_rng(seed).normal(size=(n, d)) * 3 + 1
    parts = decompose(x)
    assert len(parts.root) <= min(n - 1, d)
    scaled = StandardScaler().fit_transform(x)
    np.testing.assert_allclose(parts.rows, scaled, atol=1e-12)
    rotated = scaled @ parts.standard(np.eye(len(parts.root)))
    np.testing.assert_allclose(rotated @ rotated.T, scaled @ scaled.T, atol=1e-6 * n * d)
    weights = np.random.default_rng(seed).normal(size=(len(parts.root), 2))
    logits = (x - parts.mean) @ parts.coefficients(weights)
    np.testing.assert_allclose(logits, rotated @ weights, atol=1e-6)
    targets = np.random.default_rng(seed).normal(size=(n, 3))
    np.testing.assert_allclose(parts.project(targets), rotated.T @ targets, atol=1e-6 * n)


def test_probes_share_the_decomposition_of_rows_that_cannot_change(monkeypatch) -> None:
    x, y = rows_of(30, 5)
    counts = []
    fresh = spectrum._decompose
    monkeypatch.setattr(spectrum, "_decompose", lambda rows: counts.append(1) or fresh(rows))
    Ridge().fit_path(x, y)
    x[3] += 1
    changed = Ridge().fit_path(x, y)
    assert len(counts) == 2
    x.flags.writeable = False
    for make in (Ridge, LDA, Logistic):
        make().fit_path(x, y)
    assert len(counts) == 3
    np.testing.assert_array_equal(Ridge().fit_path(x, y).coef_, changed.coef_)


def test_separable_rows_end() -> None:
    x = np.array([[-1.0, 0], [-2, 1], [1, 0], [2, 1]])
    path = Logistic(Cs=(1e-3, 1.0, 1e6)).fit_path(x, [0, 0, 1, 1])
    logits = path.path_logits(x)
    assert np.isfinite(logits).all()
    assert (logits.argmax(2) == [0, 0, 1, 1]).all()


@every_k
def test_slopes_undo_the_size_of_logits(k) -> None:
    """Labels are drawn from the softmax of the logits, so that their best factor is one."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, k)) * 2
    y = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    slopes, losses = fit_slopes(np.stack([logits, 1000 * logits, 0.01 * logits]), y)
    np.testing.assert_allclose(slopes * [1, 1000, 0.01], 1, atol=0.05)
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-6)


def test_good_candidates_count_alike_and_bad_ones_not_at_all() -> None:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(400) % 2)
    signal = np.stack([-(2.0 * y - 1), 2.0 * y - 1], 1)
    good = signal + rng.normal(size=signal.shape)
    weights = average_good(np.stack([good, 10 * good, rng.normal(size=signal.shape)]), y)
    assert weights[2] == 0
    np.testing.assert_allclose(weights[0], 10 * weights[1])
