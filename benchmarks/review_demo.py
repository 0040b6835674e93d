"""Play a review of the built-in archive, whose labels are known, to a certificate.

    make review-demo                      # after make demo
    python benchmarks/review_demo.py demo-archive

A scripted reviewer looks through the rows to predict, the likeliest first, stops after some looks
without a hit, and reviews a random draw of the rest. Everything runs through the functions that the
page and the commands use; the review stays in work/review/ beside the others.
"""

import argparse
import csv
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from scripted_review import Script

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.ensemble import rank_stored
from archiveprobe.review.certifying import certify_review
from archiveprobe.review.drawing import DrawWish, declare
from archiveprobe.review.estimating import estimate_share
from archiveprobe.review.queue import Queue
from archiveprobe.review.reviewing import Reviewing
from archiveprobe.review.store import Review, Wish, open_review, reviews
from archiveprobe.task.config import Task, load_task

_IRRELEVANT = 10


def main(words: list[str] | None = None) -> None:
    """Play it, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--system", help="System whose order is reviewed; default: recommended.")
    options = parser.parse_args(words)
    try:
        play(load_task(options.folder), options.folder / "test_labels.csv", options.system)
    except InputError as error:
        sys.exit(f"error: {error}")


def play(task: Task, labels: Path, system: str | None) -> None:
    """Review, stop, draw, review the draw, and print the certificate. Raises InputError."""
    truth = _read(labels)
    system = system or rank_stored(load_dataset(task), lambda _: ([], 1.0)).best
    if system is None:
        raise InputError("no system is recommended: run `make demo`, or name one with --system")
    name = next(name for n in count(1) if (name := f"demo-{n}") not in reviews(task))
    review = open_review(task, Wish(system, name=name))
    opened = review.state.opened
    script = Script(Queue(review), truth)
    print(f"review {name}: {opened['images']} images in {opened['groups']} groups, by {system}")
    script.review(until_irrelevant=_IRRELEVANT)
    print(f"{script.looks} looks; the last {_IRRELEVANT} were no {opened['positive']}")
    print(Reviewing(script.queue, script.reviewer).stop())
    unseen = review.state.stops[-1].content["unseen"]
    if unseen:
        draw = declare(review, DrawWish(unseen - unseen // 10))
        images = list(draw.content["images"])
        print(f"{len(images)} of {unseen} are drawn at random, seed {draw.content['seed']}")
        script.review_all_of(images)
    print()
    print(certify_review(review).record()["sentence"])
    print()
    if unseen:
        for line in estimate_share(review).lines():
            print("  ".join(str(value) for value in line.values()))
    named = _names(review)
    positives = [name for name in named if truth[name] == review.state.positive]
    found = {review.state.reviewed[image].id for image in review.state.found}
    hits = len(found.intersection(positives))
    print(
        f"known to the script only: recall {hits} / {len(positives)} = {hits / len(positives):.3f}"
    )


def _names(review: Review) -> list[str]:
    population = review.population
    return [population.name(at) for at in range(len(population))]


def _read(labels: Path) -> Mapping[str, str]:
    if not labels.is_file():
        raise InputError(f"no file {labels}: run `make demo` first")
    with labels.open(newline="", encoding="utf-8") as stream:
        return {row["image"]: row["label"] for row in csv.DictReader(stream)}


if __name__ == "__main__":
    main()
