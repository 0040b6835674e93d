"""Random draws of images that were not reviewed, declared in the log before anybody looks at them.

Reviewing stops; then a draw is declared, and its seed, from the operating system, is written into
the log together with how many images it draws, of which strata, and how often it may be looked at.
Its images are those of a stratum with the smallest SHA-256 of "<seed>:<digest of the image>", which
anybody can compute again, with no library, from the line of the draw and the images of the review.
Who knew the seed before could look which images it draws, and stop, draw more, or not draw at all
as it pleases. So there is no seed before the draw is declared, and every draw that was declared
counts: one stop has one draw, and a second draw costs confidence.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from heapq import nsmallest
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.recall.allocation import Missed, best_design
from archiveprobe.evaluate.recall.plan import most_missed
from archiveprobe.evaluate.recall.strata import Stratum
from archiveprobe.review.decisions import DRAW, UNSURE, WITHDRAWAL, Decision
from archiveprobe.review.log import Line
from archiveprobe.review.state import DRAWN
from archiveprobe.review.stopped import Stopped
from archiveprobe.review.store import Review


@dataclass(frozen=True)
class DrawWish:
    """What to draw: how many images, in two strata or not, and how often it may be looked at.

    `recall` is what strata are planned for, and `expect_recall` what a draw that may be looked at
    at any time is narrowest at; both may be wrong. The confidence is that of the certificate.
    """

    size: int
    strata: bool = False
    looks: int = 1
    any_time: bool = False
    recall: float = 0.95
    confidence: float = 0.95
    expect_recall: float = 0.98


class Draw:
    """The draw of a review after its last stop, proved to be what its seed gives.

    Raises:
        InputError: nothing was drawn; something was looked at too early; or the draw is not what
            its seed gives.
    """

    def __init__(self, stopped: Stopped) -> None:
        self.stopped, self.review = stopped, stopped.review
        review, line = self.review, self.review.state.open_draw
        if line is None:
            raise InputError(
                f"nothing was drawn since reviewing stopped: `archiveprobe certify "
                f"{review.named} --plan` says how many, `--draw N` draws them"
            )
        self.line, self.wish = line, DrawWish(**line.content["wish"])
        self.images: list[str] = list(line.content["images"])
        stopped.check_unseen(line.number, self.images)
        sizes = [each["drawn"] for each in line.content["strata"]]
        boundary = line.content["strata"][0]["size"] if len(sizes) > 1 else None
        # Strata of other images than those not reviewed cannot be drawn from.
        is_whole = sum(each["size"] for each in line.content["strata"]) == len(stopped.unseen)
        seed, record = str(line.content["seed"]), (self.images, line.content["strata"])
        if not is_whole or draw_images(review, seed, stopped.unseen, sizes, boundary) != record:
            raise InputError(
                f"{review.log.file}: the draw of line {line.number} is not what its seed gives: "
                "--resume the review, stop, and draw anew"
            )

    @cached_property
    def decided(self) -> list[Decision]:
        """Return the decisions of the images drawn, in their order, up to the first without one."""
        known = self.review.state.parts[DRAW]
        first = next((at for at, each in enumerate(self.images) if each not in known), None)
        return [known[image] for image in self.images[:first]]

    @property
    def withdrawn(self) -> int:
        """Count the answers to images drawn that were taken back."""
        later = self.review.log.lines[self.line.number :]
        return sum(each.kind == WITHDRAWAL and each.content["part"] == DRAW for each in later)

    def sample(self, count: int) -> list[Stratum]:
        """Return the strata with the first `count` images as their samples.

        An image that a reviewer was unsure of counts as positive, so that no limit is too low.
        """
        positive = (self.review.state.positive, UNSURE)
        parts = np.array(part_of_images(self.line.content["strata"])[:count], int)
        yes = np.array([each.answer in positive for each in self.decided[:count]], bool)
        return [
            Stratum(each["size"], int((parts == at).sum()), int((yes & (parts == at)).sum()))
            for at, each in enumerate(self.line.content["strata"])
        ]


def draw_images(
    review: Review, seed: str, unseen: np.ndarray, sizes: list[int], boundary: int | None
) -> tuple[list[str], list[dict[str, Any]]]:
    """Draw images; of two strata the first `boundary` of the unseen are one.

    Returns their digests in the order of the draw, in which every part of it holds the same share
    of each stratum, and the strata.
    """
    parts = [unseen] if boundary is None else [unseen[:boundary], unseen[boundary:]]
    orders: list[list[str]] = []

    def rank(digest: str) -> bytes:
        return hashlib.sha256(f"{seed}:{digest}".encode()).digest()

    strata: list[dict[str, Any]] = []
    for part, size in zip(parts, sizes, strict=True):
        digests = (review.population.digest(int(place)) for place in part)
        orders.append(nsmallest(size, digests, key=rank))
        lowest = float(review.population.scores[part].min()) if len(part) else None
        strata.append({"size": len(part), "drawn": size, "lowest_score": lowest})
    ends = [iter(order) for order in orders]
    return [next(ends[part]) for part in part_of_images(strata)], strata


def part_of_images(strata: list[Mapping[str, Any]] | list[dict[str, Any]]) -> list[int]:
    """Return the stratum of every image in the order of the draw."""
    places = [
        ((at + 0.5) / each["drawn"], part)
        for part, each in enumerate(strata)
        for at in range(each["drawn"])
    ]
    return [part for _, part in sorted(places)]


def check_second_looks(review: Review) -> None:
    """Refuse to go on while images wait for a second reviewer. Raises InputError.

    Those that had their second look first are no random sample: likely images come first.
    """
    waiting = len(review.state.waiting_for_second())
    if waiting:
        raise InputError(
            f"{number_of(waiting, 'image')} of the review {review.name} wait for a second "
            "reviewer: finish them before the draw, or leave second looks out with "
            "--trust-reviewers"
        )


def declare(review: Review, wish: DrawWish, *, trust_reviewers: bool = False) -> Line:
    """Declare a draw, and write it into the log.

    With `trust_reviewers` second looks need not be finished; the certificate does without them.

    Raises:
        InputError: see `Draw`; there was a draw since the stop; second looks are not finished; or
            there are too few images.
    """
    with review.log.locked():
        review.sync()
        review.check_source()
        stopped = Stopped(review)
        if not trust_reviewers:
            check_second_looks(review)
        if review.state.open_draw is not None:
            line = review.state.open_draw
            raise InputError(
                f"{number_of(len(line.content['images']), 'image')} were drawn already (line "
                f"{line.number}): one stop has one draw; --resume the review to go on"
            )
        unseen = stopped.unseen
        if not 0 < wish.size <= len(unseen):
            raise InputError(
                f"cannot draw {wish.size} of {number_of(len(unseen), 'image')} not reviewed"
            )
        sizes, boundary = [wish.size], None
        if wish.strata:
            sizes, boundary = _two_strata(stopped, wish)
        seed = secrets.token_hex(16)
        images, strata = draw_images(review, seed, unseen, sizes, boundary)
        stopped.check_unseen(len(review.log.lines) + 1, images)
        content = {
            "stop": stopped.line.number,
            "seed": seed,
            "wish": asdict(wish),
            "expected_share": _expected_share(stopped, wish),
            "strata": strata,
            "images": images,
        }
        [line] = review.log.append(DRAWN, [content])
        review.sync()
    return line


def _expected_share(stopped: Stopped, wish: DrawWish) -> float | None:
    """Return the share of positives among the unseen at which a sequence is narrowest."""
    if not wish.any_time:
        return None
    missed = stopped.found * (1 - wish.expect_recall) / wish.expect_recall
    return min(max(missed, 1) / (len(stopped.unseen) + 1), 0.5)


def _two_strata(stopped: Stopped, wish: DrawWish) -> tuple[list[int], int]:
    """Choose the images to draw of two strata, and how many the first holds."""
    missed = Missed.of(stopped.chances(), most_missed(stopped.found, wish.recall))
    design = best_design(missed, wish.size, (1 - wish.confidence) / wish.looks)
    return list(design.draws), design.sizes[0]
