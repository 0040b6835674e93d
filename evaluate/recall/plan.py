"""How many images to draw, so that a certificate is likely to say what is wanted."""

from dataclasses import dataclass
from fractions import Fraction

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.recall.counts import largest, tail


@dataclass(frozen=True)
class Expectation:
    """What is expected of a review when it stops: images found, not reviewed, and missed."""

    found: int
    unseen: int
    missed: int

    @classmethod
    def of(
        cls, images: int, prevalence: float, recall: float, reviewed: int | None = None
    ) -> "Expectation":
        """Work it out from the images of an archive, and their shares.

        `reviewed` are the images that will have been reviewed, by default those found alone.
        Raises InputError: it cannot be.
        """
        if not 0 < prevalence <= 1 or not 0 < recall <= 1:
            raise InputError(
                f"expected prevalence {prevalence} and recall {recall} must lie between 0 and 1"
            )
        positives = round(images * prevalence)
        found = round(positives * recall)
        if reviewed is None:
            reviewed = found
        if reviewed > images:
            raise InputError(f"{reviewed} of {images} images cannot have been reviewed")
        expectation = cls(found, images - reviewed, positives - found)
        if found > reviewed or expectation.missed > expectation.unseen:
            raise InputError(
                f"{found} images cannot be found among {reviewed} reviewed of {images}: lower the "
                "expected prevalence or recall, or review more"
            )
        return expectation

    @property
    def recall(self) -> float | None:
        """The expected recall, None where there is nothing to find."""
        positives = self.found + self.missed
        return self.found / positives if positives else None


@dataclass(frozen=True)
class Plan:
    """The smallest draw, the most positives in it that still certify, and its power."""

    draw: int
    positive_at_most: int
    power: float


def most_missed(found: int, recall: float) -> int:
    """Compute the most positives that may be missed at a recall, exactly."""
    wanted = Fraction(str(recall))
    return int(found * (1 - wanted) / wanted)


def plan_draw(
    expected: Expectation, recall: float, confidence: float, power: float, looks: int = 1
) -> Plan:
    """Find the smallest draw that certifies `recall` with a probability of at least `power`.

    A draw of n certifies with at most c positives if highest_count(c, n) is small enough, so n must
    be large for the limit, and small for the power: P(X <= c) is that of as many missed as
    expected. Both are monotone in n, so every c has a smallest and a largest n. The smallest c
    whose range is not empty gives the plan, since ranges of larger c begin later. With several
    looks each has its share of 1 - confidence, and the plan is that of the last.

    Raises:
        InputError: nothing is found, or the expected recall is not above the wanted one.
    """
    if not expected.found:
        raise InputError("no draw can certify a recall where nothing was found: review more first")
    allowed = most_missed(expected.found, recall)
    if expected.missed > allowed:
        raise InputError(_impossible(expected, recall))
    if allowed >= expected.unseen:
        return Plan(0, 0, 1.0)
    alpha = (1 - confidence) / looks
    positive = 0
    step = 1
    # Ranges are empty up to some c, but for steps of rounding: found by doubling, then halving.
    while _smallest(expected, allowed, positive + step, alpha, power) is None:
        positive, step = positive + step, step * 2
    low, high = positive, positive + step
    if _smallest(expected, allowed, 0, alpha, power) is not None:
        low = high = 0
    while low < high:
        middle = (low + high) // 2
        if _smallest(expected, allowed, middle, alpha, power) is None:
            low = middle + 1
        else:
            high = middle
    plan = _smallest(expected, allowed, high, alpha, power)
    assert plan is not None
    return plan


def _smallest(
    expected: Expectation, allowed: int, positive: int, alpha: float, power: float
) -> Plan | None:
    """Find the smallest draw that certifies with so many positives; None where power is lower."""
    unseen, missed = expected.unseen, expected.missed
    # More than the missed are not drawn; then all are drawn, and the count is exact.
    positive = min(positive, missed)

    def too_few(draw: int) -> bool:
        return tail(positive, draw, unseen, allowed + 1) > alpha

    draw = largest(positive, unseen, too_few) + 1
    reached = tail(positive, draw, unseen, missed)
    return Plan(draw, positive, reached) if reached >= power else None


def _impossible(expected: Expectation, recall: float) -> str:
    said = "nothing" if expected.recall is None else f"recall {expected.recall:.4g}"
    return (
        f"no draw can certify recall {recall:g} where {said} is expected "
        f"({expected.found} found, {expected.missed} missed): review more first, or want less"
    )
