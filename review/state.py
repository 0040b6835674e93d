"""What the log of a review comes to: whose answer every image has, and what was shown to whom."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from archiveprobe.base.wording import clipped
from archiveprobe.evaluate.recall.reviewers import cohen_kappa
from archiveprobe.review.decisions import (
    BY_GROUP,
    DECISION,
    DRAW,
    QUEUE,
    SETTLE,
    TWICE,
    UNBLURRED,
    UNSURE,
    WITHDRAWAL,
    Decision,
)
from archiveprobe.review.log import Line

OPENED, SHOWN, REFIT, IMPORT = "opened", "unblurred", "refit", "import"
STOP, DRAWN, RESUME = "stop", "draw", "resume"
_STAGES = (STOP, DRAWN, RESUME)
# A second answer is held against the first, and settled is where the two differ: what one of them
# rests on goes, the others go, too. An answer to a draw is one of the queue once that goes on.
_RESTS_ON = {QUEUE: (QUEUE, TWICE, SETTLE, DRAW), TWICE: (TWICE, SETTLE), SETTLE: (SETTLE,)}
_RESTS_ON[DRAW] = (DRAW,)
CERTIFICATE, ESTIMATE = "certificate", "estimate"


def is_shown_twice(seed: str, image: str, share: float) -> bool:
    """Say whether an image is one of the share that two reviewers see.

    Its SHA-256 with a secret seed is as good as a random number, drawn for each image alone.
    """
    drawn = hashlib.sha256(f"{seed} {image}".encode()).digest()
    return int.from_bytes(drawn[:8]) < share * 2**64


class ReviewState:
    """The state of a review, line after line of its log.

    Decisions are kept by image (SHA-256, hex) and part, as they stand after withdrawals; those of
    one part in the order in which they were made. `unblurred` are the images that each reviewer was
    shown unblurred, decided or not. `draws` are the lines of declared draws, `stops` those at which
    reviewing ended; `open_draw` is the draw that is being looked at, if any, and `drawn` its
    images.
    """

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self.opened: Mapping[str, Any] = {}
        self.parts: dict[str, dict[str, Decision]] = {
            part: {} for part in (QUEUE, TWICE, SETTLE, DRAW)
        }
        self.unblurred: dict[str, set[str]] = defaultdict(set)
        self.draws: list[Line] = []
        self.stops: list[Line] = []
        self.refits: list[Line] = []
        self.is_stopped = False
        self.open_draw: Line | None = None
        self.drawn = frozenset[str]()
        self.add(lines)

    def fault_of(self, line: Line) -> str | None:
        """Say why no review has a line at this place; None where it may come next."""
        if line.kind != "mended" and (line.kind == OPENED) == bool(self.opened):
            return "a review is opened once, before all else"
        if line.kind == DRAWN:
            return self._fault_of_draw(line.content)
        if line.kind == DECISION:
            answer = line.content["answer"]
            if answer not in (*self.opened["classes"], UNSURE):
                return f"{clipped(answer)} is no answer"
        return None

    def _fault_of_draw(self, content: Mapping[str, Any]) -> str | None:
        if not self.is_stopped:
            return "images are drawn only after reviewing has stopped"
        counts = [(each["drawn"], each["size"]) for each in content["strata"]]
        is_whole = sum(drawn for drawn, _ in counts) == len(content["images"])
        if not is_whole or any(drawn > size for drawn, size in counts):
            return "its strata hold other numbers of images than were drawn"
        return None

    def add(self, lines: Iterable[Line]) -> None:
        """Take in further lines."""
        for line in lines:
            if line.kind in _STAGES:
                self._change_stage(line)
            elif line.kind in (DECISION, WITHDRAWAL):
                self._decide(line)
            elif line.kind == OPENED:
                self.opened = line.content
            elif line.kind == SHOWN:
                self.unblurred[line.content["reviewer"]].add(line.content["image"])
            elif line.kind == REFIT:
                self.refits.append(line)

    def _decide(self, line: Line) -> None:
        decision = Decision.of(line)
        for part in _RESTS_ON[decision.part]:
            self.parts[part].pop(decision.image, None)
        if line.kind == DECISION:
            self.parts[decision.part][decision.image] = decision
            if decision.shown == UNBLURRED:
                self.unblurred[decision.reviewer].add(decision.image)

    def _change_stage(self, line: Line) -> None:
        """Take in that reviewing stopped or went on, or that images were drawn after it.

        Where it goes on, what was decided of a draw is decided: nobody is asked again.
        """
        self.is_stopped = line.kind != RESUME
        self.open_draw = line if line.kind == DRAWN else None
        self.drawn = frozenset(self.open_draw.content["images"] if self.open_draw else ())
        if line.kind == STOP:
            self.stops.append(line)
        elif line.kind == DRAWN:
            self.draws.append(line)
        else:
            self.parts[QUEUE] = {**self.parts[DRAW], **self.parts[QUEUE]}

    @property
    def reviewed(self) -> dict[str, Decision]:
        """Return the first decision of every image that the queue has shown."""
        return self.parts[QUEUE]

    @property
    def found(self) -> list[str]:
        """Return the images whose first decision says the positive label."""
        positive = self.opened["positive"]
        return [image for image, each in self.reviewed.items() if each.answer == positive]

    @property
    def positive(self) -> str:
        """Return the label that is looked for."""
        return str(self.opened["positive"])

    def settled(self, image: str) -> str | None:
        """Return the answer of an image decided twice: the common one, or the settling one.

        None where two reviewers differ and nobody has settled it yet, or nobody looked again.
        """
        first, second = self.parts[QUEUE].get(image), self.parts[TWICE].get(image)
        if image in self.parts[SETTLE]:
            return self.parts[SETTLE][image].answer
        if first is None or second is None or first.answer != second.answer:
            return None
        return first.answer

    def pairs(self) -> list[tuple[Decision, Decision]]:
        """Return the first and the second decision of every image that has both."""
        first, second = self.parts[QUEUE], self.parts[TWICE]
        return [(first[image], second[image]) for image in second if image in first]

    def waiting_for_second(self) -> list[str]:
        """Return the images that a second reviewer is to look at and has not decided yet."""
        seed, share = self.opened["seed"], self.opened["twice"]
        waiting = (image for image in self.reviewed if image not in self.parts[TWICE])
        return [image for image in waiting if is_shown_twice(seed, image, share)]

    def looks(self) -> int:
        """Count the looks that decided images of the queue: a group at one look counts once."""
        return sum(each.shown != BY_GROUP for each in self.reviewed.values())

    def disputed(self) -> list[str]:
        """Return the images on which two reviewers differ and that nobody has settled."""
        return [one.image for one, two in self.pairs() if self.settled(one.image) is None]

    def kappa(self) -> float | None:
        """Compute Cohen's kappa of first and second answers: positive, or anything else."""
        pairs = Counter(
            (one.answer == self.positive, two.answer == self.positive) for one, two in self.pairs()
        )
        both = [(True, True), (True, False), (False, True), (False, False)]
        return cohen_kappa(*(pairs[each] for each in both))

    def reviewers(self) -> list[dict[str, Any]]:
        """Count what every reviewer decided, and was shown unblurred."""
        # What was decided of a draw is also one of the queue once that goes on: it counts once.
        decisions = {each for part in self.parts.values() for each in part.values()}
        decided = Counter(each.reviewer for each in decisions)
        return [
            {
                "reviewer": name,
                "decisions": decided[name],
                "shown_unblurred": len(self.unblurred.get(name, ())),
            }
            for name in sorted({*decided, *self.unblurred})
        ]

    def answers(self) -> dict[str, Decision]:
        """Return the decision that counts in the end for every image that was looked at.

        Of two that differ it is the first one until somebody has settled them.
        """
        return {**self.parts[DRAW], **self.parts[QUEUE], **self.parts[SETTLE]}
