"""The certificate of a review, from its log: recall is at least so much, and what that assumes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.recall.certificate import Certificate, certify
from archiveprobe.evaluate.recall.reviewers import DoubleReview
from archiveprobe.review.decisions import UNSURE
from archiveprobe.review.drawing import Draw, check_second_looks
from archiveprobe.review.images import compare_bytes
from archiveprobe.review.log import Line
from archiveprobe.review.state import CERTIFICATE
from archiveprobe.review.stopped import Stopped
from archiveprobe.review.store import Review


@dataclass(frozen=True)
class Certified:
    """A certificate, and all that `--json` says of it.

    `line` is where it stands in the log, `log` the SHA-256 of that line, which proves all before.
    """

    certificate: Certificate
    about: dict[str, Any]
    line: int
    log: str

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        found = {**self.certificate.record(), **self.about}
        return {**found, "line": self.line, "log": self.log}


def certify_review(review: Review, *, trust_reviewers: bool = False) -> Certified:
    """Certify the recall of a review that stopped and whose draw was reviewed; log it.

    With `trust_reviewers` images reviewed twice do not count.

    Raises:
        InputError: the images have changed, see `Draw`, or the draw is not finished.
    """
    with review.log.locked():
        review.sync()
        review.check_source()
        stopped = Stopped(review)
        positive = review.state.positive
        about: dict[str, Any] = {
            "seed": None,
            "snapshot": review.state.opened["snapshot"],
            "decided_by_group": stopped.decided_by_group,
            **_record_of(review, stopped.line.number),
        }
        reviews = None if trust_reviewers else double_review(review)
        # Errors of reviewers are estimated from first answers; without that, settled ones count.
        answers = stopped.final_answers if reviews is None else stopped.answers
        settings: dict[str, Any] = {
            "reviews": reviews,
            "undecided": answers.count(UNSURE),
            "assumptions": stopped.assumptions,
        }
        found = answers.count(positive)
        if review.state.open_draw is None and not len(stopped.unseen):
            certificate = certify(found, [], 0.95, **settings)
        else:
            draw = Draw(stopped)
            reached = finished(draw)
            about |= _about_draw(draw, reached)
            certificate = _certify_draw(draw, reached, found, settings)
        about |= _of_all_draws(review, certificate.confidence)
        begin = f'Of {about["images"]} images {len(answers)} were reviewed for "{positive}".'
        about["sentence"] = " ".join(
            [begin, certificate.sentence(), *_further(certificate, about), *about.pop("further")]
        )
        line = _log(review, {**certificate.record(), **about})
        return Certified(certificate, about, line.number, line.digest)


def _about_draw(draw: Draw, reached: int) -> dict[str, Any]:
    return {
        "draw": draw.line.number,
        "draw_sha256": draw.line.digest,
        "seed": draw.line.content["seed"],
        "size": draw.wish.size,
        "withdrawn": draw.withdrawn,
        "compared": compare_bytes(draw.review, draw.images[:reached]),
    }


def _certify_draw(draw: Draw, reached: int, found: int, settings: Mapping[str, Any]) -> Certificate:
    """Certify by the first `reached` images of a draw."""
    undecided = [each.answer for each in draw.decided[:reached]].count(UNSURE)
    return certify(
        found,
        draw.sample(reached),
        draw.wish.confidence,
        undecided_drawn=undecided,
        looks=draw.wish.looks,
        expected=draw.line.content["expected_share"],
        **settings,
    )


def finished(draw: Draw) -> int:
    """Return how many images of a draw count: those of the last declared look that is finished.

    Raises:
        InputError: not even the first is.
    """
    size, decided, looks = len(draw.images), len(draw.decided), draw.wish.looks
    # After how many images the draw may be looked at.
    ends = sorted({-(-size * look // looks) for look in range(1, looks + 1)})
    if draw.wish.any_time:
        ends = list(range(1, size + 1))
    reached = max((end for end in ends if end <= decided), default=0)
    if not reached:
        raise InputError(
            f"the draw is not finished: {decided} of {number_of(ends[0], 'image')} drawn have an "
            f"answer; `archiveprobe review {draw.review.named} --draw` shows the others"
        )
    return reached


def double_review(review: Review) -> DoubleReview | None:
    """Count the first answers to images reviewed twice against the settled ones; None of none.

    Where even the settled answer is unsure, the first counts as wrong.

    Raises:
        InputError: second looks are not finished, or reviewers differ on an image that nobody has
            settled.
    """
    check_second_looks(review)
    state, positive = review.state, review.state.positive
    disputed = state.disputed()
    if disputed:
        place = int(review.population.places(disputed[:1])[0])
        raise InputError(
            f"reviewers differ on {number_of(len(disputed), 'image')} (first: "
            f"{review.population.name(place)}) that nobody has settled: `archiveprobe review "
            f"{review.named}` shows them, or leave second looks out with --trust-reviewers"
        )
    counts: Counter[tuple[bool, bool]] = Counter()
    for first, _ in state.pairs():
        said, settled = first.answer == positive, state.settled(first.image)
        counts[said, not said if settled == UNSURE else settled == positive] += 1
    if not counts:
        return None
    return DoubleReview(
        hits=counts[True, True],
        overlooked=counts[False, True],
        mistaken=counts[True, False],
        right_negatives=counts[False, False],
    )


def _record_of(review: Review, stop: int) -> dict[str, Any]:
    """Say what the certificate is about, and who looked at what."""
    opened = review.state.opened
    return {
        "review": review.name,
        "system": opened["system"],
        "population": opened["population"],
        "images": opened["images"],
        "outside": opened["outside"],
        "stop": stop,
        "kappa": review.state.kappa(),
        "reviewers": review.state.reviewers(),
    }


def _further(certificate: Certificate, about: Mapping[str, Any]) -> list[str]:
    """Say what a reader must know of the answers and of the draw."""
    said = []
    if about["decided_by_group"]:
        unseen = number_of(about["decided_by_group"], "image")
        said.append(f"Decided with a near-duplicate, not looked at by anybody: {unseen}.")
    if certificate.drawn != about.get("size", 0):
        said.append(
            f"{about['size']} images were drawn; that these first {certificate.drawn} are looked "
            "at by themselves was declared with the draw."
        )
    if about.get("withdrawn"):
        said.append(
            f"Answers to images drawn were taken back: {number_of(about['withdrawn'], 'time')}."
        )
    if certificate.unseen and not about["compared"]:
        said.append("The images were not at hand: their bytes were not compared.")
    return said


def _of_all_draws(review: Review, confidence: float) -> dict[str, Any]:
    """Say how sure all certificates of the review are together: each draw spends its share."""
    earlier = [line.content["wish"]["confidence"] for line in review.state.draws]
    together = 1 - sum(1 - each for each in earlier) if len(earlier) > 1 else confidence
    further = []
    if len(earlier) > 1:
        further = [
            f"It is draw {len(earlier)} of this review: its certificates all hold together with a "
            f"confidence of {100 * max(together, 0):g} %."
        ]
    outside = review.state.opened["outside"]
    if outside:
        further.append(f"Left out, because nobody can read them: {number_of(outside, 'image')}.")
    return {"confidence_of_all_draws": max(together, 0.0), "further": further}


def _log(review: Review, content: dict[str, Any]) -> Line:
    """Write a certificate into the log, but not twice in a row; return its line."""
    last = review.log.lines[-1]
    if last.kind == CERTIFICATE and last.content == content:
        return last
    [line] = review.log.append(CERTIFICATE, [content])
    review.sync()
    return line
