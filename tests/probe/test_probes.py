"""What sets each probe apart: equal to scikit-learn, to a formula, or to its paper's settings."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from archiveprobe.probe.knn import NeighbourPath
from archiveprobe.probe.lda import DiscriminantPath
from archiveprobe.probe.mlp import Mlp
from archiveprobe.probe.svm import SupportVectorPath
from archiveprobe.probe.table import PROBES
from archiveprobe.probe.trees import TreePath
from archiveprobe.probe.zeroshot import PromptedPath, ZeroShot


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(("n", "d"), [(90, 10), (30, 50)])
def test_lda_is_scikit_learns_at_every_shrinkage(k, n, d, draw) -> None:
    x, y = draw(n, d, k)
    amounts = (0.05, 0.5, 0.9)
    path = softmax(DiscriminantPath(shrinkages=amounts).fit_path(x, y).path_logits(x), 2)
    scaled = StandardScaler().fit_transform(x)
    within = scaled - np.stack([scaled[y == label].mean(0) for label in range(k)])[y]
    for amount, mine in zip(amounts, path, strict=True):
        covariance = (1 - amount) * within.T @ within / n
        covariance += amount * (within**2).sum() / n / d * np.eye(d)
        means = np.stack([scaled[y == label].mean(0) for label in range(k)])
        solved = np.linalg.solve(covariance, means.T)
        scores = scaled @ solved - 0.5 * (means.T * solved).sum(0) + np.log(np.bincount(y) / n)
        np.testing.assert_allclose(mine, softmax(scores, 1), atol=1e-7)


def test_lda_decides_as_scikit_learn_does(draw) -> None:
    x, y = draw(90, 10, 3)
    mine = DiscriminantPath(shrinkages=(0.3,)).fit(x, y)
    scaled = StandardScaler().fit_transform(x)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(scaled, y)
    assert (mine.predict(x) == theirs.predict(scaled)).mean() > 0.95


def test_copies_of_one_row_per_class_leave_nothing_within() -> None:
    x, y = np.eye(6)[[0, 1] * 9], np.arange(18) % 2
    model = DiscriminantPath(shrinkages=(0.01, "ledoit-wolf")).fit(x, y)
    assert (model.predict(x) == y).all()


@pytest.mark.parametrize("amount", [0, -0.1, 1.5, "ledoit"])
def test_a_shrinkage_that_is_none_is_refused(amount, draw) -> None:
    with pytest.raises(ValueError, match="a shrinkage is above 0 and at most 1"):
        DiscriminantPath(shrinkages=(amount,)).fit_path(*draw())


@pytest.mark.parametrize("k", [2, 3])
def test_every_machine_is_scikit_learns(k, draw) -> None:
    x, y = draw(60, 12, k)
    path = SupportVectorPath(scales=(0.5,), Cs=(0.5, 4.0), tol=1e-8).fit_path(x, y).path_logits(x)
    scaled = StandardScaler().fit_transform(x)
    for c, mine in zip((0.5, 4.0), path, strict=True):
        for label in range(k)[1 if k == 2 else 0 :]:
            machine = SVC(C=c, gamma=0.5 / 12, tol=1e-8).fit(scaled, y == label)
            margin = mine[:, 1] - mine[:, 0] if k == 2 else mine[:, label]
            np.testing.assert_allclose(margin, machine.decision_function(scaled), atol=1e-5)


def test_neighbours_by_hand() -> None:
    x = np.array([[1.0, 0], [0.8, 0.6], [0, 1], [-1, 0]])
    model = NeighbourPath(ks=(2, 9), standardise=False).fit_path(x, [0, 1, 1, 0])
    probability = softmax(model.path_logits(np.array([[2.0, 0]])), 2)[:, 0]
    for row, cosines in zip(probability, ([1, 0.8], [1, 0.8, 0, -1]), strict=True):
        weight = np.exp((np.array(cosines) - 1) / 0.07)
        of_one = weight[1:3].sum()
        count = weight.sum() ** 2 / (weight**2).sum()
        wanted = (count * of_one / weight.sum() + 0.5) / (count + 1)
        np.testing.assert_allclose(row[1], wanted, atol=1e-9)


def test_trees_run_on_64_components_in_one_thread(draw, monkeypatch) -> None:
    import lightgbm

    seen = []
    train = lightgbm.train

    def spy(settings, data, **named):
        seen.append((settings, data.construct().num_feature()))
        return train(settings, data, **named)

    monkeypatch.setattr(lightgbm, "train", spy)
    x, y = draw(100, 90)
    model = TreePath(trees=(3, 5)).fit_path(x, y)
    settings, columns = seen[0]
    assert columns == 64 and len(seen) == 1
    assert settings["num_threads"] == 1 and settings["max_bin"] == 63
    assert settings["force_col_wise"] and settings["deterministic"]
    # The axes are those of the training rows, whatever is predicted later.
    before = model.path_logits(x[:5])
    np.testing.assert_array_equal(model.path_logits(np.r_[x[:5], 1e3 * x[5:9]])[:, :5], before)
    centred = StandardScaler().fit_transform(x)
    rows = (x - model.mean_) @ model.basis_
    exact = np.linalg.svd(centred, compute_uv=False)[:20] ** 2
    np.testing.assert_allclose((rows**2).sum(0)[:20], exact, rtol=0.02)


def test_damaged_trees_are_refused_before_they_are_parsed(draw) -> None:
    model = TreePath(trees=(3,)).fit_path(*draw())
    arrays = model.arrays()
    arrays["text"] = arrays["text"][:-40]
    with pytest.raises(ValueError, match="not those that were saved"):
        TreePath(trees=(3,)).with_arrays(arrays, [0, 1])


def test_the_head_is_the_papers(draw) -> None:
    head = Mlp()
    assert (head.hidden, head.dropout, head.alpha, head.gamma) == (256, (0.5, 0.3), 0.75, 2.0)
    assert (head.learning_rate, head.weight_decay, head.batch) == (1e-3, 1e-4, 32)
    assert (head.epochs, head.patience, head.clip) == (30, 5, 1.0)
    model = Mlp(epochs=1).fit(*draw(40, 512))
    assert model.w1_.shape == (256, 512) and model.w2_.shape == (2, 256)
    np.testing.assert_allclose(model.class_weights(), [0.25, 0.75])
    np.testing.assert_allclose(Mlp(positive=0, epochs=1).fit(*draw()).class_weights(), [0.75, 0.25])


def test_the_loss_is_focal_and_dropout_keeps_the_mean(draw) -> None:
    torch = pytest.importorskip("torch")
    from archiveprobe.probe.mlp import _Training

    x, y = draw()
    head = Mlp(epochs=1).fit(x, y)
    training = _Training(head, x.astype(np.float32), y)
    logits = torch.tensor([[0.0, np.log(3.0)], [0.0, np.log(3.0)]])
    wanted = (0.75 * 0.25**2 * -np.log(0.75) + 0.25 * 0.75**2 * -np.log(0.25)) / 2
    assert float(training._loss(logits, torch.tensor([1, 0]))) == pytest.approx(wanted, rel=1e-5)
    dropped = training._drop(torch.ones(20_000), 0.3)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.02)


def test_zero_shot_is_the_scaled_cosine() -> None:
    prompts = np.array([[2.0, 0], [0, 5]])
    model = ZeroShot(prompts=prompts, scale=10, bias=-3).fit(np.eye(2), [0, 1])
    np.testing.assert_allclose(model.decision_logits([[3.0, 4.0]]), [[6 - 3, 8 - 3]])


def test_a_strong_pull_is_zero_shot_up_to_an_intercept(draw) -> None:
    x, y = draw(80, 12, 3)
    prompts = np.random.default_rng(1).normal(size=(3, 12))
    near = PromptedPath(prompts=prompts, scale=10, Cs=(1e-12,)).fit(x, y).decision_logits(x)
    zero = ZeroShot(prompts=prompts, scale=10).fit(x, y).decision_logits(x)
    gap = near - zero
    gap -= gap.mean(1, keepdims=True)
    np.testing.assert_allclose(gap, np.broadcast_to(gap[:1], gap.shape), atol=1e-5)


@pytest.mark.parametrize("name", ["zeroshot", "prompted"])
@pytest.mark.parametrize(
    "prompts", [None, np.ones((3, 12)), np.ones((2, 11)), np.full((2, 12), np.nan)]
)
def test_prompts_that_do_not_fit_are_refused(name, prompts, draw) -> None:
    with pytest.raises(ValueError, match=f"{name} needs") as caught:
        PROBES[name].make(prompts=prompts).fit(*draw())
    assert "\n" not in str(caught.value)


def test_torch_and_lightgbm_load_only_where_they_are_used() -> None:
    code = (
        "import sys, archiveprobe.probe.table\n"
        "for entry in archiveprobe.probe.table.PROBES.values(): entry.make()\n"
        "assert not {'torch', 'lightgbm'} & set(sys.modules), 'loaded'\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
