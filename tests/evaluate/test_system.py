"""Assembling a system: every number of a fold comes from the rows outside it."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from archiveprobe.evaluate import calibration, thresholding
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.system import assemble
from archiveprobe.evaluate.thresholding import THRESHOLD_RULES


@pytest.mark.parametrize("method", THRESHOLD_RULES)
@pytest.mark.parametrize("repeats", [1, 3])
def test_two_classes_have_thresholds(draw_dataset, draw_logits, method, repeats) -> None:
    dataset = draw_dataset(repeats=repeats)
    logits, unlabelled = draw_logits(dataset)
    done = assemble(dataset, np.asfortranarray(logits), unlabelled, {"system": "s"}, method=method)
    found = done.predictions
    held = calibration.cross_fitted(logits, dataset.labels, dataset.fold)
    np.testing.assert_allclose(found.oof, held.apply(logits, dataset.fold))
    final = calibration.fit(logits, dataset.labels)
    assert done.calibration == final
    np.testing.assert_allclose(found.test, final.apply(unlabelled))
    p = held.of_every_fold(logits)[..., 1]
    nested = thresholding.nested(dataset.labels, p, dataset.fold, dataset.groups, 1, method)
    np.testing.assert_allclose(found.thresholds, nested.thresholds, atol=1e-9)
    assert np.array_equal(found.decision, nested.decision)
    p = final.apply(logits)[..., 1]
    threshold = thresholding.final(dataset.labels, p, dataset.groups, 1, method)
    assert found.threshold == pytest.approx(threshold.value, abs=1e-9)
    assert found.origin["optimistic"] == pytest.approx(threshold.score)
    assert found.origin["positive"] == 1 and found.system == "s"


@pytest.mark.parametrize("k", [2, 3])
def test_without_calibration_the_softmax_is_used(draw_dataset, draw_logits, k) -> None:
    dataset = draw_dataset(k=k)
    logits, unlabelled = draw_logits(dataset)
    logits[..., 0] += 2.0
    done = assemble(dataset, logits, unlabelled, {}, method="grid", calibrated=False)
    found = done.predictions
    np.testing.assert_allclose(found.oof, softmax(logits, -1))
    np.testing.assert_allclose(found.test, softmax(unlabelled, -1))
    np.testing.assert_allclose(done.calibration.apply(unlabelled), found.test)
    if k == 2:
        p = found.oof[..., 1]
        about = (dataset.fold, dataset.groups, 1, "grid")
        nested = thresholding.nested(dataset.labels, p, *about)
        np.testing.assert_allclose(found.thresholds, nested.thresholds, atol=1e-9)
        final = thresholding.final(dataset.labels, p, dataset.groups, 1, "grid")
        assert found.threshold == pytest.approx(final.value, abs=1e-9)


def test_a_fixed_threshold_is_applied_and_nothing_is_searched(draw_dataset, draw_logits) -> None:
    dataset = draw_dataset(repeats=3)
    logits, unlabelled = draw_logits(dataset)
    logits[1, 4] = np.nan
    found = assemble(
        dataset, logits, unlabelled, {}, calibrated=False, method="fixed 0.8"
    ).predictions
    assert found.threshold == 0.8 and (found.thresholds == 0.8).all()
    above = softmax(logits, -1)[..., 1] > 0.8
    above[1, 4] = dataset.unreadable
    assert 0 < above.mean() < 1 and np.array_equal(found.decision, above.astype(int))
    assert found.origin["optimistic"] == macro_f1(dataset.labels, found.decision, 2)


@pytest.mark.parametrize("k", [2, 3])
def test_labels_of_a_fold_do_not_reach_it(draw_dataset, draw_logits, k) -> None:
    dataset = draw_dataset(k=k)
    logits, unlabelled = draw_logits(dataset)
    before = assemble(dataset, logits, unlabelled, {}).predictions
    own = dataset.fold[0] == 1
    dataset.labels[own] = (dataset.labels[own] + 1) % k
    after = assemble(dataset, logits, unlabelled, {}).predictions
    np.testing.assert_allclose(after.oof[0, own], before.oof[0, own], atol=1e-9)
    np.testing.assert_allclose(after.thresholds[0, 1], before.thresholds[0, 1], atol=1e-9)
    assert np.array_equal(after.decision[0, own], before.decision[0, own])
    assert not np.allclose(after.oof[0, ~own], before.oof[0, ~own])


def test_several_classes_have_no_threshold(draw_dataset, draw_logits) -> None:
    dataset = draw_dataset(k=4)
    logits, unlabelled = draw_logits(dataset)
    found = assemble(dataset, logits, unlabelled, {}).predictions
    assert np.isnan(found.threshold) and np.isnan(found.thresholds).all()
    assert np.array_equal(found.decision, logits.argmax(-1))
    assert found.origin["optimistic"] == macro_f1(dataset.labels, found.decision, 4)


@pytest.mark.parametrize("k", [2, 3])
def test_unreadable_rows_get_the_unreadable_answer(draw_dataset, draw_logits, k) -> None:
    dataset = draw_dataset(k=k)
    logits, unlabelled = draw_logits(dataset)
    logits[:, [2, 9]], unlabelled[3] = np.nan, np.nan
    found = assemble(dataset, logits, unlabelled, {}).predictions
    assert (found.decision[:, [2, 9]] == dataset.unreadable).all()
    assert np.flatnonzero(~found.readable).tolist() == [2, 9]
    assert np.isnan(found.test[3]).all() and np.isfinite(np.delete(found.test, 3, 0)).all()


def test_a_vote_keeps_its_decisions(draw_dataset, draw_logits) -> None:
    dataset = draw_dataset()
    logits, unlabelled = draw_logits(dataset)
    logits[:, 5] = np.nan
    votes = np.ones((2, 60), np.int64)
    found = assemble(dataset, logits, unlabelled, {}, decision=votes).predictions
    once = assemble(dataset, logits[:1], unlabelled, {}, decision=votes[:1]).predictions
    assert np.array_equal(once.fold, dataset.fold[:1])
    assert (np.delete(found.decision, 5, 1) == 1).all() and (found.decision[:, 5] == 0).all()
    assert np.isnan(found.threshold) and np.isnan(found.thresholds).all()


def test_views_are_calibrated_like_the_whole(draw_dataset, draw_logits) -> None:
    dataset = draw_dataset()
    logits, unlabelled = draw_logits(dataset)
    found = assemble(
        dataset,
        logits,
        unlabelled,
        {},
        views=np.repeat(logits[:, :, None], 3, 2),
        unlabelled_views=np.repeat(unlabelled[:, None], 3, 1),
    ).predictions
    assert found.oof_views is not None and found.test_views is not None
    np.testing.assert_allclose(found.oof_views, np.repeat(found.oof[:, :, None], 3, 2))
    np.testing.assert_allclose(found.test_views, np.repeat(found.test[:, None], 3, 1))


def test_a_first_class_may_be_the_positive_one(draw_dataset, draw_logits) -> None:
    dataset = draw_dataset()
    logits, unlabelled = draw_logits(dataset)
    one = assemble(dataset, logits, unlabelled, {}, method="exact").predictions
    first = replace(dataset, positive=0)
    other = assemble(first, logits, unlabelled, {}, method="exact").predictions
    assert other.positive == 0
    np.testing.assert_allclose(other.threshold, 1 - one.threshold, atol=1e-9)
    assert (other.decision == one.decision).mean() > 0.95
