"""What reviewers overlook and mistake, from images that were reviewed twice and settled."""

from dataclasses import asdict, dataclass

from archiveprobe.evaluate.recall.counts import highest_count, highest_share, highest_trials

ASSUMPTIONS = (
    "settled answers are right",
    "the images reviewed twice were chosen at random among those reviewed",
    "every positive image is overlooked with at most the same chance, independently of others, in "
    "the draw as in the review",
)


@dataclass(frozen=True)
class DoubleReview:
    """First answers to images reviewed twice, against the settled ones.

    `hits` and `overlooked` are positive, `mistaken` and `right_negatives` are not.
    """

    hits: int
    overlooked: int
    mistaken: int
    right_negatives: int

    def record(self) -> dict[str, int]:
        """Return the form of `--json`."""
        return asdict(self)


def cohen_kappa(both: int, only_first: int, only_second: int, neither: int) -> float | None:
    """Compute Cohen's kappa (1960) of two reviewers' answers; None where chance explains all.

    (a - e) / (1 - e), a the share of equal answers, e the share that their frequencies give.
    """
    total = both + only_first + only_second + neither
    if not total:
        return None
    first, second = (both + only_first) / total, (both + only_second) / total
    by_chance = first * second + (1 - first) * (1 - second)
    if by_chance == 1:
        return None
    return ((both + neither) / total - by_chance) / (1 - by_chance)


@dataclass(frozen=True)
class Corrected:
    """Counts that allow for reviewers' errors: true finds at least, positives missed at most."""

    found: int
    missed: int


def allow_for_errors(found: int, missed: int, reviews: DoubleReview, alpha: float) -> Corrected:
    """Allow for errors in `found`, and in the limit `missed` of what reviewers would find.

    Call a positive image visible if the reviewer who got it, or would get it, answers positive.
    Three limits, each failing with a probability of at most alpha / 3:

    - Of the `found`, some are not positive: a finite set, of which those reviewed twice are a
      random sample (hypergeometric).
    - A positive image is visible with a chance of at least 1 - b, b the upper limit of overlooked
      of hits + overlooked (Clopper-Pearson).
    - The visible positives of the archive are at most found + missed. All its positives are then at
      most the trials of chance 1 - b of which so few succeed (binomial).

    What is overlooked among the reviewed and the others alike counts as missed. Raises ValueError:
    more were reviewed twice than found.
    """
    part = alpha / 3
    called = reviews.hits + reviews.mistaken
    wrong = highest_count(reviews.mistaken, called, found, part)
    positives = reviews.hits + reviews.overlooked
    share = highest_share(reviews.overlooked, positives, part)
    right = found - wrong
    if share == 1:
        return Corrected(0, found + missed)
    total = highest_trials(right + missed, 1 - share, part)
    return Corrected(right, total - right)
