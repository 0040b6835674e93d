"""Does the certified recall hold, and how many images are looked at, where the truth is known?

    .venv/bin/python benchmarks/recall_truth.py [--archives 500] [--kind exchangeable]...

Draws archives of 50,000 images, 5 % positive, of five kinds: exchangeable with the 400 labelled
rows but for the prior; of another prior (2 %); of harder positives; of bursts of near-duplicates,
of up to 300 images that share answer and score; and a useless model. A review goes from the
likeliest image down and stops when a logistic curve through the last 5,000 answers expects a recall
of .98. As many images are drawn as the plan says for .95 with a power of .9; then there are three
certificates: of one draw, of as many in two strata (allocation.py), and of a confidence sequence
that looks after every tenth of half as many again and stops at .95. The same three, of 2,000
images, are made after stopping at the tuned threshold, which keeps recall .95 on the labelled rows.
`false` is how often the certified recall lies above the true one, in the sequence at any look; 5 %
is allowed, within two Monte Carlo errors (.02 at 500). Beside them stands how many images each way
looks at, and the recall that it reaches. `fewer` compares the draw in two strata that has the power
.9 with one draw that has it, each planned from the true recall, in every tenth archive. A sixth
kind, an excellent model, is run with --kind only. Nothing is drawn image by image: counts of
samples are hypergeometric. The five kinds take about eight minutes of a core.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from common import Figure, arguments, at_most, load, report

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.recall.allocation import (
    Design,
    Missed,
    best_design,
    expected_chances,
)
from archiveprobe.evaluate.recall.certificate import certify
from archiveprobe.evaluate.recall.counts import largest
from archiveprobe.evaluate.recall.plan import Expectation, most_missed, plan_draw
from archiveprobe.evaluate.recall.strata import Stratum

IMAGES, LABELLED, WANTED, AIM, CONFIDENCE, POWER = 50_000, 400, 0.95, 0.98, 0.95, 0.9
ALPHA, IN_A_ROW, FIXED, LOOKS, BURST, EVERY = 1 - CONFIDENCE, 50, 2000, 10, 300, 10


def smallest_design(missed: Missed) -> Design:
    """Find the design of two strata with the fewest images, half of all at most, that has power."""

    def too_few(drawn: int) -> bool:
        return best_design(missed, drawn, ALPHA).power < POWER

    drawn = largest(1, (len(missed.below) - 1) // 2, too_few) + 1
    return best_design(missed, drawn, ALPHA)


@dataclass(frozen=True)
class Kind:
    """A kind of archive: share of positives, distance of their mean score, mean size of bursts."""

    prior: float = 0.05
    distance: float = 3.0
    burst: float = 1.0


LABELLED_KIND = Kind(prior=0.3)
KINDS = {
    "exchangeable": Kind(),
    "shifted prior": Kind(prior=0.02),
    "harder positives": Kind(distance=2.2),
    "near-duplicate bursts": Kind(burst=20.0),
    "useless model": Kind(distance=0.0),
    "excellent model": Kind(distance=4.5),
}
FIVE = tuple(KINDS)[:5]


def draw_scores(kind: Kind, images: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and scores (N,), the likeliest first."""
    if kind.burst > 1:
        sizes = np.minimum(rng.geometric(1 / kind.burst, images), BURST)
        owner = np.repeat(np.arange(images), sizes)[:images]
    else:
        owner = np.arange(images)
    truth = (rng.random(images) < kind.prior)[owner]
    own = rng.standard_normal(images) * (0.1 if kind.burst > 1 else 0)
    scores = rng.standard_normal(images)[owner] + own + kind.distance * truth
    order = np.argsort(-scores)
    return truth[order], scores[order]


def tuned_stop(kind: Kind, scores: np.ndarray, rng: np.random.Generator) -> int:
    """Return how many images lie above the threshold of recall .95 on labelled rows."""
    labelled = LABELLED_KIND if kind.distance else Kind(prior=0.3, distance=0)
    truth, seen = draw_scores(labelled, LABELLED, rng)
    threshold = seen[truth][int(np.ceil(WANTED * truth.sum())) - 1]
    return int((scores >= threshold).sum())


def row_stop(truth: np.ndarray) -> int:
    """Return how many images are seen when so many negatives follow each other for the first time.

    Counted from the last positive before: found from the positions of the positives.
    """
    places = np.flatnonzero(np.append(truth, True))
    gaps = np.diff(places, prepend=-1) - 1
    if not (gaps >= IN_A_ROW).any():
        return len(truth)
    first = int(np.argmax(gaps >= IN_A_ROW))
    before = places[first - 1] + 1 if first else 0
    return int(before + IN_A_ROW)


def expected_stop(truth: np.ndarray, scores: np.ndarray) -> tuple[int, np.ndarray]:
    """Return where a recall of .98 is expected, and the chances of the images after it."""
    at = 1000
    while at < len(truth):
        found = truth[:at].sum()
        chances = expected_chances(scores[:at], truth[:at], scores[at:])
        if found and found / (found + chances.sum()) >= AIM:
            return at, chances
        at += max(1000, at // 8)
    return len(truth), np.empty(0)


@dataclass
class Trials:
    """What the archives of a kind show, by name."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Add what one archive shows."""
        self.values.setdefault(name, []).append(float(value))

    def judge(self, name: str, certified: float | None, truth: float) -> None:
        """Add a certificate: false if it says more than the truth, enough if it says .95."""
        recall = 1.0 if certified is None else certified
        self.add(f"{name}: false", recall > truth)
        self.add(f"{name}: certifies .95", recall >= WANTED)


def try_archive(kind: Kind, seed: int, trials: Trials) -> None:
    """Review an archive in every way."""
    rng = np.random.default_rng((seed, int(10 * kind.distance), int(1000 * kind.prior)))
    truth, scores = draw_scores(kind, IMAGES, rng)
    found_by = np.append(0, np.cumsum(truth))
    positives = int(found_by[-1])

    def recall_at(stop: int) -> float:
        return float(found_by[stop] / positives)

    tuned = tuned_stop(kind, scores, rng)
    for name, stop in (("tuned threshold", tuned), (f"{IN_A_ROW} in a row", row_stop(truth))):
        trials.add(f"{name}: images", stop)
        trials.add(f"{name}: recall", recall_at(stop))
        trials.add(f"{name}: reaches .95", recall_at(stop) >= WANTED)
        if stop == tuned and IMAGES - stop > FIXED:
            review = Stopped(f"after the {name}, ", int(found_by[stop]), truth[stop:], trials, rng)
            tenth = len(review.missed) // 10
            sizes = tenth, len(review.missed) - tenth
            draws = min(FIXED // 2, tenth), FIXED - min(FIXED // 2, tenth)
            review.draw_all(FIXED, Design(sizes, draws, 0.0), float(review.missed.mean()))
    trials.add("least possible: images", np.searchsorted(found_by, np.ceil(WANTED * positives)))
    # Where the last of the positives wanted lies on average.
    trials.add("random order: images", np.ceil(WANTED * (IMAGES + 1)))
    stop, chances = expected_stop(truth, scores)
    trials.add("review: images", stop)
    trials.add("review: recall", recall_at(stop))
    if stop == IMAGES:
        return
    found, unseen = int(found_by[stop]), IMAGES - stop
    allowed = most_missed(found, WANTED)
    expected = Expectation(found, unseen, min(round(chances.sum()), allowed))
    drawn = min(plan_draw(expected, WANTED, CONFIDENCE, POWER).draw, unseen)
    if not drawn:
        return
    review = Stopped("", found, truth[stop:], trials, rng)
    try:
        design = best_design(Missed.of(chances, allowed), drawn, ALPHA)
    except InputError:
        return
    review.draw_all(drawn, design, float(chances.mean()))
    if seed % EVERY == 0:
        review.compare_draws(chances, allowed)


@dataclass
class Stopped:
    """A review that has stopped: what it found, and the truth of the images not reviewed."""

    name: str
    found: int
    missed: np.ndarray
    trials: Trials
    rng: np.random.Generator

    @property
    def recall(self) -> float:
        """The true recall."""
        return float(self.found / (self.found + self.missed.sum()))

    def sample(self, part: np.ndarray, drawn: int) -> Stratum:
        """Draw images of a part at random."""
        k = int(self.rng.hypergeometric(part.sum(), (~part).sum(), drawn))
        return Stratum(len(part), drawn, k)

    def draw_all(self, drawn: int, design: Design, expected: float) -> None:
        """Certify by one draw, by two strata and by a sequence."""
        one = [self.sample(self.missed, drawn)]
        first = design.sizes[0]
        parts = zip((self.missed[:first], self.missed[first:]), design.draws, strict=True)
        two = [self.sample(part, draw) for part, draw in parts]
        self.trials.add(f"{self.name}one draw: images", drawn)
        for name, strata in (("one draw", one), ("two strata", two)):
            recall = certify(self.found, strata, CONFIDENCE).recall
            self.trials.judge(self.name + name, recall, self.recall)
        self.draw_sequence(min(drawn * 3 // 2, len(self.missed)), expected)

    def compare_draws(self, chances: np.ndarray, allowed: int) -> None:
        """Compare a draw in two strata with one draw, each planned from the true recall."""
        images, count = len(self.missed), int(self.missed.sum())
        if not 0 < count < 0.9 * allowed:
            return
        plain = plan_draw(Expectation(self.found, images, count), WANTED, CONFIDENCE, POWER).draw
        likely = np.minimum(chances * count / chances.sum(), 1)
        try:
            design = smallest_design(Missed.of(likely, allowed))
        except InputError:
            return
        if design.power < POWER:
            return
        first = design.sizes[0]
        parts = zip((self.missed[:first], self.missed[first:]), design.draws, strict=True)
        self.trials.add("two strata, planned from the truth: fewer", 1 - sum(design.draws) / plain)
        for name, strata in (
            ("one draw", [self.sample(self.missed, plain)]),
            ("two strata", [self.sample(part, draw) for part, draw in parts]),
        ):
            recall = certify(self.found, strata, CONFIDENCE).recall
            self.trials.judge(f"{name}, planned from the truth", recall, self.recall)

    def draw_sequence(self, most: int, expected: float) -> None:
        """Look at a growing draw until it certifies .95."""
        images, positives = len(self.missed), int(self.missed.sum())
        seen, k, recall, false = 0, 0, 0.0, False
        share = min(max(expected, 1 / images), 0.5)
        for look in range(1, LOOKS + 1):
            further = most * look // LOOKS - seen
            left = positives - k
            k += int(self.rng.hypergeometric(left, images - seen - left, further))
            seen += further
            strata = [Stratum(images, seen, k)]
            recall = certify(self.found, strata, CONFIDENCE, expected=share).recall or 0.0
            false |= recall > self.recall
            if recall >= WANTED:
                break
        self.trials.add(f"{self.name}sequence: false", false)
        self.trials.add(f"{self.name}sequence: certifies .95", recall >= WANTED)
        self.trials.add(f"{self.name}sequence: images", seen)


def summary(kind: str, trials: Trials) -> Iterator[Figure]:
    """Return the rows of the table about a kind."""
    for name, values in trials.values.items():
        mean = float(np.mean(values))
        error = float(np.sqrt(ALPHA * (1 - ALPHA) / len(values)))
        if name.endswith(": false"):
            figure = at_most(f"{kind}: {name}", round(mean, 4), ALPHA + 2 * error)
            yield Figure(figure.name, figure.value, f"± {error:.3f}", f"<= {ALPHA:.2f}", figure.met)
        else:
            yield Figure(f"{kind}: {name}", round(mean, 0 if name.endswith("images") else 3))


def main(words: list[str] | None = None) -> None:
    """Run the simulation and print the table."""
    parser = arguments(__doc__, "recall_truth")
    parser.add_argument("--archives", type=int, default=500, help="Archives of each kind.")
    parser.add_argument("--kind", action="append", choices=KINDS, help="Repeatable.")
    options = parser.parse_args(words)
    before, figures = load(), list[Figure]()
    for name in options.kind or FIVE:
        trials = Trials()
        for seed in range(options.archives):
            try_archive(KINDS[name], seed, trials)
        figures += summary(name, trials)
    report(options.json, figures, before)


if __name__ == "__main__":
    main()
