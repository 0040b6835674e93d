"""Review real images whose labels are hidden, 20 seeds: recall, images looked at, certificates.

    .venv/bin/python benchmarks/review_real.py [--seeds N] [--labelled N]

Needs ../shared. The images are embedded once (one MobileNet, one view). For every seed other rows
keep their labels, a probe learns from them and orders the rest, and a scripted reviewer looks
through it: the probe is fitted anew every 50 looks, reviewing stops after 40 looks in a row without
a hit, and 300 images of the rest are drawn for a certificate of 95 %.
"""

import csv
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import Figure, arguments, at_least, load, report, run
from real_images import IMAGES, write_task
from scripted_review import Script

from archiveprobe.probe.run import Options, run_probes
from archiveprobe.review.certifying import certify_review
from archiveprobe.review.drawing import DrawWish, declare
from archiveprobe.review.queue import Queue
from archiveprobe.review.refit import Refits
from archiveprobe.review.reviewing import Reviewing
from archiveprobe.review.store import Review, Wish, open_review
from archiveprobe.task.config import load_task

BACKBONE, POSITIVE = "mobilenetv2", "destruction"
SYSTEM = f"logistic-{BACKBONE}"
_IRRELEVANT, _DRAWN, _REFIT, _PAGE = 40, 300, 50, 10
# Of 20 certificates that hold with 95 % each, so many or more do in 98 of 100 cases.
_HELD = 17


@dataclass(frozen=True)
class Played:
    """What one review came to, in counts of images; `certified` is a recall."""

    images: int
    positives: int
    found: int
    mistaken: int
    looks: int
    drawn: int
    certified: float
    in_random_order: int

    @property
    def recall(self) -> float:
        """Return the true recall."""
        return self.found / self.positives


def main(words: list[str] | None = None) -> None:
    """Run everything and print the table."""
    parser = arguments(__doc__, "review_real")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--labelled", type=int, default=200)
    parser.add_argument("--images", type=int, default=None)
    options = parser.parse_args(words)
    if not IMAGES.is_dir():
        sys.exit(f"skipped: this benchmark needs the images in {IMAGES}")
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        truth = embed_once(Path(folder) / "once", options.images)
        played = []
        for seed in range(options.seeds):
            played.append(play(Path(folder), seed, options.labelled, truth))
            print(f"seed {seed}: {played[-1]}", file=sys.stderr)
    report(options.json, figures(played), before)


def embed_once(folder: Path, images: int | None) -> Mapping[str, str]:
    """Embed all images, and return their labels by id."""
    folder.mkdir()
    file = write_task(folder, images)
    text = file.read_text().replace('views = "crops6"', 'views = "center"')
    file.write_text(text.replace('["mobilenetv1", "mobilenetv2"]', f'["{BACKBONE}"]'))
    run("embed", file, "--json")
    with (folder / "labels.csv").open(newline="") as stream:
        return {row["image"]: row["label"] for row in csv.DictReader(stream) if row["label"]}


def play(folder: Path, seed: int, labelled: int, truth: Mapping[str, str]) -> Played:
    """Hide all labels but some, and review what they are hidden of."""
    home = folder / f"seed-{seed}"
    shutil.copytree(folder / "once", home)
    rng = np.random.default_rng(seed)
    kept = {str(name) for name in rng.permutation(sorted(truth))[:labelled]}
    with (home / "labels.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label", "split"])
        writer.writerows([name, label if name in kept else "", ""] for name, label in truth.items())
    run("embed", home / "task.toml", "--json")
    task = load_task(home)
    run_probes(task, Options(probes=("logistic",)))
    review = open_review(task, Wish(SYSTEM))
    queue = Queue(review)
    script = Script(queue, truth, refits=Refits(queue, _REFIT), page=_PAGE)
    script.review(until_irrelevant=_IRRELEVANT)
    looks = script.looks
    Reviewing(queue, script.reviewer).stop()
    unseen = review.state.stops[-1].content["unseen"]
    drawn = min(unseen, _DRAWN)
    if drawn:
        declare(review, DrawWish(drawn))
        script.review_all_of(review.state.draws[-1].content["images"])
    certified = certify_review(review).record()["recall_at_least"] or 0.0
    shutil.rmtree(home)
    return _counted(review, truth, looks, drawn, certified)


def _counted(
    review: Review, truth: Mapping[str, str], looks: int, drawn: int, certified: float
) -> Played:
    population = review.population
    names = [population.name(at) for at in range(len(population))]
    positives = sum(truth[name] == POSITIVE for name in names)
    called = [review.state.reviewed[image].id for image in review.state.found]
    found = sum(truth[name] == POSITIVE for name in called)
    # Of images in random order a share of the positives takes the same share of all images.
    in_random_order = round(len(names) * found / positives)
    mistaken = len(called) - found
    return Played(len(names), positives, found, mistaken, looks, drawn, certified, in_random_order)


def figures(played: list[Played]) -> list[Figure]:
    """Sum up the reviews."""

    def mean(name: str) -> float:
        return float(np.mean([getattr(each, name) for each in played]))

    held = sum(each.certified <= each.recall for each in played)
    return [
        Figure("reviews", len(played)),
        Figure("images of each, mean", round(mean("images"), 1)),
        Figure("positives among them, mean", round(mean("positives"), 1)),
        Figure("true recall, mean", round(mean("recall"), 4)),
        Figure("true recall, lowest", round(min(each.recall for each in played), 4)),
        Figure("looks before the draw, mean", round(mean("looks"), 1)),
        Figure("looks in random order for the same recall", round(mean("in_random_order"), 1)),
        Figure("looks, the least possible", round(mean("found"), 1)),
        Figure("images drawn, mean", round(mean("drawn"), 1)),
        Figure("wrongly positive by their group, mean", round(mean("mistaken"), 2)),
        Figure("certified recall, mean", round(mean("certified"), 4)),
        at_least("certificates that hold", held, _HELD * len(played) / 20),
    ]


if __name__ == "__main__":
    main()
