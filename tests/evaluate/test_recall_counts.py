"""Limits of counts hold what they promise: exactly on small sets, and fast on large ones."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from archiveprobe.evaluate.recall.counts import (
    highest_count,
    highest_share,
    highest_trials,
    lowest_count,
)
from archiveprobe.evaluate.recall.sequence import highest_at_any_time
from archiveprobe.evaluate.recall.strata import Stratum, highest_in_two, tail_of_two


def exact_tail(positive: int, drawn: int, total: int, count: int) -> Fraction:
    ways = sum(
        math.comb(count, x) * math.comb(total - count, drawn - x)
        for x in range(min(positive, drawn) + 1)
    )
    return Fraction(ways, math.comb(total, drawn))


@pytest.mark.parametrize("total", [1, 2, 7, 20])
def test_the_limit_is_that_of_brute_force(total) -> None:
    for drawn in range(total + 1):
        for positive in range(drawn + 1):
            kept = [
                count
                for count in range(positive, total - drawn + positive + 1)
                if exact_tail(positive, drawn, total, count) > Fraction(1, 20)
            ]
            assert highest_count(positive, drawn, total, 0.05) == max(kept)


@pytest.mark.proves("certificate")
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_limit_fails_in_at_most_alpha_of_all_samples(alpha) -> None:
    total, drawn = 60, 13
    limits = [highest_count(x, drawn, total, alpha) for x in range(drawn + 1)]
    for count in range(total + 1):
        chances = stats.hypergeom.pmf(np.arange(drawn + 1), total, count, drawn)
        assert chances[[limit < count for limit in limits]].sum() <= alpha


def test_edges() -> None:
    assert highest_count(0, 0, 50, 0.05) == 50
    assert highest_count(3, 50, 50, 0.05) == 3
    assert highest_count(0, 0, 0, 0.05) == 0
    assert lowest_count(3, 50, 50, 0.05) == 3
    assert lowest_count(0, 10, 50, 0.05) == 0
    assert lowest_count(10, 10, 50, 0.05) > 30
    with pytest.raises(ValueError, match="cannot be"):
        highest_count(3, 2, 50, 0.05)


def test_millions_of_images() -> None:
    limit = highest_count(5, 5503, 3_000_000, 0.05)
    assert stats.hypergeom.cdf(5, 3_000_000, limit + 1, 5503) <= 0.05
    assert stats.hypergeom.cdf(5, 3_000_000, limit, 5503) > 0.05
    # The rule of three: none in n says less than 3 / n.
    assert highest_count(0, 3000, 300_000_000, 0.05) == pytest.approx(299_500, rel=2e-3)


@given(st.data())
def test_limits_move_the_right_way(data) -> None:
    total = data.draw(st.integers(1, 100_000))
    drawn = data.draw(st.integers(1, min(total, 2000)))
    positive = data.draw(st.integers(0, drawn))
    alpha = data.draw(st.sampled_from([0.01, 0.05, 0.2]))
    limit = highest_count(positive, drawn, total, alpha)
    assert positive <= limit <= total - drawn + positive
    if positive < drawn:
        assert highest_count(positive + 1, drawn, total, alpha) >= limit
    if drawn < total:
        assert highest_count(positive, drawn + 1, total, alpha) <= limit
    assert highest_count(positive, drawn, total, alpha / 2) >= limit
    assert lowest_count(positive, drawn, total, alpha) <= limit


def test_a_chance_and_the_trials_that_gave_so_few_successes() -> None:
    assert highest_share(0, 59, 0.05) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert highest_share(0, 0, 0.05) == highest_share(4, 4, 0.05) == 1
    trials = highest_trials(100, 0.95, 0.05)
    assert stats.binom.cdf(100, trials, 0.95) > 0.05 >= stats.binom.cdf(100, trials + 1, 0.95)
    assert highest_trials(7, 1.0, 0.05) == 7


@pytest.mark.parametrize(
    "pair",
    [((12, 5, 2), (20, 6, 1)), ((30, 10, 0), (25, 3, 0)), ((8, 8, 3), (20, 5, 0))],
)
def test_two_strata_are_bounded_as_by_a_look_at_every_pair(pair) -> None:
    first, second = (Stratum(*each) for each in pair)
    seen = first.size * second.drawn * first.positive + second.size * first.drawn * second.positive
    kept = [
        a + b
        for a in range(first.positive, first.most + 1)
        for b in range(second.positive, second.most + 1)
        if tail_of_two(seen, (first.size, first.drawn, a), (second.size, second.drawn, b)) > 0.05
    ]
    assert highest_in_two(first, second, 0.05) == max(kept)


@pytest.mark.proves("certificate")
def test_the_limit_of_two_strata_holds_whatever_the_counts() -> None:
    first, second = (10, 5), (30, 6)
    limits = {
        (x, y): highest_in_two(Stratum(*first, x), Stratum(*second, y), 0.1)
        for x in range(6)
        for y in range(7)
    }
    for count in range(first[0] + 1):
        for other in range(second[0] + 1):
            fails = sum(
                stats.hypergeom.pmf(x, first[0], count, first[1])
                * stats.hypergeom.pmf(y, second[0], other, second[1])
                for (x, y), limit in limits.items()
                if limit < count + other
            )
            assert fails <= 0.1 + 1e-12


def test_drawing_more_where_positives_are_needs_fewer_labels() -> None:
    # 54 of 1,000 near ones, none of 8,000 others; a plain draw of twice as many sees 4.
    near, far = Stratum(10_000, 1000, 54), Stratum(2_990_000, 8000, 0)
    assert highest_in_two(near, far, 0.05) < highest_count(4, 18_000, 3_000_000, 0.05) * 1.25
    with pytest.raises(ValueError, match="no limit"):
        highest_in_two(near, Stratum(10, 0, 0), 0.05)


@pytest.mark.proves("certificate")
def test_the_sequence_holds_at_all_sizes_at_once() -> None:
    rng = np.random.default_rng(0)
    total, count, alpha = 400, 40, 0.1
    fails = plain = 0
    for _ in range(200):
        seen = np.cumsum(rng.permutation(total) < count)
        looks = range(5, total + 1, 15)
        fails += any(
            highest_at_any_time(int(seen[n - 1]), n, total, alpha, 0.1) < count for n in looks
        )
        plain += any(highest_count(int(seen[n - 1]), n, total, alpha) < count for n in looks)
    # Of 200 runs 20 are expected to fail at most; three standard errors are 13.
    assert fails <= 33 < plain


def test_the_sequence_ends_exactly_and_takes_any_expectation() -> None:
    assert highest_at_any_time(0, 0, 9, 0.05, 0.5) == 9
    assert highest_at_any_time(3, 50, 50, 0.05, 0.01) == 3
    wrong, right = (highest_at_any_time(5, 500, 10_000, 0.05, each) for each in (0.4, 0.01))
    assert 100 < right < wrong < 10_000
    with pytest.raises(ValueError, match="between 0 and 1"):
        highest_at_any_time(1, 2, 9, 0.05, 0.0)
