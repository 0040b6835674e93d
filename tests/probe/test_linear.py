"""The linear paths: equal to scikit-learn penalty by penalty, and to plain leave-one-out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.preprocessing import StandardScaler

from archiveprobe.probe.linear import LogisticPath, RidgePath
from archiveprobe.probe.spectrum import decompose

CS = (1e-5, 1e-3, 1e-2, 0.1)


def drawn(n: int, d: int, k: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated columns of very different scales, and noisy labels that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12)) @ rng.normal(size=(12, d)) + 0.3 * rng.normal(size=(n, d))
    score = x[:, :k] / x[:, :k].std(0) + rng.gumbel(size=(n, k))
    y = score.argmax(1)
    y[:k] = range(k)
    return x * np.logspace(-2, 2, d) + 7, y


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(("n", "d"), [(120, 30), (60, 150)])
def test_every_penalty_gives_scikit_learns_probabilities(n, d, k) -> None:
    x, y = drawn(n, d, k)
    path = softmax(LogisticPath(Cs=CS).fit_path(x, y).path_logits(x), 2)
    scaled = StandardScaler().fit_transform(x)
    for c, mine in zip(CS, path, strict=True):
        theirs = LogisticRegression(C=c, tol=1e-12, max_iter=100_000).fit(scaled, y)
        np.testing.assert_allclose(mine, theirs.predict_proba(scaled), atol=1e-6)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(("n", "d"), [(120, 30), (60, 150)])
def test_every_ridge_decides_as_scikit_learns(n, d, k) -> None:
    x, y = drawn(n, d, k)
    alphas = (0.5, 20.0, 3000.0)
    path = RidgePath(alphas=alphas).fit_path(x, y).path_logits(x)
    scaled = StandardScaler().fit_transform(x)
    for alpha, mine in zip(alphas, path, strict=True):
        theirs = RidgeClassifier(alpha=alpha, solver="cholesky").fit(scaled, y)
        scores = theirs.decision_function(scaled)
        given = mine if k > 2 else mine[:, 1] - mine[:, 0]
        factor = (given * scores).sum() / (scores**2).sum()
        assert factor > 0
        np.testing.assert_allclose(given, factor * scores, atol=1e-8 * np.abs(given).max())


def test_leaving_a_group_out_is_fitting_without_it() -> None:
    x, y = drawn(50, 20)
    groups = np.array([*range(40), 0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    alphas = (1.0, 100.0)
    model = RidgePath(alphas=alphas).fit_path(x, y, groups)
    scaled = StandardScaler().fit_transform(x)
    target = 2.0 * np.eye(2)[y] - 1
    for group in (0, 3, 17):
        rest = groups != group
        centre = scaled[rest].mean(0)
        rows = scaled[rest] - centre
        for at, alpha in enumerate(alphas):
            weights = np.linalg.solve(
                rows.T @ rows + alpha * np.eye(20), rows.T @ (target[rest] - target[rest].mean(0))
            )
            wanted = (scaled[~rest] - centre) @ weights + target[rest].mean(0)
            np.testing.assert_allclose(model.left_out_[at, ~rest], wanted, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 40), st.integers(1, 60), st.integers(0, 1000))
def test_the_decomposition_is_the_standardised_rows(n, d, seed) -> None:
    x = np.random.default_rng(seed).normal(size=(n, d)) * 3 + 1
    spectrum = decompose(x)
    assert spectrum.u.shape[1] <= min(n - 1, d)
    scaled = StandardScaler().fit_transform(x)
    product = spectrum.rotated @ spectrum.rotated.T
    np.testing.assert_allclose(product, scaled @ scaled.T, atol=1e-6 * n * d)
    weights = np.random.default_rng(seed).normal(size=(len(spectrum.root), 2))
    coefficients = spectrum.coefficients(weights)
    logits = (x - spectrum.mean) @ coefficients
    np.testing.assert_allclose(logits, spectrum.rotated @ weights, atol=1e-6)


def test_separable_rows_end() -> None:
    x = np.array([[-1.0, 0], [-2, 1], [1, 0], [2, 1]])
    path = LogisticPath(Cs=(1e-3, 1.0, 1e6)).fit_path(x, [0, 0, 1, 1])
    logits = path.path_logits(x)
    assert np.isfinite(logits).all()
    assert (logits.argmax(2) == [0, 0, 1, 1]).all()


def test_an_offset_is_part_of_every_logit() -> None:
    from archiveprobe.probe.newton import Problem, solve

    x, y = drawn(80, 10)
    scaled = StandardScaler().fit_transform(x)
    z = np.column_stack([scaled, np.ones(80)])
    target = y[:, None].astype(float)
    curvature = (z**2).sum(0)
    # An offset that is linear in the rows is a penalty towards its own weights.
    prior = np.linspace(-1, 1, 10)
    offset = (scaled @ prior)[:, None]
    pulled = solve(Problem(z, target, curvature, offset), [1e9])[:-1, 0, 0]
    np.testing.assert_allclose(pulled, 0, atol=1e-5)
    free = solve(Problem(z, target, curvature, offset), [1e-4])[:-1, 0, 0] + prior
    plain = solve(Problem(z, target, curvature), [1e-4])[:-1, 0, 0]
    np.testing.assert_allclose(free, plain, atol=1e-2)
