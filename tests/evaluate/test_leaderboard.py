"""The leaderboard: honest intervals, the pick within noise, and what picking is worth."""

import json
from dataclasses import replace

import numpy as np
import pytest

from evaluate.leaderboard import SELECTED, leaderboard, nested_figure, picks
from evaluate.metrics import figures, macro_f1
from evaluate.predictions import Predictions
from evaluate.significance import intervals


def deciding(one: Predictions, share: float, seed: int, **origin) -> Predictions:
    """The same rows with decisions that are wrong for about `share` of them."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(one.decision.shape) < share
    decision = np.where(wrong, 1 - one.labels, one.labels)
    return replace(one, decision=decision, origin={**one.origin, **origin})


@pytest.fixture
def rows(draw_dataset, draw_system) -> Predictions:
    return draw_system(draw_dataset(n=200, repeats=3))


def test_a_line_has_the_nested_figure_and_its_interval(rows) -> None:
    one = deciding(rows, 0.2, 1, system="one", features="a+b", seconds=3.21, naive=0.9)
    board = leaderboard([one], seconds=1.5)
    (line,) = board.lines
    whole = figures(one.labels, one.decision, None, 2)
    interval = intervals(one.labels, one.decision, None, one.groups, 2)["macro_f1"]
    assert line.macro_f1 == pytest.approx(whole.macro_f1)
    assert line.accuracy == pytest.approx(whole.accuracy)
    assert (line.low, line.high) == interval
    assert nested_figure(one, one.decision) == (line.macro_f1, *interval)
    assert (line.system, line.features, line.seconds, line.naive) == ("one", "a+b", 3.21, 0.9)
    assert line.threshold == one.cut
    assert board.best == "one" and board.warnings == []


def test_lines_are_sorted_and_one_tells_what_picking_is_worth(rows) -> None:
    systems = [deciding(rows, share, 1, system=f"s{share}") for share in (0.3, 0.02, 0.15)]
    board = leaderboard(systems, seconds=0.0)
    found = [line.macro_f1 for line in board.lines]
    assert found == sorted(found, reverse=True)
    assert {line.system for line in board.lines} == {"s0.3", "s0.02", "s0.15", SELECTED}
    assert board.best == "s0.02"
    (selected,) = [line for line in board.lines if line.system == SELECTED]
    assert selected.macro_f1 == pytest.approx(max(found))
    assert selected.naive == max(found)


def test_its_record_is_json(rows) -> None:
    record = leaderboard([rows, replace(rows, cut=float("nan"))], seconds=1.0).record()
    assert set(record) == {"leaderboard", "best", "warnings", "seconds"}
    promised = {"system", "features", "macro_f1", "low", "high", "accuracy", "threshold", "seconds"}
    assert promised <= set(record["leaderboard"][0])
    assert {line["threshold"] for line in record["leaderboard"]} == {rows.cut, None}
    json.dumps(record, default=str)


def test_within_noise_the_simpler_system_is_recommended(rows) -> None:
    simple = deciding(rows, 0.14, 1, system="simple", complexity=1)
    involved = deciding(rows, 0.10, 2, system="involved", complexity=9)
    board = leaderboard([involved, simple], seconds=0.0, caution=3.0)
    assert board.lines[0].system == "involved"
    assert board.best == "simple"
    (said,) = board.warnings
    assert "simple is recommended over involved" in said and "3 standard errors" in said
    assert leaderboard([involved, simple], seconds=0.0, caution=0.0).best == "involved"


def test_a_clear_gap_outweighs_simplicity(rows) -> None:
    simple = deciding(rows, 0.3, 1, system="simple", complexity=1)
    involved = deciding(rows, 0.05, 2, system="involved", complexity=9)
    board = leaderboard([simple, involved], seconds=0.0, warnings=["shift"])
    assert board.best == "involved"
    assert board.warnings == ["shift"]


def test_of_equally_simple_ones_the_better_is_recommended(rows) -> None:
    systems = [deciding(rows, share, 1, system=f"s{share}") for share in (0.13, 0.12)]
    assert leaderboard(systems, seconds=0.0, caution=5.0).best == "s0.12"


def test_each_fold_is_picked_for_by_the_rows_outside_it(rows) -> None:
    good, bad = deciding(rows, 0.05, 1), deciding(rows, 0.4, 2)
    own = rows.fold == 2
    # The good one fails in one fold only: what is picked for that fold must not know.
    fails = replace(good, decision=np.where(own, 1 - rows.labels, good.decision))
    wins = replace(bad, decision=np.where(own, rows.labels, bad.decision))
    chosen = picks([fails, wins])
    assert chosen.shape == (3, 5)
    assert (chosen[:, 2] == 0).all()
    (selected,) = [
        line for line in leaderboard([fails, wins], seconds=0).lines if line.system == SELECTED
    ]
    by_row = np.take_along_axis(chosen, rows.fold, 1)
    decision = np.where(by_row == 0, fails.decision, wins.decision)
    assert selected.macro_f1 == pytest.approx(macro_f1(rows.labels, decision, 2))


def test_only_the_repeat_of_a_fold_picks_for_it(rows) -> None:
    one, other = deciding(rows, 0.05, 1), deciding(rows, 0.4, 2)
    swapped = [
        replace(a, decision=np.stack([a.decision[0], b.decision[1], b.decision[2]]))
        for a, b in ((one, other), (other, one))
    ]
    assert picks(swapped).tolist() == [[0] * 5, [1] * 5, [1] * 5]


def test_three_classes_and_one_repeat(draw_dataset, draw_system) -> None:
    dataset = draw_dataset(n=120, k=3, repeats=1)
    systems = [draw_system(dataset, f"s{seed}", seed + 0.5, seed) for seed in range(3)]
    board = leaderboard(systems, seconds=0.0)
    assert board.best == "s2"
    for line in board.lines:
        assert line.threshold is None and np.isnan(line.deviation)
        assert line.low < line.macro_f1 < line.high


def test_a_system_of_one_repeat_moves_nobody_elses_comparison(draw_dataset, draw_system) -> None:
    dataset = draw_dataset(n=200)
    systems = [draw_system(dataset, f"s{seed}", 2.0 + seed / 10, seed) for seed in range(3)]
    before = leaderboard(systems, seconds=0.0, caution=5.0)
    poor = draw_system(dataset, "poor", 0.1, 9)
    origin = {**poor.origin, "complexity": 999.0}
    short = replace(
        poor,
        fold=poor.fold[:1],
        oof=poor.oof[:1],
        decision=poor.decision[:1],
        cuts=poor.cuts[:1],
        origin=origin,
    )
    for given in ([*systems, short], [short, *systems]):
        after = leaderboard(given, seconds=0.0, caution=5.0)
        assert (after.best, after.warnings) == (before.best, before.warnings)
        named = {line.system: line.macro_f1 for line in after.lines}
        assert named[SELECTED] == {line.system: line.macro_f1 for line in before.lines}[SELECTED]


def test_systems_from_other_folds_are_refused(rows, fault_of) -> None:
    other = replace(rows, fold=(rows.fold + 1) % 5)
    fault_of(lambda: leaderboard([rows, other], seconds=0.0), "different folds")
