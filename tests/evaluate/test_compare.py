"""Paired differences: those of single comparisons, and counts of rows checked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from archiveprobe.evaluate.compare import compare_systems, paired_differences
from archiveprobe.evaluate.intervals import compare
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.predictions import Predictions

SKILLS = (1.0, 1.6, 3.0)


@pytest.fixture
def systems(draw_dataset, draw_system) -> list[Predictions]:
    dataset = draw_dataset(n=120)
    return [draw_system(dataset, f"s{at}", skill, at) for at, skill in enumerate(SKILLS)]


def test_every_difference_is_that_of_a_comparison_of_two(systems) -> None:
    base = systems[0]
    for system, found in zip(systems, paired_differences(systems, 0), strict=True):
        assert (found.system, found.reference) == (system.system, "s0")
        for name in ("macro_f1", "accuracy"):
            rows = (base.labels, system.decision, base.decision, base.groups, 2)
            assert getattr(found, name) == compare(*rows, name=name, fold=base.fold)


def test_the_differences_are_those_of_the_scores_and_turn_with_the_reference(systems) -> None:
    scores = [macro_f1(s.labels, s.decision, 2) for s in systems]
    to_first, to_last = paired_differences(systems, 0), paired_differences(systems, 2)
    assert [d.macro_f1.difference for d in to_first] == pytest.approx(
        np.subtract(scores, scores[0])
    )
    assert to_first[2].macro_f1.difference == -to_last[0].macro_f1.difference
    assert to_first[2].macro_f1.low == pytest.approx(-to_last[0].macro_f1.high)
    assert to_first[2].only_system_right == to_last[0].only_reference_right > 0
    assert to_first[0].macro_f1.low == to_first[0].macro_f1.high == 0
    assert "decide all of these rows alike" in to_first[0].sentence()


def test_rows_are_counted_by_the_decision_of_most_repeats(systems) -> None:
    base = systems[0]
    y, wrong = base.labels, 1 - base.labels
    # Of three repeats: right in the first 10 rows, in two of three of the next 10, else wrong.
    a = np.stack([np.where(np.arange(len(y)) < end, y, wrong) for end in (20, 20, 10)])
    b = np.stack([np.where((np.arange(len(y)) >= 5) & (np.arange(len(y)) < 30), y, wrong)] * 3)
    fold = np.stack([base.fold[0]] * 3)
    oof = np.stack([base.oof[0]] * 3)
    pair = [replace(base, decision=d, fold=fold, oof=oof) for d in (a, b)]
    found = paired_differences(pair, 1)[0]
    assert (found.both_right, found.only_system_right) == (15, 5)
    assert (found.only_reference_right, found.none_right) == (10, len(y) - 30)


def test_a_system_of_one_repeat_is_compared_with_one_of_several(systems) -> None:
    one = replace(
        systems[1],
        **{name: getattr(systems[1], name)[:1] for name in ("fold", "oof", "decision")},
        thresholds=systems[1].thresholds[:1],
    )
    scores = [macro_f1(s.labels, s.decision, 2) for s in (one, systems[2])]
    for pair, sign in (([one, systems[2]], 1), ([systems[2], one], -1)):
        found = paired_differences(pair, 1)[0].macro_f1
        assert found.difference == pytest.approx(sign * (scores[0] - scores[1]))
        assert found.low < found.difference < found.high


def test_the_sentence_says_whether_the_difference_is_noise(systems) -> None:
    far = paired_differences([systems[0], systems[2]], 1)[0]
    assert not far.is_noise and far.macro_f1.p < 0.05
    assert far.sentence().startswith("macro-F1 of s2 is 0.")
    assert "more than noise: the interval of the difference leaves out 0" in far.sentence()
    base, decision = systems[0], systems[0].decision.copy()
    rows = np.random.default_rng(0).permutation(len(base.ids))[:6]
    decision[:, rows] = 1 - decision[:, rows]
    close = paired_differences([replace(base, decision=decision), base], 1)[0]
    assert close.is_noise and close.macro_f1.p > 0.05
    assert "may be noise: the interval of the difference holds 0" in close.sentence()


def test_systems_of_other_folds_are_refused(systems, fault_of) -> None:
    other = replace(systems[1], fold=systems[1].fold[:, ::-1])
    fault_of(lambda: paired_differences([systems[0], other], 0), "'s0'", "different folds", "again")


def test_a_system_is_not_compared_with_itself(make_task, tmp_path, fault_of) -> None:
    task = make_task(tmp_path)
    fault_of(lambda: compare_systems(task, "one", "one"), "one", "with itself", "name two systems")
