"""The queue: which images a reviewer sees next, the likeliest first, a group at one look."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any

import numpy as np

from archiveprobe.review.decisions import DECISION, DRAW, QUEUE, SETTLE, TWICE, WITHDRAWAL
from archiveprobe.review.leases import Leases
from archiveprobe.review.state import RESUME, is_shown_twice
from archiveprobe.review.store import Review

# So many second looks come before the next first ones, on the page.
_SECOND_LOOKS = 5


@dataclass(frozen=True)
class Item:
    """One look: the image that is shown (SHA-256, hex), and how many `images` it decides.

    `position` is its place in the order, from 1; None where it is shown a second time.
    """

    image: str
    id: str
    part: str
    images: int = 1
    score: float | None = None
    group: str = ""
    position: int | None = None

    @property
    def lease(self) -> str:
        """Return what is leased: a second look is another one than the first."""
        return f"{self.part} {self.image}"


class Queue:
    """The queue of a review for any number of reviewers, in one process or in several.

    One of every 1 / `uncertain` looks is at what is least certain instead of likeliest. `scores`
    (n,) order the images of the population; `order_by` takes others, as after a refit.
    """

    def __init__(self, review: Review, *, uncertain: float = 0.0) -> None:
        self.review = review
        population = review.population
        self._uncertain = uncertain
        self._leases = Leases(review.folder)
        # One item for every group: the place of its likeliest image names it.
        self._names, self._item = np.unique(population.groups, return_inverse=True)
        order, starts = population.members
        self._members, self._starts = order, starts[self._names]
        self._left = np.bincount(self._item, minlength=len(self._names))
        self._is_done = np.zeros(len(population), bool)
        self._lines = 0
        self._due: dict[str, str] = {}
        self.order_by(population.scores)
        self.order_uncertain_by(population.margins)

    def order_by(self, scores: np.ndarray) -> None:
        """Order the images that are left by scores (n,), the highest first."""
        self.scores = scores
        best = np.maximum.reduceat(scores[self._members], self._starts)
        self._likeliest = np.argsort(-best, kind="stable")
        self._rank = np.empty(len(best), np.int64)
        self._rank[self._likeliest] = np.arange(1, len(best) + 1)
        self._begin = [0, 0]

    def order_uncertain_by(self, margins: np.ndarray) -> None:
        """Order what is least certain by margins (n,), the smallest first."""
        smallest = np.minimum.reduceat(margins[self._members], self._starts)
        self._least_certain = np.argsort(smallest, kind="stable")
        self._begin[1] = 0

    def next(
        self, reviewer: str, most: int = 1, *, session: str = "", settle: bool = False
    ) -> list[Item]:
        """Return what a reviewer sees next, leased to a session (by default the reviewer's own).

        With `settle`, the images on which two reviewers differ. While a random draw is open its
        images come, one by one, in the order in which they were drawn.

        Raises:
            InputError: the log was edited, or the disk refuses.
        """
        session = session or reviewer
        with self.review.log.locked():
            self.sync()
            taken = self._leases.of_others(session)
            free = (item for item in self._items(reviewer, settle) if item.lease not in taken)
            items = list(islice(free, most))
            self._leases.take(session, [item.lease for item in items])
        return items

    def preview(
        self, reviewer: str, most: int | None = None, *, settle: bool = False
    ) -> list[Item]:
        """Return all that a reviewer is to look at, leased to nobody: the first `most` of it.

        Images on which two others differ are among it, to be settled; with `settle` only images on
        which two reviewers differ. Raises InputError.
        """
        with self.review.log.locked():
            self.sync()
            if settle:
                return list(islice(self._items(reviewer, settle=True), most))
            state = self.review.state
            of_others = (
                self._single(one.image, SETTLE)
                for one, two in state.pairs()
                if reviewer not in (one.reviewer, two.reviewer) and state.settled(one.image) is None
            )
            groups = iter(()) if state.is_stopped else self._groups()
            items = chain(self._drawn(), self._second_looks(reviewer), of_others, groups)
            return list(islice(items, most))

    def sync(self) -> None:
        """Take in what was decided since, by whomever. Raises InputError."""
        self.review.sync()
        lines, state = self.review.log.lines, self.review.state
        for line in lines[self._lines :]:
            if line.kind in (DECISION, WITHDRAWAL):
                self._take_in(line.kind == DECISION, line.content)
            elif line.kind == RESUME:
                for image in state.parts[DRAW].keys() & state.reviewed.keys():
                    self._mark(image, True, state.reviewed[image].reviewer)
        self._lines = len(lines)

    def undecided(self, image: str) -> np.ndarray:
        """Return the places of an image's group that nobody has decided; empty where it has none.

        The image itself comes first.
        """
        [place] = self.review.population.places([image])
        if place < 0 or self._is_done[place]:
            return np.empty(0, np.int64)
        group = self._group(int(self._item[place]))
        others = group[~self._is_done[group] & (group != place)]
        return np.concatenate([[place], others]).astype(np.int64)

    def position(self, image: str) -> int | None:
        """Return the place of an image's group in the order, from 1."""
        [place] = self.review.population.places([image])
        return None if place < 0 else int(self._rank[self._item[place]])

    def is_due(self, image: str, reviewer: str) -> bool:
        """Return whether a reviewer is to see an image that somebody else has decided."""
        return self._due.get(image, reviewer) != reviewer

    def looks_left(self) -> int:
        """Count the groups of which something is undecided."""
        return int((self._left > 0).sum())

    def twice_left(self) -> int:
        """Count the images that wait for a second reviewer."""
        return len(self._due)

    def _take_in(self, is_decided: bool, content: Mapping[str, Any]) -> None:
        image, part = content["image"], content["part"]
        if part == TWICE:
            if is_decided:
                self._due.pop(image, None)
            elif image in self.review.state.reviewed:
                self._due[image] = self.review.state.reviewed[image].reviewer
        if part == QUEUE:
            self._mark(image, is_decided, content["reviewer"])

    def _mark(self, image: str, is_decided: bool, reviewer: str) -> None:
        """Count an image as decided for the first time by a reviewer, or as open again."""
        [place] = self.review.population.places([image])
        if self._is_done[place] != is_decided:
            self._is_done[place] = is_decided
            self._left[self._item[place]] += -1 if is_decided else 1
        opened = self.review.state.opened
        self._due.pop(image, None)
        if is_decided:
            if is_shown_twice(opened["seed"], image, opened["twice"]):
                self._due[image] = reviewer
        else:
            # What was passed over as decided may be open again.
            self._begin = [0, 0]

    def _items(self, reviewer: str, settle: bool) -> Iterator[Item]:
        state = self.review.state
        if settle:
            return (self._single(image, SETTLE) for image in state.disputed())
        if state.open_draw is not None:
            return self._drawn()
        due = islice(self._second_looks(reviewer), _SECOND_LOOKS)
        return chain(due, () if state.is_stopped else self._groups())

    def _drawn(self) -> Iterator[Item]:
        """Yield the images of the open draw that have no answer, in its order."""
        state = self.review.state
        drawn = [] if state.open_draw is None else state.open_draw.content["images"]
        for at, image in enumerate(drawn, 1):
            if image not in state.parts[DRAW]:
                yield self._single(image, DRAW, at)

    def _second_looks(self, reviewer: str) -> Iterator[Item]:
        return (self._single(image, TWICE) for image, who in self._due.items() if who != reviewer)

    def _single(self, image: str, part: str, position: int | None = None) -> Item:
        [place] = self.review.population.places([image])
        return Item(image, self.review.population.name(place), part, 1, None, image, position)

    def _groups(self) -> Iterator[Item]:
        """Yield the groups that are left, likeliest and least certain ones mixed as asked."""
        walks, seen = (self._walk(0), self._walk(1)), set[int]()
        for look in count(len(self._names) - self.looks_left()):
            # Of every 1 / u looks the last one: the whole part of u times their number grows there.
            which = int((look + 1) * self._uncertain) > int(look * self._uncertain)
            rest = (each for each in chain(walks[which], walks[not which]) if each not in seen)
            item = next(rest, None)
            if item is None:
                return
            seen.add(item)
            yield self._of_group(item)

    def _walk(self, which: int) -> Iterator[int]:
        """Yield the groups that are left in one of the two orders."""
        order, begin = (self._likeliest, self._least_certain)[which], self._begin[which]
        while begin < len(order) and not self._left[order[begin]]:
            begin += 1
        self._begin[which] = begin
        return (int(item) for item in order[begin:] if self._left[item])

    def _of_group(self, item: int) -> Item:
        population = self.review.population
        group = self._group(item)
        left = group[~self._is_done[group]]
        # The likeliest image of what is left stands for all of it.
        place = int(left[np.argmax(self.scores[left])])
        return Item(
            population.digest(place),
            population.name(place),
            QUEUE,
            len(left),
            float(self.scores[place]),
            population.digest(int(self._names[item])),
            int(self._rank[item]),
        )

    def _group(self, item: int) -> np.ndarray:
        return self.review.population.group_of(int(self._names[item]))
