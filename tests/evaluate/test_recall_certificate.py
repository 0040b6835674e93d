"""Certificates and plans: the arithmetic, the edges, reviewers' errors."""

import numpy as np
import pytest
from scipy import stats

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.recall.certificate import certify, rounded_down
from archiveprobe.evaluate.recall.counts import highest_count, tail
from archiveprobe.evaluate.recall.plan import Expectation, most_missed, plan_draw
from archiveprobe.evaluate.recall.reviewers import DoubleReview, cohen_kappa
from archiveprobe.evaluate.recall.strata import Stratum


def test_a_certificate_follows_from_its_numbers() -> None:
    done = certify(900, [Stratum(10_000, 1000, 2)], 0.95)
    missed = highest_count(2, 1000, 10_000, 0.05)
    record = done.record()
    assert record["missed_at_most"] == missed
    assert record["recall_at_least"] == 900 / (900 + missed)
    assert record["recall_with_draw_at_least"] == 902 / (900 + missed)
    assert (record["found"], record["unseen"], record["drawn"], record["positive"]) == (
        900,
        10_000,
        1000,
        2,
    )
    assert len(record["assumes"]) == 2
    assert f"at least {rounded_down(100 * record['recall_at_least'])} %" in done.sentence()
    assert "the reviewers are right" in done.sentence()


@pytest.mark.parametrize(
    ("found", "stratum", "recall"),
    [
        (900, (100, 100, 0), 1.0),
        (900, (100, 100, 100), 0.9),
        (0, (100, 10, 0), 0.0),
        (5, (0, 0, 0), 1.0),
        (0, (0, 0, 0), None),
        (0, (100, 100, 0), None),
    ],
)
def test_edges_are_answers(found, stratum, recall) -> None:
    done = certify(found, [Stratum(*stratum)], 0.95)
    assert done.recall == recall
    if recall is None:
        assert "no recall to state" in done.sentence()


@pytest.mark.parametrize(
    ("found", "stratum", "said"),
    [
        (1, (9, 2, 1), "found 1 positive image and left 9 images unreviewed. Of these, 2 were"),
        (3, (9, 1, 0), "Of these, 1 was drawn at random and reviewed, and 0 were positive."),
        (3, (0, 0, 0), "found 3 positive images and left none unreviewed. At most 0 positive"),
    ],
)
def test_sentences_count_in_plain_english(found, stratum, said) -> None:
    assert said in certify(found, [Stratum(*stratum)], 0.95).sentence()


def test_what_cannot_be_certified_is_refused() -> None:
    with pytest.raises(InputError, match="nothing was drawn"):
        certify(9, [Stratum(100, 0, 0)], 0.95)
    with pytest.raises(InputError, match="one stratum"):
        certify(9, [Stratum(100, 10, 0)], 0.95, looks=2, expected=0.1)
    with pytest.raises(InputError, match="3 strata"):
        certify(9, [Stratum(100, 10, 0)] * 3, 0.95)


def test_looks_cost_their_share() -> None:
    once, twice = (certify(900, [Stratum(10_000, 1000, 2)], 0.95, looks=n) for n in (1, 2))
    assert twice.missed == highest_count(2, 1000, 10_000, 0.025) > once.missed
    always = certify(900, [Stratum(10_000, 1000, 2)], 0.95, expected=0.002)
    assert always.missed > once.missed
    assert "confidence sequence" in always.method


def test_a_stratified_draw_is_certified() -> None:
    done = certify(900, [Stratum(500, 200, 4), Stratum(9500, 800, 0)], 0.95)
    assert (done.unseen, done.drawn, done.positive) == (10_000, 1000, 4)
    assert 0.9 < done.recall < 1
    assert len(done.record()["strata"]) == 2


@pytest.mark.proves("certificate")
@pytest.mark.parametrize(("overlook", "mistake"), [(0.1, 0.0), (0.2, 0.1)])
def test_recall_is_certified_although_reviewers_err(overlook, mistake) -> None:
    rng = np.random.default_rng(1)
    positives, missed, unseen, drawn, trials = 1000, 50, 5000, 800, 300
    fails = 0
    for _ in range(trials):
        hits = rng.binomial(positives, 1 - overlook)
        mistaken = rng.binomial(int(hits * mistake), 0.9)
        seen = rng.binomial(rng.hypergeometric(missed, unseen - missed, drawn), 1 - overlook)
        twice = rng.hypergeometric(hits, mistaken, 200)
        reviews = DoubleReview(
            twice, rng.binomial(200, overlook) if twice else 0, 200 - twice, 1000
        )
        done = certify(hits + mistaken, [Stratum(unseen, drawn, seen)], 0.95, reviews=reviews)
        fails += done.recall > hits / (positives + missed)
    # 15 of 300 are allowed, and three standard errors more.
    assert fails <= 26
    assert "reviewers are right" not in done.sentence()
    assert done.record()["double_review"]["mistaken"] == 200 - twice


def test_reviewers_who_agree_still_cost_a_little() -> None:
    stratum = [Stratum(10_000, 1000, 2)]
    right = certify(900, stratum, 0.95)
    twice = certify(900, stratum, 0.95, reviews=DoubleReview(300, 0, 0, 700))
    assert 0.9 * right.recall < twice.recall < right.recall
    assert certify(900, stratum, 0.95, reviews=DoubleReview(0, 0, 0, 700)).recall == 0


def test_kappa() -> None:
    # Cohen's example of 1960 in two labels: equal in 0.7, by chance in 0.5.
    assert cohen_kappa(35, 15, 15, 35) == pytest.approx(0.4)
    assert cohen_kappa(10, 0, 0, 10) == 1
    assert cohen_kappa(5, 5, 5, 5) == 0
    assert cohen_kappa(0, 0, 0, 9) is None
    assert cohen_kappa(0, 0, 0, 0) is None


@pytest.mark.parametrize("looks", [1, 3])
@pytest.mark.parametrize("missed", [0, 5, 20, 40])
def test_the_plan_is_the_smallest_draw_of_all(missed, looks) -> None:
    expected = Expectation(900, 3000, missed)
    plan = plan_draw(expected, 0.95, 0.9, 0.8, looks)
    allowed = most_missed(900, 0.95)

    def power(draw: int) -> float:
        x = np.arange(min(draw, missed) + 1)
        # So many positives certify: one more missed than is allowed would hardly ever show so few.
        passing = x[stats.hypergeom.cdf(x, 3000, allowed + 1, draw) <= 0.1 / looks]
        return tail(int(passing[-1]), draw, 3000, missed) if len(passing) else 0.0

    assert power(plan.draw) == pytest.approx(plan.power)
    assert plan.power >= 0.8
    assert all(power(draw) < 0.8 for draw in range(max(1, plan.draw - 150), plan.draw))


@pytest.mark.parametrize(
    ("found", "unseen", "missed", "draw", "positive"),
    [
        (147_000, 3_000_000, 3000, 6084, 9),
        (147_000, 2_853_000, 3000, 5786, 9),
        (29_400, 3_000_000, 600, 30_368, 9),
        (29_700, 3_000_000, 300, 14_848, 3),
    ],
)
def test_plans_of_three_million(found, unseen, missed, draw, positive) -> None:
    plan = plan_draw(Expectation(found, unseen, missed), 0.95, 0.95, 0.9)
    assert (plan.draw, plan.positive_at_most) == (draw, positive)


def test_plans_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"no draw can certify recall 0\.95 where recall 0\.9"):
        plan_draw(Expectation(900, 3000, 100), 0.95, 0.95, 0.9)
    with pytest.raises(InputError, match="cannot be found among 10 reviewed"):
        Expectation.of(1000, 0.1, 0.9, 10)
    with pytest.raises(InputError, match="between 0 and 1"):
        Expectation.of(1000, 0.0, 0.9, 10)
    assert plan_draw(Expectation(900, 40, 0), 0.95, 0.95, 0.9).draw == 0
    assert Expectation(0, 40, 0).recall is None
    with pytest.raises(InputError, match="where nothing was found"):
        plan_draw(Expectation(0, 40, 0), 0.95, 0.95, 0.9)
