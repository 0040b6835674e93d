"""How many images of a whole archive are positive: from the review, its draw and the scores."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.prevalence import Part, Share, plain_share, predicted_share
from archiveprobe.evaluate.recall.certificate import RANDOM, RIGHT
from archiveprobe.review.certifying import finished
from archiveprobe.review.decisions import UNSURE
from archiveprobe.review.drawing import Draw, part_of_images
from archiveprobe.review.images import compare_bytes
from archiveprobe.review.state import ESTIMATE
from archiveprobe.review.stopped import Stopped
from archiveprobe.review.store import Review


@dataclass(frozen=True)
class Estimated:
    """The share of positive images, with what the threshold and the sample alone would say."""

    share: Share
    sample_alone: Share | None
    threshold_alone: float | None
    about: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        alone = None if self.sample_alone is None else self.sample_alone.record()
        return {
            **self.share.record(),
            "sample_alone": alone,
            "threshold_alone": self.threshold_alone,
            **self.about,
        }

    def lines(self) -> list[dict[str, str]]:
        """Return the rows of a table for people."""
        scores = "no scores used" if self.share.method.startswith("exact") else "scores and sample"
        named = [(f"estimate, {scores}", self.share), ("the sample alone", self.sample_alone)]
        images = self.about["images"]
        rows = [
            {
                "from": name,
                "share": f"{100 * each.estimate:.2f} %",
                f"{100 * each.confidence:g} % interval": f"{100 * each.low:.2f} to "
                f"{100 * each.high:.2f} %",
                "images": f"{each.estimate * images:.0f} ({each.low * images:.0f} to "
                f"{each.high * images:.0f})",
            }
            for name, each in named
            if each is not None
        ]
        if self.threshold_alone is not None:
            row = {"from": "the threshold alone", "share": f"{100 * self.threshold_alone:.2f} %"}
            rows.append({**row, "images": f"{self.threshold_alone * images:.0f}"})
        return rows


def estimate_share(review: Review) -> Estimated:
    """Estimate the share of positive images of all images of a review, and log it.

    What was reviewed is known; of the others the draw is the sample. An image that a reviewer was
    unsure of counts as negative for the lower end, and as positive for the upper one.

    Raises:
        InputError: the images have changed, or the draw is not finished, or was looked at more than
            once.
    """
    with review.log.locked():
        review.sync()
        review.check_source()
        stopped = Stopped(review)
        answers = stopped.final_answers
        yes, unsure = (answers.count(each) for each in (review.state.positive, UNSURE))
        draw, sample = None, []
        if review.state.open_draw is None and not len(stopped.unseen):
            share = _known(yes, unsure, len(review.population))
            alone = None
        else:
            draw = Draw(stopped)
            if finished(draw) < len(draw.images):
                raise InputError(
                    f"{len(draw.decided)} of {len(draw.images)} images drawn have an answer: an "
                    "estimate needs all of them"
                )
            compare_bytes(review, draw.images)
            sample = [each.answer for each in draw.decided]
            share = _between(_share(draw, yes, ()), _share(draw, yes + unsure, (UNSURE,)))
            alone = _sample_alone(draw, yes, unsure)
        threshold, scores = review.state.opened["threshold"], review.population.scores
        about = {
            "images": len(review.population),
            "outside": review.state.opened["outside"],
            "reviewed": len(answers),
            "found": yes,
            "unsure": unsure + sample.count(UNSURE),
            "drawn": len(sample),
            "positive": sample.count(review.state.positive),
            "threshold": threshold,
            "draw": None if draw is None else draw.line.number,
            "seed": None if draw is None else draw.line.content["seed"],
            "snapshot": review.state.opened["snapshot"],
            "assumes": [*([RANDOM] if draw else []), RIGHT, *stopped.assumptions],
        }
        above = None if threshold is None else float((scores > threshold).mean())
        estimated = Estimated(share, alone, above, about)
        review.log.append(ESTIMATE, [estimated.record()])
        review.sync()
        return estimated


def _known(yes: int, unsure: int, images: int) -> Share:
    """Return the share of images that were all reviewed, of which nothing is left to chance."""
    low, high = yes / images, (yes + unsure) / images
    return Share((low + high) / 2, low, high, 1.0, "exact: everything was reviewed")


def _sample_alone(draw: Draw, yes: int, unsure: int) -> Share | None:
    """Estimate without scores, from a draw of one stratum; None from one of two."""
    if len(draw.line.content["strata"]) > 1:
        return None
    return _between(_plain(draw, yes, ()), _plain(draw, yes + unsure, (UNSURE,)))


def _positive(draw: Draw, unsure: tuple[str, ...]) -> np.ndarray:
    """Return which images drawn (n,) are positive, with those that have such an answer."""
    wanted = (draw.review.state.positive, *unsure)
    return np.array([each.answer in wanted for each in draw.decided], bool)


def _share(draw: Draw, found: int, unsure: tuple[str, ...]) -> Share:
    """Estimate the share of all images from the found ones and the sample of the others."""
    population, unseen = draw.review.population, draw.stopped.unseen
    scores = population.scores
    strata = draw.line.content["strata"]
    owner, answers = np.array(part_of_images(strata)), _positive(draw, unsure)
    sampled = scores[population.places(draw.images)]
    parts, start = [], 0
    for at, each in enumerate(strata):
        rows = scores[unseen[start : start + each["size"]]]
        parts.append(Part(rows, sampled[owner == at], answers[owner == at]))
        start += each["size"]
    return _of_all(draw, found, predicted_share(parts, draw.wish.confidence))


def _plain(draw: Draw, found: int, unsure: tuple[str, ...]) -> Share:
    """Estimate the share of all images without predictions, from a draw of one stratum."""
    size = int(draw.line.content["strata"][0]["size"])
    return _of_all(draw, found, plain_share(_positive(draw, unsure), size, draw.wish.confidence))


def _of_all(draw: Draw, found: int, unseen: Share) -> Share:
    """Turn the share of the images not reviewed into that of all."""
    images = len(draw.review.population)
    count = sum(each["size"] for each in draw.line.content["strata"])
    ends = [
        (found + value * count) / images for value in (unseen.estimate, unseen.low, unseen.high)
    ]
    return replace(unseen, **dict(zip(("estimate", "low", "high"), ends, strict=True)))


def _between(low: Share, high: Share) -> Share:
    """Return the share that two agree on: the lowest and the highest end."""
    return replace(low, estimate=(low.estimate + high.estimate) / 2, high=high.high)
