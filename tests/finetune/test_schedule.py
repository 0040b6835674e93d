"""Rates at epochs worked by hand, and orders that depend on seed and epoch only."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.finetune.optimiser import make_optimiser
from archiveprobe.finetune.recipe import load_recipe
from archiveprobe.finetune.schedule import (
    Rates,
    batches,
    epoch_order,
    generator,
    make_rates,
    occurrences,
)
from archiveprobe.finetune.settings import Optimiser, Schedule

torch = libraries.torch()
STEPS = 88  # 1,400 rows in batches of 16


def rates_of(optimiser: Optimiser, schedule: Schedule, steps: int = STEPS) -> tuple[Rates, list]:
    made = make_optimiser(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2), optimiser)
    return make_rates(made, schedule, steps), made.param_groups


@pytest.fixture
def kvochur() -> tuple[Rates, list]:
    recipe = load_recipe("kvochur-convnextv2-nano")
    return rates_of(recipe.optimiser, recipe.schedule)


def test_the_rate_of_the_convnext_paper_at_its_epochs(kvochur) -> None:
    rates, groups = kvochur
    assert rates.steps == 50 * STEPS
    # 25: 20 of the 45 epochs after warm-up, 1e-6 + 1.99e-4 (1 + cos 80 degrees) / 2.
    by_hand = {0: 2e-7, 5: 2e-4, 25: 1.1777798e-4, 50: 1e-6}
    for epoch, rate in by_hand.items():
        assert rates.set(epoch * STEPS) == pytest.approx(rate, rel=1e-6)
        assert {group["lr"] for group in groups} == {groups[0]["lr"]}


def test_warm_up_rises_in_every_step_by_the_same(kvochur) -> None:
    rates, _ = kvochur
    path = np.array([rates.set(step) for step in range(5 * STEPS + 1)])
    np.testing.assert_allclose(np.diff(path), (2e-4 - 2e-7) / (5 * STEPS), rtol=1e-6)


def test_the_cosine_falls_in_every_step(kvochur) -> None:
    rates, _ = kvochur
    path = np.array([rates.set(step) for step in range(5 * STEPS, 50 * STEPS)])
    assert (np.diff(path) < 0).all()
    turned = np.pi * np.arange(45 * STEPS) / (45 * STEPS)
    np.testing.assert_allclose(path, 1e-6 + 1.99e-4 * (1 + np.cos(turned)) / 2, rtol=1e-9)


def test_a_step_sets_its_rate_whatever_came_before(kvochur) -> None:
    rates, _ = kvochur
    first = rates.set(1000)
    rates.set(3000)
    assert rates.set(1000) == first


def test_head_and_body_keep_their_proportion() -> None:
    settings = Optimiser(head_rate=1e-3, body_rate=1e-5, decay_one_dimensional=True)
    rates, groups = rates_of(settings, Schedule(epochs=10, warm_up=2.0, last_rate=1e-6))
    for epoch, head in ((0, 1e-6), (1, 1e-3 * 0.5005), (2, 1e-3), (10, 1e-6)):
        assert rates.set(epoch * STEPS) == pytest.approx(head, rel=1e-9)
        assert sorted(group["lr"] for group in groups) == pytest.approx([head / 100, head])


def test_a_constant_rate_after_its_warm_up() -> None:
    rates, _ = rates_of(Optimiser(head_rate=1e-3), Schedule(epochs=4, kind="constant"))
    assert {rates.set(step) for step in range(4 * STEPS + 1)} == {1e-3}
    warm = Schedule(epochs=4, kind="constant", warm_up=1.0, warm_up_start=0.0)
    rates, _ = rates_of(Optimiser(head_rate=1e-3), warm, 10)
    path = [rates.set(step) for step in (0, 5, 10, 40)]
    assert path == pytest.approx([0, 5e-4, 1e-3, 1e-3])


def test_a_warm_up_that_rounds_to_the_whole_run_leaves_a_step() -> None:
    rates, _ = rates_of(Optimiser(), Schedule(epochs=1, warm_up=0.9), 1)
    assert math.isclose(rates.set(0), 1e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_a_shuffle_has_every_row_once_and_is_the_same_again(n, seed, epoch) -> None:
    order = epoch_order(np.zeros(n, int), "shuffle", seed, epoch)
    assert sorted(order) == list(range(n))
    np.testing.assert_array_equal(order, epoch_order(np.zeros(n, int), "shuffle", seed, epoch))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    y = np.zeros(50, int)
    orders = {tuple(epoch_order(y, "shuffle", *at)) for at in ((0, 0), (0, 1), (1, 0), (1, 1))}
    assert len(orders) == 4


def test_a_balanced_order_has_the_classes_equally_often() -> None:
    y = np.repeat([0, 1], [900, 100])
    drawn = np.concatenate([epoch_order(y, "balanced", 0, epoch) for epoch in range(20)])
    # 20,000 draws: the standard error of the share is .0035.
    assert abs(y[drawn].mean() - 0.5) < 0.0125
    assert len(np.unique(drawn)) == 1000


def test_one_class_cannot_be_balanced() -> None:
    with pytest.raises(InputError, match="one class only"):
        epoch_order(np.ones(5, int), "balanced", 0, 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 100), st.integers(1, 40))
def test_batches_keep_the_order_and_none_is_one_row(n, size) -> None:
    parts = batches(np.arange(n), size)
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(n))
    assert all(len(part) == size for part in parts[:-1])
    if n > 1 and size > 1:
        assert len(parts[-1]) > 1
    assert len(parts[-1]) <= size + 1


def test_batches_of_the_shared_task() -> None:
    assert [len(batches(np.arange(1400), 16)), len(batches(np.arange(1599), 32))] == [STEPS, 50]


def test_words_are_told_apart() -> None:
    first = {generator(*words).random() for words in (("a", 1, 2), ("a", 1, 2, 0), ("a", 12))}
    assert len(first) == 3


@given(st.lists(st.integers(0, 5), max_size=40))
def test_occurrences_count_from_the_front(order: list[int]) -> None:
    by_hand = [order[:at].count(row) for at, row in enumerate(order)]
    assert occurrences(np.array(order, int)).tolist() == by_hand
