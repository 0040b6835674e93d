"""The leaderboard: honest intervals, the pick within noise, and what picking is worth."""

import json
from dataclasses import replace

import numpy as np
import pytest

from archiveprobe.evaluate.intervals import intervals
from archiveprobe.evaluate.leaderboard import SELECTION, leaderboard, nested_score
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.predictions import Predictions


def deciding(one: Predictions, share: float, seed: int, **origin) -> Predictions:
    """The same rows with decisions that are wrong for about `share` of them."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(one.decision.shape) < share
    decision = np.where(wrong, 1 - one.labels, one.labels)
    return replace(one, decision=decision, origin={**one.origin, **origin})


@pytest.fixture
def rows(draw_dataset, draw_system) -> Predictions:
    return draw_system(draw_dataset(n=200, repeats=3))


def test_a_line_has_the_nested_score_and_its_interval(rows) -> None:
    one = deciding(rows, 0.2, 1, system="one", features="a+b", seconds=3.21, optimistic=0.9)
    board = leaderboard([one], seconds=1.5)
    (line,) = board.lines
    interval = intervals(one.labels, one.decision, one.groups, 2, fold=one.fold)["macro_f1"]
    assert line.macro_f1 == pytest.approx(macro_f1(one.labels, one.decision, 2))
    assert line.accuracy == pytest.approx((one.labels == one.decision).mean())
    assert (line.low, line.high) == interval
    assert nested_score(one, one.decision) == (line.macro_f1, *interval)
    assert (line.system, line.features, line.seconds, line.optimistic) == ("one", "a+b", 3.21, 0.9)
    assert line.threshold == one.threshold
    assert board.best == "one" and board.warnings == []


def test_lines_are_sorted_and_one_tells_what_picking_is_worth(rows) -> None:
    systems = [deciding(rows, share, 1, system=f"s{share}") for share in (0.3, 0.02, 0.15)]
    board = leaderboard(systems, seconds=0.0)
    found = [line.macro_f1 for line in board.lines]
    assert found == sorted(found, reverse=True)
    assert {line.system for line in board.lines} == {"s0.3", "s0.02", "s0.15"}
    assert board.best == "s0.02"
    selected = board.selection
    assert selected is not None and selected.system == SELECTION
    # One system wins in every resample, so picking costs nothing.
    assert selected.macro_f1 == pytest.approx(max(found), abs=0.002)
    assert selected.low < selected.macro_f1 <= selected.high
    assert selected.optimistic == max(found)
    assert {line.groups for line in board.lines} == {len(np.unique(rows.groups))}


def test_its_record_is_json(rows) -> None:
    record = leaderboard([rows, replace(rows, threshold=float("nan"))], seconds=1.0).record()
    promised = {"leaderboard", "model_selection", "best", "reason", "majority", "warnings"}
    assert set(record) == promised | {"seconds", "snapshot", "corrections"}
    promised = {"system", "features", "macro_f1", "low", "high", "accuracy", "threshold", "seconds"}
    assert promised <= set(record["leaderboard"][0])
    assert {line["threshold"] for line in record["leaderboard"]} == {rows.threshold, None}
    json.dumps(record, default=str)


def test_within_noise_the_simpler_system_is_recommended(rows) -> None:
    simple = deciding(rows, 0.14, 1, system="simple", complexity=1)
    involved = deciding(rows, 0.10, 2, system="involved", complexity=9)
    board = leaderboard([involved, simple], seconds=0.0, caution=3.0)
    assert board.lines[0].system == "involved"
    assert board.best == "simple"
    assert board.reason.startswith("the simplest within 3 standard errors (0.")
    assert leaderboard([involved, simple], seconds=0.0, caution=0.0).best == "involved"
    poor = deciding(rows, 0.3, 1, system="poor", complexity=1)
    board = leaderboard([poor, involved], seconds=0.0, warnings=["shift"])
    assert (board.best, board.warnings) == ("involved", ["shift"])
    equals = [deciding(rows, share, 1, system=f"s{share}") for share in (0.13, 0.12)]
    assert leaderboard(equals, seconds=0.0, caution=5.0).best == "s0.12"


def selected_of(systems: list[Predictions], **options):
    return leaderboard(systems, seconds=0.0, **options).selection


@pytest.mark.proves("intervals")
def test_picking_the_luckiest_of_coins_is_worth_a_coin(draw_dataset, draw_system) -> None:
    found, optimistic = [], []
    for seed in range(20):
        rows = draw_system(draw_dataset(n=200, seed=seed), seed=seed)
        rng = np.random.default_rng(seed)
        coins = [rng.integers(0, 2, len(rows.labels)) for _ in range(12)]
        systems = [replace(rows, decision=np.tile(each, (2, 1))) for each in coins]
        line = selected_of(systems)
        assert line.low <= line.macro_f1 <= line.high
        found.append(line.macro_f1 - np.mean([_truth(rows, each) for each in coins]))
        optimistic.append(line.optimistic - 0.5)
    assert np.mean(optimistic) > 0.04
    assert np.mean(found) == pytest.approx(0, abs=0.015)


def _truth(rows: Predictions, decision: np.ndarray) -> float:
    """Macro-F1 that a coin of this share of yes has on labels of this share, whatever its luck."""
    yes, positives = decision.mean(), rows.labels.mean()
    hit, other = yes * positives, (1 - yes) * (1 - positives)
    return hit / (yes + positives) + other / (2 - yes - positives)


def nearest_means(rows: Predictions, seed: int) -> Predictions:
    """A system that decides by the nearer class mean of columns that are noise."""
    x = np.random.default_rng([seed, 3]).standard_normal((len(rows.labels), 10))
    y, decision = rows.labels, np.empty_like(rows.decision)
    for repeat, fold in enumerate(rows.fold):
        for held in range(5):
            out, inside = fold != held, fold == held
            zero, one = (x[out & (y == label)].mean(0) for label in (0, 1))
            decision[repeat, inside] = (x[inside] - (zero + one) / 2) @ (one - zero) > 0
    return replace(rows, decision=decision)


@pytest.mark.proves("leaks")
def test_what_other_folds_have_learnt_of_a_fold_is_taken_off(draw_dataset, draw_system) -> None:
    """Every row is its own group here, or copies would be known by heart."""
    excess, optimistic = [], []
    for seed in range(25):
        rows = draw_system(draw_dataset(n=120, repeats=5, seed=seed), seed=seed)
        rng = np.random.default_rng(seed)
        fold = np.stack([rng.permutation(120) % 5 for _ in range(5)])
        rows = replace(rows, groups=np.arange(120), fold=fold, labels=rng.integers(0, 2, 120))
        line = selected_of([nearest_means(rows, 100 * seed + at) for at in range(8)])
        excess.append(line.macro_f1 - 0.5)
        optimistic.append(line.optimistic - 0.5)
    assert np.mean(optimistic) > 0.05
    assert -0.03 < np.mean(excess) < 0.015


@pytest.mark.proves("intervals")
def test_few_groups_are_said_to_promise_nothing(rows) -> None:
    few = replace(rows, groups=np.arange(len(rows.labels)) % 7)
    board = leaderboard([few], seconds=0.0)
    assert board.lines[0].groups == 7 and board.record()["leaderboard"][0]["groups"] == 7
    (said,) = board.warnings
    assert said.startswith("the intervals rest on 7 independent groups: with fewer than 20")
    uneven = replace(rows, groups=np.where(np.arange(len(rows.labels)) < 150, 0, rows.groups + 1))
    (said,) = leaderboard([uneven], seconds=0.0).warnings
    assert "as uneven as 2 equal ones" in said
    single = replace(rows, groups=np.zeros(len(rows.labels), int))
    board = leaderboard([single, replace(single, decision=1 - rows.decision)], seconds=0.0)
    for line in board.lines:
        assert (line.low, line.high) == (0, 1)


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
    selected = before.selection
    poor = draw_system(dataset, "poor", 0.1, 9)
    origin = {**poor.origin, "complexity": 999.0}
    short = replace(
        poor,
        fold=poor.fold[:1],
        oof=poor.oof[:1],
        decision=poor.decision[:1],
        thresholds=poor.thresholds[:1],
        origin=origin,
    )
    for given in ([*systems, short], [short, *systems]):
        after = leaderboard(given, seconds=0.0, caution=5.0)
        assert (after.best, after.warnings) == (before.best, before.warnings)
        assert after.selection.macro_f1 == pytest.approx(selected.macro_f1, abs=1e-9)


@pytest.mark.proves("state")
def test_systems_from_other_folds_are_refused(rows, fault_of) -> None:
    other = replace(rows, fold=(rows.fold + 1) % 5)
    fault_of(lambda: leaderboard([rows, other], seconds=0.0), "different folds")
