"""What a reviewer does: decide, take back, look at an image unblurred, stop; all into the log."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import clipped, number_of
from archiveprobe.review.decisions import (
    BLURRED,
    BY_GROUP,
    DRAW,
    QUEUE,
    SETTLE,
    TWICE,
    UNSURE,
    WITHDRAWAL,
    Decision,
)
from archiveprobe.review.queue import Queue
from archiveprobe.review.state import RESUME, SHOWN, STOP
from archiveprobe.task.corrections import plain_name


@dataclass(frozen=True)
class Given:
    """An answer that a reviewer gives to an image (SHA-256, hex), and how it was shown.

    With `alone` it counts for that image, not for its near-duplicates; with `settles` it is the
    last word where two reviewers differ.
    """

    image: str
    answer: str
    shown: str = BLURRED
    alone: bool = False
    settles: bool = False


class Reviewing:
    """A reviewer at a queue.

    Raises:
        InputError: the reviewer has no name.
    """

    def __init__(self, queue: Queue, reviewer: str) -> None:
        self._queue, self._review = queue, queue.review
        self.reviewer = plain_name(reviewer)
        if not self.reviewer:
            raise InputError("a reviewer needs a name: give one with --reviewer")

    @property
    def answers(self) -> list[str]:
        """Return what can be answered: the labels of the task, and "unsure"."""
        return [*self._review.state.opened["classes"], UNSURE]

    def decide(self, given: Sequence[Given]) -> list[Decision]:
        """Record answers, all or none of them, durable on return; return every image they decide.

        Raises:
            InputError: an image that is not of this review, an answer that is none, an image that
                is decided already, or a review that was stopped.
        """
        with self._review.log.locked():
            self._queue.sync()
            decisions = self.decisions(given)
            self._review.file.append(decisions)
            self._queue.sync()
        return decisions

    def decisions(self, given: Sequence[Given]) -> list[Decision]:
        """Return what answers come to, image by image, and record nothing; see `decide`."""
        named = {each.image for each in given}
        if len(named) < len(given):
            counts = Counter(each.image for each in given)
            name = self._name(counts.most_common(1)[0][0])
            raise InputError(f"{name} is answered twice: answer it once")
        return [
            decision
            for each in given
            for decision in self._decisions(each)
            # An image that has an answer of its own is not decided by its group's.
            if decision.image == each.image or decision.image not in named
        ]

    def undo(self, image: str, part: str = QUEUE) -> list[Decision]:
        """Take back what this reviewer has decided of an image, and with it of its group.

        Raises:
            InputError: the reviewer has not decided it, or it counts since reviewing stopped.
        """
        with self._review.log.locked():
            self._queue.sync()
            lines = self.withdrawals(image, part)
            self._review.file.append(lines, WITHDRAWAL)
            self._queue.sync()
        return lines

    def withdrawals(self, image: str, part: str, *, alone: bool = False) -> list[Decision]:
        """Return what takes an answer back, image by image, and record nothing; see `undo`.

        With `alone` the near-duplicates keep their answers.
        """
        state, name = self._review.state, self._name(image)
        if part == DRAW and image not in state.drawn:
            # The answer to an earlier draw is one of the queue.
            part = QUEUE
        before = state.parts.get(part, {}).get(image)
        if before is None or before.reviewer != self.reviewer:
            raise InputError(f"{self.reviewer} has not decided {name}: nothing to take back")
        if part == QUEUE and state.is_stopped:
            raise InputError(
                f"reviewing was stopped: the answer to {name} counts; --resume goes on"
            )
        along = (
            other
            for other in (() if alone else state.parts[part].values())
            if other.shown == BY_GROUP
            and (other.group, other.time) == (before.group, before.time)
            and (other.reviewer, other.image == image) == (self.reviewer, False)
        )
        return [
            Decision(each.image, "", self.reviewer, part, id=each.id) for each in (before, *along)
        ]

    def show(self, images: Iterable[str]) -> int:
        """Record that the reviewer was shown images unblurred; return how many by now.

        Raises:
            InputError: an image that is not of this review, or the disk refuses.
        """
        with self._review.log.locked():
            self._queue.sync()
            known = self._review.state.unblurred[self.reviewer]
            new = [image for image in dict.fromkeys(images) if image not in known]
            self._check_known(new)
            lines = [{"reviewer": self.reviewer, "image": image} for image in new]
            self._review.log.append(SHOWN, lines)
            self._queue.sync()
            return len(self._review.state.unblurred[self.reviewer])

    def stop(self) -> str:
        """Declare that reviewing ends, so that a certificate may follow; say what was found.

        Raises:
            InputError: it was stopped already.
        """
        with self._review.log.locked():
            self._queue.sync()
            state, opened = self._review.state, self._review.state.opened
            if state.is_stopped:
                raise InputError("reviewing was stopped already: --resume goes on")
            found, reviewed = len(state.found), len(state.reviewed)
            content = {
                "reviewer": self.reviewer,
                "population": opened["population"],
                "images": opened["images"],
                "reviewed": reviewed,
                "found": found,
                "unseen": opened["images"] - reviewed,
            }
            self._review.log.append(STOP, [content])
            self._queue.sync()
        return (
            f"reviewing stopped: {found} of {number_of(reviewed, 'image')} reviewed "
            f"{'is' if found == 1 else 'are'} {state.positive}, {content['unseen']} "
            f"{'was' if content['unseen'] == 1 else 'were'} not looked at"
        )

    def resume(self) -> str:
        """Go on with a review that was stopped; a certificate then needs a new stop and draw.

        Raises:
            InputError: it was not stopped.
        """
        with self._review.log.locked():
            self._queue.sync()
            if not self._review.state.is_stopped:
                raise InputError("reviewing was not stopped: nothing to resume")
            self._review.log.append(RESUME, [{"reviewer": self.reviewer}])
            self._queue.sync()
        return "reviewing goes on: a certificate needs a new stop and a new draw"

    def _decisions(self, given: Given) -> list[Decision]:
        """Return what an answer comes to, image by image. Raises InputError."""
        if given.answer not in self.answers:
            listed = ", ".join(self.answers)
            raise InputError(f"unknown answer {clipped(given.answer)}: use one of {listed}")
        self._check_known([given.image])
        part = self._part_of(given)
        if part != QUEUE:
            return [
                self._decision(given, part, int(self._review.population.places([given.image])[0]))
            ]
        places = self._queue.undecided(given.image)[: 1 if given.alone else None]
        return [
            self._decision(given, QUEUE, int(place), is_shown=at == 0)
            for at, place in enumerate(places)
        ]

    def _check_known(self, images: Sequence[str]) -> None:
        for image in images:
            if self._review.population.places([image])[0] < 0:
                raise InputError(
                    f"{clipped(image, 80)} is no image of the review {self._review.name}"
                )

    def _name(self, image: str) -> str:
        """Return the id of an image, by which people know it; without one its SHA-256."""
        [place] = self._review.population.places([image])
        return (self._review.population.name(int(place)) if place >= 0 else "") or image

    def _part_of(self, given: Given) -> str:
        """Say what an image is decided for now. Raises InputError: nothing is to decide."""
        state, image = self._review.state, given.image
        if given.settles:
            if image in state.disputed():
                return SETTLE
            raise InputError(f"{self._name(image)}: no two reviewers differ on it")
        if image in state.drawn:
            self._refuse_decided(state.parts[DRAW].get(image))
            return DRAW
        first = state.reviewed.get(image)
        if first is not None and self._queue.is_due(image, self.reviewer):
            return TWICE
        self._refuse_decided(first)
        if state.is_stopped:
            raise InputError(
                f"reviewing was stopped: {self._name(image)} is not among the images drawn; "
                "--resume goes on"
            )
        return QUEUE

    def _refuse_decided(self, before: Decision | None) -> None:
        if before is not None:
            which, who = before.id or before.image, before.reviewer
            if who == self.reviewer:
                again = f"archiveprobe review {self._review.named} --undo {which!r}"
                advice = f"take that back first, with Undo on the page or `{again}`"
            else:
                advice = "only who has decided an image can take that back: leave it out"
            raise InputError(f"{which} was decided by {who} already ({before.answer}): {advice}")

    def _decision(self, given: Given, part: str, place: int, *, is_shown: bool = True) -> Decision:
        population = self._review.population
        score = float(self._queue.scores[place])
        image = population.digest(place)
        return Decision(
            image=image,
            answer=given.answer,
            reviewer=self.reviewer,
            part=part,
            score=None if np.isnan(score) else score,
            group=population.digest(int(population.groups[place])),
            position=self._queue.position(image) if part == QUEUE else None,
            shown=given.shown if is_shown else BY_GROUP,
            id=population.name(place),
        )
