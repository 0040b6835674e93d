"""What sets each probe apart: equal to scikit-learn, to a formula, or to its paper's settings."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from archiveprobe.base.errors import InputError
from archiveprobe.probe import svm
from archiveprobe.probe.knn import KNN
from archiveprobe.probe.lda import LDA
from archiveprobe.probe.linear import Ridge
from archiveprobe.probe.svm import SVM
from archiveprobe.probe.trees import LightGBM
from archiveprobe.probe.zeroshot import ZeroShot


@pytest.mark.parametrize("k", [2, 3])
def test_every_machine_is_scikit_learns(k, draw) -> None:
    x, y = draw(60, 12, k)
    path = SVM(scales=(0.5,), Cs=(0.5, 4.0), tol=1e-8).fit_path(x, y).path_logits(x)
    scaled = StandardScaler().fit_transform(x)
    for c, mine in zip((0.5, 4.0), path, strict=True):
        for label in range(k)[1 if k == 2 else 0 :]:
            machine = SVC(C=c, gamma=0.5 / 12, tol=1e-8).fit(scaled, y == label)
            margin = mine[:, 1] - mine[:, 0] if k == 2 else mine[:, label]
            np.testing.assert_allclose(margin, machine.decision_function(scaled), atol=1e-5)


def test_a_machine_refuses_more_rows_than_it_can_learn_from(draw, monkeypatch) -> None:
    monkeypatch.setattr(svm, "MOST_ROWS", 50)
    with pytest.raises(InputError, match="svm takes at most 50 rows to learn from, got 60"):
        SVM().fit_path(*draw())


def test_neighbours_by_hand() -> None:
    x = np.array([[1.0, 0], [0.8, 0.6], [0, 1], [-1, 0]])
    model = KNN(ks=(2, 9), standardise=False).fit_path(x, [0, 1, 1, 0])
    probability = softmax(model.path_logits(np.array([[2.0, 0]])), 2)[:, 0]
    for row, cosines in zip(probability, ([1, 0.8], [1, 0.8, 0, -1]), strict=True):
        weight = np.exp((np.array(cosines) - 1) / 0.07)
        of_one = weight[1:3].sum()
        count = weight.sum() ** 2 / (weight**2).sum()
        wanted = (count * of_one / weight.sum() + 0.5) / (count + 1)
        np.testing.assert_allclose(row[1], wanted, atol=1e-9)


def test_trees_run_on_principal_components_in_one_thread(draw, monkeypatch) -> None:
    import lightgbm

    seen = []
    train = lightgbm.train

    def spy(settings, data, **named):
        seen.append((settings, data.construct().num_feature()))
        return train(settings, data, **named)

    monkeypatch.setattr(lightgbm, "train", spy)
    x, y = draw(100, 90)
    model = LightGBM(trees=(3, 5)).fit_path(x, y)
    settings, columns = seen[0]
    assert columns == 64 and len(seen) == 1
    assert settings["num_threads"] == 1 and settings["max_bin"] == 63
    assert settings["force_col_wise"] and settings["deterministic"]
    # The axes are those of the training rows, whatever is predicted later.
    before = model.path_logits(x[:5])
    np.testing.assert_array_equal(model.path_logits(np.r_[x[:5], 1e3 * x[5:9]])[:, :5], before)
    exact = np.linalg.svd(StandardScaler().fit_transform(x), compute_uv=False)[:64] ** 2
    rows = (x - model.mean_) @ model.basis_
    np.testing.assert_allclose((rows**2).sum(0), exact, rtol=1e-6)


def test_damaged_trees_are_refused_before_they_are_parsed(draw) -> None:
    model = LightGBM(trees=(3,)).fit_path(*draw())
    arrays = model.arrays()
    arrays["text"] = arrays["text"][:-40]
    with pytest.raises(ValueError, match="not those that were saved"):
        LightGBM(trees=(3,)).with_arrays(arrays, [0, 1])


def test_zero_shot_is_the_scaled_cosine() -> None:
    prompts = np.array([[2.0, 0], [0, 5]])
    model = ZeroShot(prompts=prompts, scale=10, bias=-3).fit(np.eye(2), [0, 1])
    np.testing.assert_allclose(model.decision_logits([[3.0, 4.0]]), [[6 - 3, 8 - 3]])


@pytest.mark.parametrize(
    "prompts", [None, np.ones((3, 12)), np.ones((2, 11)), np.full((2, 12), np.nan)]
)
def test_prompts_that_do_not_fit_are_refused(prompts, draw) -> None:
    with pytest.raises(ValueError, match="zeroshot needs") as caught:
        ZeroShot(prompts=prompts).fit(*draw())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (Ridge(alphas=[]), "ridge needs one hyper-parameter or more, got none"),
        (Ridge(alphas=[1.0, -1.0]), "ridge: alpha must not be negative, got -1.0"),
        (LDA(shrinkages=[float("nan")]), "lda: shrinkage must not be negative, got nan"),
        (KNN(ks=[-3]), "knn: k must not be negative, got -3"),
        (ZeroShot(), "zeroshot needs prompts, one text embedding .* per class"),
    ],
)
def test_settings_that_nothing_can_be_fitted_with(probe, message, draw) -> None:
    with pytest.raises(ValueError, match=message):
        probe.fit(*draw())


def test_heavy_libraries_load_only_where_they_are_used() -> None:
    code = (
        "import sys, archiveprobe.probe.table, archiveprobe.probe.audit.shift\n"
        "heavy = {'torch', 'sklearn', 'lightgbm', 'cleanlab'}\n"
        "assert not heavy & set(sys.modules), 'loaded by the table'\n"
        "for entry in archiveprobe.probe.table.PROBES.values(): entry.make()\n"
        "assert not {'torch', 'lightgbm'} & set(sys.modules), 'loaded'\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
