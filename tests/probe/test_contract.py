"""Every probe of the table keeps the same contract, scikit-learn's."""

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from archiveprobe.base.errors import InputError
from archiveprobe.probe.table import PROBES, make_probe

every_probe = pytest.mark.parametrize("name", PROBES)
every_k = pytest.mark.parametrize("k", [2, 3])
NAMES = np.array(["b-whole", "a-damaged", "c-unclear"])


def assert_probabilities(probabilities: np.ndarray, n: int, k: int) -> None:
    assert probabilities.shape == (n, k)
    assert np.isfinite(probabilities).all()
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-12)


@every_probe
def test_the_table_tells_the_name_and_builds_by_it(name, build) -> None:
    probe = build(name)
    assert probe.name == name == PROBES[name].name
    assert probe.candidates()
    assert PROBES[name].linear <= hasattr(probe.fit(np.eye(12)[[0, 1] * 9], [0, 1] * 9), "coef_")


@every_probe
def test_settings_are_taken_as_they_are(name, build) -> None:
    probe = build(name, seed=7)
    copy = clone(probe)
    assert copy.get_params().keys() == probe.get_params().keys()
    assert copy.get_params()["seed"] == 7
    assert copy.set_params(seed=8).seed == 8
    assert probe.seed == 7
    with pytest.raises(ValueError, match="nonsense"):
        probe.set_params(nonsense=1)


@every_probe
@every_k
@pytest.mark.parametrize(("n", "d"), [(60, 12), (24, 40)])
def test_shapes_probabilities_and_sense(name, k, n, d, build, draw) -> None:
    x, y = draw(n, d, k)
    probe = build(name, d, k).fit(x, y)
    fresh, truth = draw(90, d, k, seed=1)
    assert_probabilities(probe.predict_proba(fresh), 90, k)
    assert probe.path_logits(fresh).shape == (len(probe.candidates()), 90, k)
    assert probe.decision_logits(fresh).shape == (90, k)
    assert (probe.predict(fresh) == probe.predict_proba(fresh).argmax(1)).all()
    # Trees do not split 24 rows.
    if name != "lightgbm" or n > 24:
        assert (probe.predict(fresh) == truth).mean() > 1.25 / k


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
def test_a_pipeline_takes_it(name, build, draw) -> None:
    x, y = draw()
    pipeline = clone(make_pipeline(StandardScaler(), build(name))).fit(x, y)
    assert_probabilities(pipeline.predict_proba(x), 60, 2)
    assert pipeline.score(x, y) > 0.6


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
def test_fitting_leaves_the_callers_rows_and_global_chance_alone(name, build, draw) -> None:
    x, y = draw()
    before = x.copy()
    np.random.seed(5)  # noqa: NPY002
    wanted = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    build(name).fit(x, y).predict_proba(x)
    np.testing.assert_array_equal(x, before)
    assert np.random.random() == wanted  # noqa: NPY002


@every_probe
def test_a_class_of_two_groups_is_missing_from_an_inner_fold(name, build, draw) -> None:
    x, y = draw(60, 12, 3)
    kept = np.r_[np.flatnonzero(y < 2), np.flatnonzero(y == 2)[:4]]
    groups = np.r_[np.arange(40), 40, 40, 41, 41]
    assert_probabilities(
        build(name, k=3).fit(x[kept], y[kept], groups=groups).predict_proba(x), 60, 3
    )


@every_probe
def test_a_class_of_one_row_is_learned_from(name, build, draw) -> None:
    x, y = draw(60, 12, 3)
    kept = np.r_[np.flatnonzero(y < 2), np.flatnonzero(y == 2)[:1]]
    assert_probabilities(build(name, k=3).fit(x[kept], y[kept]).predict_proba(x), 60, 3)


@every_probe
def test_constant_and_repeated_columns_are_no_trouble(name, build, draw) -> None:
    x, y = draw()
    x[:, 0], x[:, 1], x[:, 2] = 0.0, 1e6, x[:, 3]
    probe = build(name).fit(x, y)
    assert_probabilities(probe.predict_proba(x), 60, 2)


@every_probe
def test_rows_that_are_all_equal_give_no_opinion(name, build) -> None:
    probe = build(name).fit(np.ones((20, 12)), np.arange(20) % 2)
    probabilities = probe.predict_proba(np.ones((4, 12)))
    assert_probabilities(probabilities, 4, 2)
    assert np.ptp(probabilities, 0).max() < 1e-12


@every_probe
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_in_one_line(name, bad, build, draw) -> None:
    x, y = draw()
    probe = build(name).fit(x, y)
    x[17, 4] = bad
    for action in (lambda: build(name).fit(x, y), lambda: probe.predict_proba(x)):
        with pytest.raises(
            ValueError, match="NaN or infinity in 1 of 60 rows, first in row 17"
        ) as e:
            action()
        assert "\n" not in str(e.value)


@every_probe
def test_a_single_class_is_refused(name, build, draw) -> None:
    x, _ = draw()
    with pytest.raises(ValueError, match=f"{name} needs two classes, but all rows are 'whole'"):
        build(name).fit(x, ["whole"] * 60)


@every_probe
def test_other_columns_than_at_fitting_are_refused(name, build, draw) -> None:
    x, y = draw()
    with pytest.raises(ValueError, match=r"X has 11 features, but .* was fitted on 12"):
        build(name).fit(x, y).predict(x[:, :11])


@every_probe
@every_k
def test_saved_arrays_give_the_same_probabilities(name, k, build, draw) -> None:
    x, y = draw(60, 12, k)
    # Fortran order is what safetensors scrambles.
    probe = build(name, k=k).fit(np.asfortranarray(x), y)
    arrays = load(save(probe.arrays()))
    settings = {**probe.get_params(), "prompts": None, "weights": None}
    settings = {key: value for key, value in settings.items() if key in probe.get_params()}
    again = make_probe(name, **settings).with_arrays(arrays, probe.classes_)
    fresh = draw(30, 12, k, seed=1)[0]
    np.testing.assert_array_equal(again.predict_proba(fresh), probe.predict_proba(fresh))
    assert again.n_features_in_ == 12
    with pytest.raises(ValueError, match="X has 11 features"):
        again.predict(fresh[:, :11])


@every_probe
def test_weights_given_are_the_weights_used(name, build, draw) -> None:
    x, y = draw()
    count = len(build(name).candidates())
    weights = np.arange(count, 0, -1.0)
    probe = build(name, weights=tuple(weights)).fit(x, y)
    np.testing.assert_allclose(probe.weights_, weights / weights.sum())
    wanted = np.tensordot(weights / weights.sum(), probe.path_logits(x), 1)
    np.testing.assert_allclose(probe.decision_logits(x), wanted)
    for wrong in ((0.0,) * count, (1.0,) * (count + 1), (-1.0,) * count):
        with pytest.raises(ValueError, match="weights must be"):
            build(name, weights=wrong).fit(x, y)


@every_probe
def test_no_row_to_predict_is_refused_and_one_is_enough(name, build, draw) -> None:
    x, y = draw()
    probe = build(name).fit(x, y)
    together = probe.predict_proba(x[:5])
    alone = np.concatenate([probe.predict_proba(row[None]) for row in x[:5]])
    np.testing.assert_allclose(alone, together, atol=1e-9)
    with pytest.raises(ValueError, match="0 sample"):
        probe.predict(x[:0])


def test_names_and_settings_that_do_not_exist_name_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown probe 'logistik'.*logistic"):
        make_probe("logistik")
    with pytest.raises(InputError, match=r"unknown setting 'alpha' of probe ridge.*alphas"):
        make_probe("ridge", alpha=1.0)
