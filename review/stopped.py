"""A review at its last stop: what was decided by then, and which images nobody had seen."""

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.recall.allocation import expected_chances
from archiveprobe.review.decisions import (
    BY_GROUP,
    DECISION,
    DRAW,
    QUEUE,
    UNSURE,
    WITHDRAWAL,
    Decision,
)
from archiveprobe.review.state import SHOWN, ReviewState
from archiveprobe.review.store import Review

# Scores of exactly 0 and 1 have no margin.
_CLOSEST = 1e-9


class Stopped:
    """A review that has stopped; `line` of its log says so.

    Raises:
        InputError: it has not, or goes on.
    """

    def __init__(self, review: Review) -> None:
        if not review.state.is_stopped:
            raise InputError(
                f"the review {review.name} has not stopped: `archiveprobe review {review.named} "
                "--stop` ends it, and a certificate follows"
            )
        self.review, self.line = review, review.state.stops[-1]
        late = [
            line.number
            for line in review.log.lines[self.line.number :]
            if line.kind in (DECISION, WITHDRAWAL) and line.content["part"] == QUEUE
        ]
        if late:
            raise InputError(
                f"{review.log.file}: reviewing went on after it had stopped in line "
                f"{self.line.number} (line {late[0]}, {number_of(len(late), 'decision')}): "
                "--resume, stop, and draw anew"
            )

    @cached_property
    def seen(self) -> dict[str, Decision]:
        """Return the decision of every image reviewed by the stop, those of earlier draws too."""
        # The log is taken in once more up to there, since the state of the review is that of now.
        parts = ReviewState(self.review.log.lines[: self.line.number]).parts
        return {**parts[DRAW], **parts[QUEUE]}

    @property
    def answers(self) -> list[str]:
        """Return the first answer to every image reviewed by the stop."""
        return [each.answer for each in self.seen.values()]

    @property
    def found(self) -> int:
        """Count the images reviewed by the stop whose first answer is the positive label."""
        return self.answers.count(self.review.state.positive)

    @property
    def final_answers(self) -> list[str]:
        """Return the answer that counts in the end for every image reviewed by the stop.

        It is the settled one of images that were looked at twice, UNSURE where nobody has settled
        it.
        """
        state = self.review.state
        disputed = set(state.disputed())
        return [
            UNSURE if image in disputed else state.settled(image) or each.answer
            for image, each in self.seen.items()
        ]

    @property
    def decided_by_group(self) -> int:
        """Count the images reviewed by the stop that were not looked at themselves."""
        return sum(each.shown == BY_GROUP for each in self.seen.values())

    @property
    def assumptions(self) -> list[str]:
        """Return what else the answers by the stop rest on."""
        said = "near-duplicates decided at one look have the same answer"
        return [said] if self.decided_by_group else []

    @cached_property
    def unseen(self) -> np.ndarray:
        """Return the places of the images not reviewed at the stop, the likeliest first."""
        population = self.review.population
        is_unseen = np.ones(len(population), bool)
        is_unseen[population.places(list(self.seen))] = False
        unseen = np.flatnonzero(is_unseen)
        return np.asarray(unseen[np.argsort(-population.scores[unseen], kind="stable")])

    def check_unseen(self, end: int, images: Iterable[str]) -> None:
        """Check that nobody looked at images between the stop and the line `end`.

        Raises:
            InputError: somebody did.
        """
        drawn = set(images)
        for line in self.review.log.lines[self.line.number : end - 1]:
            if line.kind in (DECISION, SHOWN) and line.content["image"] in drawn:
                raise InputError(
                    f"{line.content['image']} was looked at (line {line.number}) before the draw "
                    "was declared: --resume the review, stop, and draw anew"
                )

    def chances(self) -> np.ndarray:
        """Guess the chances (M,) of the unseen images, from the answers and the scores."""
        scores, positive = self.review.population.scores, self.review.state.positive
        seen = self.review.population.places(list(self.seen))
        is_positive = np.array([answer == positive for answer in self.answers], bool)
        margins = np.log(np.clip(scores, _CLOSEST, 1)) - np.log(np.clip(1 - scores, _CLOSEST, 1))
        return expected_chances(margins[seen], is_positive, margins[self.unseen])
