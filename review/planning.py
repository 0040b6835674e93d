"""How many images to draw for a certificate that is likely to say what is wanted."""

from dataclasses import asdict, dataclass
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.recall.plan import Expectation, Plan, plan_draw
from archiveprobe.review.stopped import Stopped
from archiveprobe.review.store import Review, find_review
from archiveprobe.task.config import Task

USUAL_RECALL = 0.98


@dataclass(frozen=True)
class PlanWish:
    """What a certificate should say, and what is expected.

    `images`, `reviewed` and `prevalence` are those of a stopped review where they are None, and the
    recall expected is what its answers and scores suggest. Without a review nothing but the
    positives is taken to be reviewed, which asks for the largest draw, and the recall expected is
    USUAL_RECALL.
    """

    recall: float = 0.95
    confidence: float = 0.95
    power: float = 0.9
    expected_recall: float | None = None
    prevalence: float | None = None
    images: int | None = None
    reviewed: int | None = None
    looks: int = 1


@dataclass(frozen=True)
class Planned:
    """A plan, and what it was made for."""

    wish: PlanWish
    expected: Expectation
    plan: Plan

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {
            **asdict(self.plan),
            "recall": self.wish.recall,
            "confidence": self.wish.confidence,
            "wanted_power": self.wish.power,
            "looks": self.wish.looks,
            "found": self.expected.found,
            "unseen": self.expected.unseen,
            "missed": self.expected.missed,
        }

    def sentence(self) -> str:
        """Say it for people."""
        expected, plan, wish = self.expected, self.plan, self.wish
        if not plan.draw:
            return (
                f"No draw is needed: the {expected.unseen} images not reviewed cannot hold enough "
                f"positives for a recall below {100 * wish.recall:g} %."
            )
        last = "" if wish.looks == 1 else f", all of them by the last of {wish.looks} looks"
        return (
            f"Draw {plan.draw} of the {expected.unseen} images not reviewed{last}. If the draw "
            f"holds at most {number_of(plan.positive_at_most, 'positive')}, the certificate says "
            f"a recall of at least {100 * wish.recall:g} % with a confidence of "
            f"{100 * wish.confidence:g} %. "
            f"With {expected.found} found and {expected.missed} missed, as is expected, that "
            f"happens with a probability of {plan.power:.3f}."
        )


def plan_certificate(task: Task, name: str | None, wish: PlanWish) -> Planned:
    """Plan a draw for a review that stopped, or for one that is only thought of.

    Raises:
        InputError: it cannot be, or something is neither said nor known.
    """
    review = None if wish.images is not None else find_review(task, name)
    if review is not None and wish.prevalence is None:
        expected = _of_review(review, wish.expected_recall)
    else:
        expected = _of_numbers(review, wish)
    try:
        plan = plan_draw(expected, wish.recall, wish.confidence, wish.power, wish.looks)
    except InputError as error:
        if wish.expected_recall is not None or review is None or wish.prevalence is not None:
            raise
        raise InputError(
            f"{error} (the answers and scores of the review suggest that; --expect-recall says "
            "otherwise)"
        ) from None
    return Planned(wish, expected, plan)


def _of_review(review: Review, recall: float | None) -> Expectation:
    if not review.state.is_stopped:
        raise InputError(
            f"the review {review.name} has not stopped: say what is expected with --prevalence"
        )
    stopped = Stopped(review)
    found, unseen = stopped.found, len(stopped.unseen)
    missed = stopped.chances().sum() if recall is None else found * (1 - recall) / recall
    return Expectation(found, unseen, min(round(float(missed)), unseen))


def _of_numbers(review: Review | None, wish: PlanWish) -> Expectation:
    images = wish.images if review is None else int(review.state.opened["images"])
    assert images is not None
    if wish.prevalence is None:
        raise InputError("--images needs --prevalence, the share of positives that is expected")
    recall = USUAL_RECALL if wish.expected_recall is None else wish.expected_recall
    return Expectation.of(images, wish.prevalence, recall, wish.reviewed)
