"""The certificate: recall of a review is at least so much, from a random draw of the rest.

F images were found. The images not reviewed hold at most U positives, by a draw from them at random
after reviewing had stopped, which fails with a probability of at most 1 - confidence. Then recall
F / (F + K) >= F / (F + U), since it falls with K: nothing is assumed about the model, the order of
the review, duplicates or shift.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.recall.counts import highest_count
from archiveprobe.evaluate.recall.reviewers import ASSUMPTIONS, DoubleReview, allow_for_errors
from archiveprobe.evaluate.recall.sequence import highest_at_any_time
from archiveprobe.evaluate.recall.strata import Stratum, highest_in_two

RANDOM = "the images drawn are a random sample of those not reviewed, drawn after reviewing stopped"
RIGHT = "the reviewers are right"
# Share of 1 - confidence that is spent on the draw where reviewers' errors have one, too.
_FOR_THE_DRAW = 0.7


@dataclass(frozen=True)
class Certificate:
    """What is certified, and the numbers it follows from; `recall` is None if none is positive.

    `missed` is the upper limit of the positives not found, `method` how it was computed. Of the
    images reviewed `undecided` had no certain answer: they are not found, and may all be missed; of
    those drawn `undecided_drawn` had none, and count as positive.
    """

    found: int
    strata: tuple[Stratum, ...]
    confidence: float
    looks: int
    expected: float | None
    reviews: DoubleReview | None
    method: str
    alpha_of_draw: float
    true_found: int
    missed: int
    undecided: int = 0
    assumptions: tuple[str, ...] = ()
    undecided_drawn: int = 0

    @property
    def unseen(self) -> int:
        """Images that were not reviewed when the draw was made."""
        return sum(each.size for each in self.strata)

    @property
    def drawn(self) -> int:
        """Images drawn."""
        return sum(each.drawn for each in self.strata)

    @property
    def positive(self) -> int:
        """Positives among them."""
        return sum(each.positive for each in self.strata)

    @property
    def recall(self) -> float | None:
        """The recall that is certified, None where nothing was found and nothing can be missed."""
        total = self.true_found + self.missed
        return self.true_found / total if total else None

    @property
    def recall_with_draw(self) -> float | None:
        """The recall that is certified if the positives of the draw count as found, too."""
        total = self.true_found + self.missed
        if not total or self.reviews is not None:
            return self.recall
        return (self.true_found + self.positive) / total

    @property
    def assumes(self) -> list[str]:
        """What has to be true."""
        right = [RIGHT] if self.reviews is None else ASSUMPTIONS
        return [*([RANDOM] if self.unseen else []), *right, *self.assumptions]

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`, from which every number can be computed again."""
        return {
            "found": self.found,
            "unseen": self.unseen,
            "drawn": self.drawn,
            "positive": self.positive,
            "confidence": self.confidence,
            "recall_at_least": self.recall,
            "recall_with_draw_at_least": self.recall_with_draw,
            "missed_at_most": self.missed,
            "found_at_least": self.true_found,
            "undecided": self.undecided,
            "undecided_drawn": self.undecided_drawn,
            "method": self.method,
            "alpha_of_draw": self.alpha_of_draw,
            "looks": self.looks,
            "expected_share": self.expected,
            "strata": [
                {"size": each.size, "drawn": each.drawn, "positive": each.positive}
                for each in self.strata
            ],
            "double_review": None if self.reviews is None else self.reviews.record(),
            "assumes": self.assumes,
        }

    def sentence(self) -> str:
        """Say it in words that stand for themselves."""
        seen = f"Reviewing found {number_of(self.found, 'positive image')} and left "
        if self.unseen:
            seen += (
                f"{number_of(self.unseen, 'image')} unreviewed. Of these, {self.drawn} "
                f"{_were(self.drawn)} drawn at random and reviewed, and {self.positive} "
                f"{_were(self.positive)} positive"
            )
            if self.undecided_drawn:
                seen += f" or, {self.undecided_drawn} of them, without a certain answer"
            seen += "."
        else:
            seen += "none unreviewed."
        if self.undecided:
            seen += (
                f" Of the images reviewed, {self.undecided} had no certain answer, and count as "
                "missed."
            )
        if self.recall is None:
            return f"{seen} Nothing was found and nothing is left: there is no recall to state."
        # Where nothing was drawn and nobody errs, nothing is left to chance.
        chance = self.unseen or self.reviews is not None
        sure = f"With a confidence of {100 * self.confidence:g} %, at" if chance else "At"
        return (
            f"{seen} {sure} most {number_of(self.missed, 'positive image')} "
            f"{_were(self.missed)} not found, so that the review found at least "
            f"{rounded_down(100 * self.recall)} % of all positive images. "
            f"This holds if {'; '.join(self.assumes)}."
        )


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def rounded_down(value: float) -> str:
    """Write a percentage with two decimals that is not larger than it is."""
    return f"{int(value * 100 + 1e-9) / 100:.2f}"


def certify(
    found: int,
    strata: Sequence[Stratum],
    confidence: float,
    *,
    looks: int = 1,
    expected: float | None = None,
    reviews: DoubleReview | None = None,
    undecided: int = 0,
    undecided_drawn: int = 0,
    assumptions: Sequence[str] = (),
) -> Certificate:
    """Certify the recall of a review from a draw of one stratum or two.

    `looks` is how many looks were declared before the first; each has its share of 1 - confidence
    (Bonferroni). With `expected`, the share of positives expected among the unseen before the first
    look, the limit holds at any number of looks, of one stratum. The counts rest on `assumptions`,
    too.

    Raises:
        InputError: nothing was drawn, the draw was from more than two strata, or both ways of
            looking more than once are asked for.
        ValueError: counts that cannot be.
    """
    if any(each.size and not each.drawn for each in strata):
        raise InputError("nothing was drawn: no certificate without a reviewed random draw")
    alpha = (1 - confidence) * (1 if reviews is None else _FOR_THE_DRAW)
    method, limit = _limit([each for each in strata if each.size], alpha / looks, looks, expected)
    true_found, missed = found, limit + undecided
    if reviews is not None:
        # The share of 1 - confidence that is left; every look may err anew.
        left = (1 - confidence) * (1 - _FOR_THE_DRAW) / looks
        corrected = allow_for_errors(found, missed, reviews, left)
        true_found, missed = corrected.found, corrected.missed
    return Certificate(
        found,
        tuple(strata),
        confidence,
        looks,
        expected,
        reviews,
        method,
        alpha / looks,
        true_found,
        missed,
        undecided,
        tuple(assumptions),
        undecided_drawn,
    )


def _limit(
    strata: list[Stratum], alpha: float, looks: int, expected: float | None
) -> tuple[str, int]:
    """Compute how the positives among the unseen are bounded, and their upper limit."""
    if expected is not None and (looks > 1 or len(strata) > 1):
        raise InputError(
            "a limit for any number of looks is for a draw of one stratum without declared looks"
        )
    if not strata:
        return "everything was reviewed", 0
    if len(strata) > 2:
        raise InputError(f"a draw from {len(strata)} strata: one or two are understood")
    if len(strata) == 2:
        return "exact stratified (Wendell and Schmee 1996)", highest_in_two(
            strata[0], strata[1], alpha
        )
    only = strata[0]
    sample = only.positive, only.drawn, only.size
    if expected is None:
        return "exact hypergeometric", highest_count(*sample, alpha)
    limit = highest_at_any_time(*sample, alpha, expected)
    return "confidence sequence (Waudby-Smith and Ramdas 2020)", limit
