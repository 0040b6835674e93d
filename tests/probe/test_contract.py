"""Every probe of the table keeps the same contract, scikit-learn's."""

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_limits

from archiveprobe.probe.table import PROBES

every_probe = pytest.mark.parametrize("name", PROBES)
every_k = pytest.mark.parametrize("k", [2, 3])
NAMES = np.array(["b-whole", "a-damaged", "c-unclear"])


def assert_probabilities(probabilities: np.ndarray, n: int, k: int) -> None:
    assert probabilities.shape == (n, k)
    assert np.isfinite(probabilities).all()
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-12)


@every_probe
def test_the_table_tells_the_name_and_settings_are_taken_as_they_are(name, build) -> None:
    probe = build(name, seed=7)
    assert probe.name == name == PROBES[name].name
    assert probe.candidates()
    copy = clone(probe)
    assert copy.get_params().keys() == probe.get_params().keys()
    assert copy.set_params(seed=8).seed == 8
    assert probe.seed == 7
    with pytest.raises(ValueError, match="nonsense"):
        probe.set_params(nonsense=1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, entry in PROBES.items() if not entry.prompts])
def test_scikit_learns_own_checks_pass(name, build) -> None:
    with threadpool_limits(1):
        check_estimator(build(name))


@every_probe
@every_k
@pytest.mark.parametrize(("n", "d"), [(60, 12), (24, 40)])
def test_shapes_probabilities_and_sense(name, k, n, d, build, draw) -> None:
    x, y = draw(n, d, k)
    probe = build(name, d, k).fit(x, y)
    fresh, truth = draw(90, d, k, seed=1)
    assert_probabilities(probe.predict_proba(fresh), 90, k)
    path = probe.path_logits(fresh)
    assert path.shape == (len(probe.candidates()), 90, k)
    np.testing.assert_allclose(
        probe.decision_logits(fresh), np.tensordot(probe.weights_, path, 1), atol=1e-12
    )
    assert (probe.predict(fresh) == probe.predict_proba(fresh).argmax(1)).all()
    # Trees do not split 24 rows.
    if name != "lightgbm" or n > 24:
        assert (probe.predict(fresh) == truth).mean() > 1.25 / k


@every_probe
@every_k
def test_linear_ones_are_their_columns_times_coefficients(name, k, build, draw) -> None:
    x, y = draw(60, 12, k)
    arrays = build(name, k=k).fit_path(x, y).arrays()
    linear = {"coef", "intercept"} <= set(arrays)
    assert linear == PROBES[name].linear
    if linear:
        wanted = np.einsum("nd,cdk->cnk", x, arrays["coef"]) + arrays["intercept"][:, None]
        path = build(name, k=k).fit_path(x, y).path_logits(x)
        np.testing.assert_allclose(path, wanted, atol=1e-9)


@every_probe
@every_k
def test_classes_with_names_come_sorted(name, k, build, draw) -> None:
    x, y = draw(60, 12, k)
    # Sorted names: the second class is called first.
    order = np.argsort(NAMES[:k])
    named = build(name, k=k).fit(x, NAMES[:k][order][y])
    assert named.classes_.tolist() == sorted(NAMES[:k])
    numbered = build(name, k=k).fit(x, y)
    np.testing.assert_array_equal(named.predict_proba(x), numbered.predict_proba(x))
    assert (named.predict(x) == named.classes_[numbered.predict(x)]).all()


@every_probe
@every_k
def test_the_same_seed_gives_the_same_answer_on_any_number_of_threads(name, k, build, draw) -> None:
    x, y = draw(60, 12, k)
    with threadpool_limits(1):
        first = build(name, k=k, seed=3).fit(x, y).predict_proba(x)
        again = build(name, k=k, seed=3).fit(x, y).predict_proba(x)
    with threadpool_limits(2):
        threads = build(name, k=k, seed=3).fit(x, y).predict_proba(x)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, threads, atol=1e-6)


@every_probe
def test_fitting_leaves_the_callers_rows_and_the_global_seed_as_they_are(name, build, draw) -> None:
    x, y = draw()
    before = x.copy()
    np.random.seed(5)  # noqa: NPY002
    wanted = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    pipeline = clone(make_pipeline(StandardScaler(), build(name))).fit(x, y)
    assert_probabilities(pipeline.predict_proba(x), 60, 2)
    np.testing.assert_array_equal(x, before)
    assert np.random.random() == wanted  # noqa: NPY002


@every_probe
@pytest.mark.parametrize("groups", [[40, 40, 41, 41], [40]])
def test_a_rare_class_is_missing_from_an_inner_fold(name, groups, build, draw) -> None:
    x, y = draw(60, 12, 3)
    kept = np.r_[np.flatnonzero(y < 2), np.flatnonzero(y == 2)[: len(groups)]]
    model = build(name, k=3).fit(x[kept], y[kept], groups=np.r_[np.arange(40), groups])
    assert_probabilities(model.predict_proba(x), 60, 3)


@every_probe
def test_constant_repeated_and_equal_rows_are_no_trouble(name, build, draw) -> None:
    x, y = draw()
    x[:, 0], x[:, 1], x[:, 2] = 0.0, 1e6, x[:, 3]
    assert_probabilities(build(name).fit(x, y).predict_proba(x), 60, 2)
    equal = build(name).fit(np.ones((20, 12)), np.arange(20) % 2)
    probabilities = equal.predict_proba(np.ones((4, 12)))
    assert_probabilities(probabilities, 4, 2)
    assert np.ptp(probabilities, 0).max() < 1e-12


@every_probe
def test_what_cannot_be_learned_from_is_refused(name, build, draw) -> None:
    x, y = draw()
    with pytest.raises(ValueError, match=f"{name} needs two classes, got one class: 'whole'"):
        build(name).fit(x, ["whole"] * 60)
    probe = build(name).fit(x, y)
    with pytest.raises(ValueError, match="X has 11 features"):
        probe.predict(x[:, :11])
    for bad in (np.nan, np.inf):
        x[17, 4] = bad
        for action in (lambda: build(name).fit(x, y), lambda: probe.predict_proba(x)):
            with pytest.raises(ValueError, match=r"NaN|infinity"):
                action()


@every_probe
@every_k
def test_saved_arrays_give_the_same_probabilities(name, k, build, draw) -> None:
    x, y = draw(60, 12, k)
    # Fortran order is what safetensors scrambles.
    probe = build(name, k=k).fit(np.asfortranarray(x), y)
    arrays = load(save(probe.arrays()))
    settings = {key: value for key, value in probe.get_params().items() if key != "prompts"}
    again = PROBES[name].make(**settings).with_arrays(arrays, probe.classes_)
    fresh = draw(30, 12, k, seed=1)[0]
    np.testing.assert_array_equal(again.predict_proba(fresh), probe.predict_proba(fresh))
    assert again.n_features_in_ == 12
    with pytest.raises(ValueError, match="X has 11 features"):
        again.predict(fresh[:, :11])


@every_probe
def test_one_row_is_answered_as_many_are(name, build, draw) -> None:
    x, y = draw()
    probe = build(name).fit(x, y)
    together = probe.predict_proba(x[:5])
    one_by_one = np.concatenate([probe.predict_proba(row[None]) for row in x[:5]])
    np.testing.assert_allclose(one_by_one, together, atol=1e-9)
