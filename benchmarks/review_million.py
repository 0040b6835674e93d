"""What a review of 1,000,000 images takes: the next page of the queue, a decision, a refit.

    .venv/bin/python benchmarks/review_million.py [--images N] [--decisions N]

Embeddings of 512 numbers are drawn around two means, a cache holds them all, and a logistic probe
of 1,000 labelled rows scores them. One image in ten belongs to a group of five, which was drawn as
well: how long near-duplicates take to find is measured by near_duplicates.py. Needs 3 GB of disk.
"""

import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from common import Figure, arguments, at_most, load, report, timed
from large_task import draw_embeddings

from archiveprobe.cache.spec import find_caches
from archiveprobe.cache.store import Writer
from archiveprobe.evaluate.dataset import Rows, load_dataset
from archiveprobe.predict.rank.candidates import Candidates
from archiveprobe.predict.rank.scores import least_certain
from archiveprobe.predict.system_digest import system_digest
from archiveprobe.predict.systems import load_system
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.review.population import collect, write_population
from archiveprobe.review.queue import Queue
from archiveprobe.review.refit import Refits
from archiveprobe.review.reviewing import Given, Reviewing
from archiveprobe.review.state import OPENED
from archiveprobe.review.store import Review
from archiveprobe.task.config import Task, load_task

NAME, SYSTEM, WIDTH, PAGE = "drawn-a", "logistic-drawn-a", 512, 20
_BLOCK, _ONE_BY_ONE = 16_384, 200
_NEXT_SECONDS, _REFIT_SECONDS, _MEMORY = 0.5, 5.0, 4.0


def main(words: list[str] | None = None) -> None:
    """Run everything and print the table."""
    parser = arguments(__doc__, "review_million")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--labelled", type=int, default=1_000)
    parser.add_argument("--decisions", type=int, default=5_000)
    options = parser.parse_args(words)
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        task, drawing = timed(lambda: draw(Path(folder), options.labelled, options.images))
        print(f"drawn in {drawing:.0f} s", file=sys.stderr)
        figures = list(measure(task, options.images, options.decisions))
    report(options.json, figures, before)


def draw(folder: Path, labelled: int, images: int) -> Task:
    """Draw a task and a probe on it, and put the embeddings of all images into its cache."""
    task = draw_embeddings(folder, labelled, 10, {NAME: WIDTH})
    run_probes(task, Options(probes=("logistic",), workers=1))
    [record] = find_caches(task.work / "cache", NAME)
    rng = np.random.default_rng(1)
    offset = rng.normal(size=WIDTH)
    with Writer.open(record.folder, record.fingerprint, record.request) as writer:
        for start in range(0, images, _BLOCK):
            count = min(_BLOCK, images - start)
            is_positive = rng.random(count) < 0.02
            rows = rng.normal(size=(count, WIDTH)).astype(np.float32)
            rows += 0.2 * np.outer(is_positive, offset).astype(np.float32)
            for at, row in enumerate(rows, start):
                writer.add(key_of(at), row[None])
    return load_task(folder)


def key_of(number: int) -> bytes:
    """Return the key of an image that was never drawn."""
    return hashlib.sha256(f"image {number}".encode()).digest()


def measure(task: Task, images: int, decisions: int) -> list[Figure]:
    """Open the review, decide, and measure what people wait for."""
    review, opening = timed(lambda: begin(task, images))
    queue, loading = timed(lambda: Queue(Review(task, review.name)))
    refits, reading = timed(lambda: Refits(queue, decisions))
    reviewing = Reviewing(queue, "script")
    rng = np.random.default_rng(2)
    waits, saved = list[float](), list[float]()

    def decide(images: list[str]) -> None:
        # At random: what is learned does not matter here.
        labels = rng.choice(["intact", "destroyed"], len(images)).tolist()
        reviewing.decide([Given(*each) for each in zip(images, labels, strict=True)])

    while queue.review.state.looks() < decisions:
        items, seconds = timed(lambda: queue.next("script", PAGE))
        waits.append(seconds)
        if len(saved) < _ONE_BY_ONE:
            saved += [timed(partial(decide, [item.image]))[1] for item in items]
        else:
            decide([item.image for item in items])
    started, used = time.perf_counter(), time.process_time()
    assert refits.run_if_due()
    refitting, processor = time.perf_counter() - started, time.process_time() - used
    waits.append(timed(lambda: queue.next("script", PAGE))[1])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return [
        Figure("images", images),
        Figure("begin the review, without near-duplicates", round(opening, 1), "s"),
        Figure("go on with it", round(loading, 1), "s"),
        Figure("read the embeddings once, for refits", round(reading, 1), "s"),
        at_most(f"next page of {PAGE}, the slowest", round(max(waits), 3), _NEXT_SECONDS, "s"),
        Figure("keep one decision, median", round(float(np.median(saved)), 4), "s"),
        at_most(f"refit on {decisions} decisions", round(refitting, 2), _REFIT_SECONDS, "s"),
        Figure("the same, processor time", round(processor, 2), "s"),
        at_most("peak of memory", round(memory, 2), _MEMORY, "GB"),
    ]


def begin(task: Task, images: int) -> Review:
    """Begin a review of images that lie nowhere, scored by the probe from the cache."""
    dataset = load_dataset(task)
    system = load_system(dataset, SYSTEM)

    def blocks() -> Iterator[Candidates]:
        for start in range(0, images, _BLOCK):
            keys = [key_of(at) for at in range(start, min(start + _BLOCK, images))]
            ids = [f"{at:07}.jpg" for at in range(start, start + len(keys))]
            rows = Rows(np.array(ids), keys, [None] * len(keys))
            proba = system.answer(rows).proba
            yield Candidates(ids, [key.hex() for key in keys], [None] * len(keys), proba)

    population, _ = collect(blocks(), dataset.positive, least_certain(dataset.positive, None))
    groups = np.arange(images)
    # The likeliest of five images in a row names their group.
    for start in range(0, images // 10, 5):
        places = np.arange(start, min(start + 5, images))
        groups[places] = places[np.argmax(population.scores[places])]
    review = Review(task, "drawn")
    content = {
        "task": task.name,
        "system": SYSTEM,
        "system_digest": system_digest(task, SYSTEM),
        "source": None,
        "source_digest": "",
        "snapshot": dataset.snapshot_digest,
        "population": write_population(review.folder, replace(population, groups=groups)),
        "images": images,
        "outside": 0,
        "classes": list(dataset.classes),
        "positive": dataset.classes[dataset.positive],
        "threshold": None,
        "similarity": None,
        "twice": 0.05,
        "seed": "drawn",
        "version": "",
    }
    review.log.append(OPENED, [content])
    review.sync()
    return review


if __name__ == "__main__":
    main()
