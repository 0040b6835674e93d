"""The laws of a fold assignment."""

from collections import Counter, defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from archiveprobe.task.balanced_folds import _deal, balanced_folds


@st.composite
def problems(draw, singletons=False):
    count = draw(st.integers(1, 40))
    labels = draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count))
    of_group = st.lists(st.integers(0, 9), min_size=count, max_size=count)
    groups = [f"g{n}" for n in (range(count) if singletons else draw(of_group))]
    knobs = {
        "folds": draw(st.integers(2, 6)),
        "repeats": draw(st.integers(1, 3)),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }
    return labels, groups, knobs


def spread(labels, folds_of_rows, folds):
    """For every label the number of rows in the fullest fold less that in the emptiest."""
    counts = Counter(zip(labels, folds_of_rows, strict=True))
    per_label = {label: [counts[label, fold] for fold in range(folds)] for label in set(labels)}
    return {label: max(row) - min(row) for label, row in per_label.items()}


@given(problems())
@settings(max_examples=40, deadline=None)
def test_every_row_has_one_fold_and_groups_hold_together(problem):
    labels, groups, knobs = problem
    assigned = balanced_folds(labels, groups, [None] * len(labels), **knobs)
    assert len(assigned) == len(labels)
    assert all(len(row) == knobs["repeats"] for row in assigned)
    assert all(0 <= fold < knobs["folds"] for row in assigned for fold in row)
    homes = defaultdict(set)
    for group, row in zip(groups, assigned, strict=True):
        homes[group].add(row)
    assert all(len(places) == 1 for places in homes.values())
    assert assigned == balanced_folds(labels, groups, [None] * len(labels), **knobs)


@given(problems(singletons=True))
@settings(max_examples=40, deadline=None)
def test_single_rows_are_dealt_evenly(problem):
    labels, groups, knobs = problem
    assigned = balanced_folds(labels, groups, [None] * len(labels), **knobs)
    for repeat in range(knobs["repeats"]):
        folds_of_rows = [row[repeat] for row in assigned]
        assert max(spread(labels, folds_of_rows, knobs["folds"]).values()) <= 1
        sizes = [folds_of_rows.count(fold) for fold in range(knobs["folds"])]
        assert max(sizes) - min(sizes) <= len(set(labels))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 7), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_single_rows_go_where_the_rule_for_larger_groups_puts_them(seed, classes, folds, groups):
    """With all counts twice as large no group is single, and every cost four times as large."""
    rng = np.random.default_rng(seed)
    counts = np.eye(classes)[rng.integers(0, classes, groups)] * rng.integers(0, 4, (groups, 1))
    have = rng.integers(0, 3, (folds, classes)).astype(float)
    weight = 1 / rng.integers(1, 50, classes)
    placed = _deal(counts, have.copy(), weight, np.random.default_rng(seed))
    expected = _deal(2 * counts, 2 * have, weight, np.random.default_rng(seed))
    assert placed.tolist() == expected.tolist()


@given(problems(), st.data())
@settings(max_examples=40, deadline=None)
def test_fixed_rows_never_move(problem, data):
    labels, groups, knobs = problem
    place = st.tuples(*[st.integers(0, knobs["folds"] - 1)] * knobs["repeats"])
    maybe = st.lists(st.none() | place, min_size=len(labels), max_size=len(labels))
    fixed = data.draw(maybe)
    assigned = balanced_folds(labels, groups, fixed, **knobs)
    assert all(given is None or given == row for given, row in zip(fixed, assigned, strict=True))
    assert all(0 <= fold < knobs["folds"] for row in assigned for fold in row)


def test_repeats_and_seeds_differ():
    labels = ["a", "b"] * 20
    groups = [str(at) for at in range(40)]
    assigned = balanced_folds(labels, groups, [None] * 40, folds=5, repeats=5, seed=0)
    assert len(set(zip(*assigned, strict=True))) == 5
    assert assigned != balanced_folds(labels, groups, [None] * 40, folds=5, repeats=5, seed=1)
    more = balanced_folds(labels, groups, [None] * 40, folds=5, repeats=6, seed=0)
    assert [row[:5] for row in more] == assigned


def test_large_groups_are_balanced_by_label():
    """Ten groups of four a, ten of two b and forty single rows fill five folds evenly."""
    labels, groups = [], []
    for number in range(10):
        labels += ["a"] * 4 + ["b"] * 2
        groups += [f"a{number}"] * 4 + [f"b{number}"] * 2
    labels += ["a", "b"] * 20
    groups += [f"s{number}" for number in range(40)]
    assigned = balanced_folds(labels, groups, [None] * 100, folds=5, repeats=3, seed=0)
    for repeat in range(3):
        assert max(spread(labels, [row[repeat] for row in assigned], 5).values()) == 0


def test_new_rows_fill_the_emptier_folds():
    fixed = [(0,)] * 4 + [(1,)] * 2 + [None] * 2
    assigned = balanced_folds(["a"] * 8, list("abcdefgh"), fixed, folds=2, repeats=1, seed=0)
    assert assigned[6:] == [(1,), (1,)]
