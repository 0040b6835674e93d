"""Ensembles: what is learned for a fold is learned outside it, and each does what it says."""

from dataclasses import replace

import numpy as np
import pytest

from archiveprobe.evaluate.combine import (
    METHODS,
    combine,
    greedy_weights,
    own_answers,
    stack_weights,
)
from archiveprobe.evaluate.predictions import Predictions


@pytest.fixture
def three(draw_dataset, draw_system):
    """Three systems of different skill on the same folds."""

    def three(**shape: int) -> list[Predictions]:
        dataset = draw_dataset(**{"n": 90, **shape})
        skills = {"weak": 0.5, "good": 2.0, "best": 3.0}
        return [
            draw_system(dataset, name, skill, seed)
            for seed, (name, skill) in enumerate(skills.items())
        ]

    return three


def unread(one: Predictions, row: int) -> Predictions:
    """The same system, had it not been able to read a row of either kind."""
    oof, test = one.oof.copy(), one.test.copy()
    oof[:, row], test[row] = np.nan, np.nan
    return replace(one, oof=oof, test=test)


def logs(values: np.ndarray) -> np.ndarray:
    return np.log(np.clip(values, 1e-7, 1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("k", "repeats"), [(2, 2), (3, 2), (2, 1)])
def test_shapes_and_weights(three, method, k, repeats) -> None:
    members = three(k=k, repeats=repeats)
    found = combine(members, method)
    assert found.logits.shape == (repeats, 90, k)
    assert found.unlabelled.shape == (7, k)
    assert np.isfinite(found.logits).all() and np.isfinite(found.unlabelled).all()
    assert found.weights.shape == (repeats, 5, 3)
    assert (found.weights >= 0).all() and (found.final >= 0).all()
    assert (found.decision is None) == (method != "vote")
    assert combine(three(k=k, m=0), method).unlabelled.shape == (0, k)
    if method in ("mean", "greedy", "rank", "vote"):
        np.testing.assert_allclose(found.weights.sum(-1), 1)
        assert found.final.sum() == pytest.approx(1)


@pytest.mark.proves("leaks")
@pytest.mark.parametrize("method", METHODS)
def test_labels_of_a_fold_do_not_reach_it(three, method) -> None:
    members = three()
    before = combine(members, method)
    own = members[0].fold[0] == 2
    turned = np.where(own, 1 - members[0].labels, members[0].labels)
    after = combine([replace(one, labels=turned) for one in members], method)
    np.testing.assert_allclose(after.weights[0, 2], before.weights[0, 2], atol=1e-12)
    np.testing.assert_allclose(after.logits[0, own], before.logits[0, own], atol=1e-12)
    if method in ("greedy", "stack"):
        assert not np.allclose(after.weights[0, 1], before.weights[0, 1])
        assert not np.allclose(after.final, before.final)


@pytest.mark.parametrize("method", METHODS)
def test_a_row_that_one_cannot_read_has_no_logits(three, method) -> None:
    first, *rest = three()
    found = combine([unread(first, 4), *rest], method)
    assert np.isnan(found.logits[:, 4]).all() and np.isnan(found.unlabelled[4]).all()
    assert np.isfinite(np.delete(found.logits, 4, 1)).all()
    labels = first.labels.copy()
    labels[4] = 1 - labels[4]
    again = [replace(one, labels=labels) for one in (unread(first, 4), *rest)]
    assert np.array_equal(combine(again, method).weights, found.weights)


def test_what_cannot_be_combined_is_refused(three, fault_of) -> None:
    first, second, _ = three()
    moved = (second.fold + 1) % 5
    fault_of(lambda: combine([first, replace(second, fold=moved)], "mean"), "different folds")
    fault_of(lambda: combine([first], "mean"), "needs two systems")
    fault_of(lambda: combine([first, second], "men"), "'men'", "'mean'", "greedy")
    fault_of(lambda: combine([first, second], "vote", "posit"), "tie rule", "'positive'")


def test_only_shared_repeats_count(three) -> None:
    first, *rest = three()
    short = replace(first, fold=first.fold[:1], oof=first.oof[:1], decision=first.decision[:1])
    found = combine([short, *rest], "mean")
    assert np.array_equal(found.logits, combine([first, *rest], "mean").logits[:1])


def test_means_of_logits_and_of_probabilities_by_hand(three) -> None:
    members = three()
    found = combine(members, "mean")
    np.testing.assert_allclose(found.logits, np.mean([logs(one.oof) for one in members], 0))
    np.testing.assert_allclose(found.unlabelled, np.mean([logs(one.test) for one in members], 0))
    found = combine(members, "probability")
    np.testing.assert_allclose(np.exp(found.logits), np.mean([one.oof for one in members], 0))
    np.testing.assert_allclose(np.exp(found.unlabelled), np.mean([one.test for one in members], 0))
    # .9 and .9 against .001: for by probabilities, against by logits.
    sure = np.array([[0.1, 0.9], [0.1, 0.9], [0.999, 0.001]])
    told = [
        replace(one, test=np.tile(p, (len(one.test), 1)))
        for one, p in zip(members, sure, strict=True)
    ]
    answers = {name: combine(told, name).unlabelled.argmax(1) for name in ("probability", "mean")}
    assert answers["probability"].all() and not answers["mean"].any()


def test_ranks_ignore_the_scale_of_a_member(three) -> None:
    first, *rest = three()
    bent = replace(first, oof=np.stack([1 - first.oof[..., 1] ** 3, first.oof[..., 1] ** 3], -1))
    before, after = combine([first, *rest], "rank"), combine([bent, *rest], "rank")
    np.testing.assert_allclose(after.logits, before.logits, atol=1e-9)


def test_a_rank_is_a_place_among_rows_outside_the_fold(three) -> None:
    members = three()
    members[1] = replace(members[1], oof=members[0].oof)
    found = combine(members[:2], "rank")
    fold, p = members[0].fold[0], members[0].oof[0, :, 1]
    row = int(np.flatnonzero(fold == 3)[0])
    below = (p[fold != 3] < p[row]).mean()
    assert np.exp(found.logits[0, row, 1]) == pytest.approx(below, abs=0.02)


def test_the_majority_wins_each_at_its_own_threshold(three) -> None:
    members = three()
    found = combine(members, "vote")
    votes = sum(one.decision for one in members)
    assert np.array_equal(found.decision, votes >= 2)
    assert np.array_equal(found.answer, sum(own_answers(one) for one in members) >= 2)
    for one in members:
        assert np.array_equal(own_answers(one), one.test[:, 1] > one.threshold)
    order = np.argsort(found.logits[..., 1], axis=None)
    assert (np.diff(votes.ravel()[order]) >= 0).all()


def test_a_tie_goes_by_the_mean_logit(three) -> None:
    first, second, _ = three()
    found = combine([first, second], "vote")
    mean = combine([first, second], "mean").logits.argmax(-1)
    tied = first.decision != second.decision
    assert tied.any()
    assert np.array_equal(found.decision[tied], mean[tied])
    assert np.array_equal(found.decision[~tied], first.decision[~tied])


def test_the_tie_rule_is_a_setting(three) -> None:
    pair = three()[:2]
    tied = pair[0].decision != pair[1].decision
    settled = pair[0].decision[~tied]
    for ties, answer in (("positive", 1), ("other", 0)):
        found = combine(pair, "vote", ties)
        assert (found.decision[tied] == answer).all()
        assert np.array_equal(found.decision[~tied], settled)
    turned = [replace(one, origin={**one.origin, "positive": 0}) for one in pair]
    assert (combine(turned, "vote", "positive").decision[tied] == 0).all()


def test_several_classes_vote_for_the_likeliest(three) -> None:
    members = three(k=4)
    found = combine(members, "vote")
    votes = np.stack([one.decision for one in members])
    counts = np.stack([(votes == label).sum(0) for label in range(4)], -1)
    clear = counts.max(-1) >= 2
    assert clear.any()
    assert np.array_equal(found.decision[clear], counts.argmax(-1)[clear])


@pytest.mark.parametrize("learn", [greedy_weights, stack_weights])
def test_a_useless_member_counts_less(learn) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    margin = np.stack([4 * (labels - 0.5), np.zeros(400)]) + rng.standard_normal((2, 400))
    margin[0] *= 1.5
    given = -np.logaddexp(0, np.stack([margin, -margin], -1))
    if learn is greedy_weights:
        given = np.exp(given)
    good, useless = learn(given, labels)
    assert good > 2 * useless >= 0


def test_greedy_starts_with_the_best_and_has_a_seed(three) -> None:
    members = three()
    probabilities = np.stack([one.oof[0] for one in members])
    labels = members[0].labels
    found = greedy_weights(probabilities, labels)
    assert found[2] == found.max()
    assert np.array_equal(found, greedy_weights(probabilities, labels))


def test_stacking_finds_the_penalised_optimum() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    logits = (
        rng.standard_normal((2, 200, 3)) + np.array([2.0, 0.5])[:, None, None] * np.eye(3)[labels]
    )
    found = stack_weights(logits, labels)

    def loss(weights: np.ndarray) -> float:
        total = np.tensordot(weights, logits, 1)
        own = total[np.arange(200), labels]
        return float((np.log(np.exp(total).sum(1)) - own).sum() + 2 * ((weights - 0.5) ** 2).sum())

    for step in np.vstack([np.eye(2), -np.eye(2)]) * 1e-3:
        assert loss(found) < loss(found + step)
