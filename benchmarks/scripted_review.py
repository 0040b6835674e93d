"""A scripted reviewer, who knows the labels: it decides what the queue gives, as people do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archiveprobe.review.queue import Queue
from archiveprobe.review.refit import Refits
from archiveprobe.review.reviewing import Given, Reviewing

UNBLURRED = "unblurred"


@dataclass
class Script:
    """Reviews images by their labels, by id; `looks` counts the images it was shown."""

    queue: Queue
    truth: Mapping[str, str]
    reviewer: str = "script"
    refits: Refits | None = None
    page: int = 1
    looks: int = 0

    def review(self, *, until_irrelevant: int | None = None) -> None:
        """Decide a page after the other until nothing is left, or so many in a row are no hit."""
        positive, misses = self.queue.review.state.positive, 0
        reviewing = Reviewing(self.queue, self.reviewer)
        while until_irrelevant is None or misses < until_irrelevant:
            items = self.queue.next(self.reviewer, self.page)
            if not items:
                return
            answers = [self.truth[item.id] for item in items]
            given = zip(items, answers, strict=True)
            reviewing.decide([Given(item.image, answer, UNBLURRED) for item, answer in given])
            self.looks += len(items)
            for answer in answers:
                misses = 0 if answer == positive else misses + 1
            if self.refits is not None:
                self.refits.run_if_due()

    def review_all_of(self, images: Sequence[str]) -> None:
        """Decide images (SHA-256) of an open draw at once."""
        population = self.queue.review.population
        places = population.places(images).tolist()
        given = [
            Given(image, self.truth[population.name(place)], UNBLURRED)
            for image, place in zip(images, places, strict=True)
        ]
        Reviewing(self.queue, self.reviewer).decide(given)
        self.looks += len(given)

    def found(self) -> int:
        """Count the positives found."""
        return len(self.queue.review.state.found)
