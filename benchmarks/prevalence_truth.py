"""Do intervals of an archive's share of positives hold, and how much narrower do predictions make?

    .venv/bin/python benchmarks/prevalence_truth.py [--archives 500]

Draws archives of 20,000 images of five kinds: as the labelled rows (30 % positive); of another
prior (5 %); of other images (covariate shift: fewer that look positive, the same chance of each);
another prior of other images; harder positives. A system, calibrated on rows like the labelled
ones, gives every image a probability: a very good, a good and a useless one. Of each archive four
random samples of 300 and of 1,000 images are reviewed, and `predicted_share` gives an interval for
the share of positives, whose truth is known. `narrower` compares its mean width with that of the
exact interval of the same sample without predictions, and with Wilson's approximate one. The
threshold alone says the share of probabilities above one half: its mean error stands beside.
Coverage has a Monte Carlo error of .005 at 500 archives. The figures take about a minute of a core.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from common import Figure, arguments, at_least, load, report
from scipy import special, stats

from archiveprobe.evaluate.prevalence import Part, plain_share, predicted_share

IMAGES, SAMPLES, SIZES, PRIOR = 20_000, 4, (300, 1000), 0.3
SYSTEMS = {"very good": 4.0, "good": 3.0, "useless": 0.0}
"""Distance of the mean scores of positives and negatives, in standard deviations."""
GOOD, LOW, HIGH = ("very good", "good"), 0.93, 0.97
# One run in so many gives the exact interval of the sample alone, which takes longest.
EVERY = 20


@dataclass(frozen=True)
class Kind:
    """A kind of archive: share of positives, shift of all images, of positives, in deviations."""

    prior: float = PRIOR
    shift: float = 0.0
    harder: float = 0.0


KINDS = {
    "no shift": Kind(),
    "prior shift": Kind(prior=0.05),
    "covariate shift": Kind(shift=-0.7),
    "prior and covariate shift": Kind(prior=0.1, shift=-0.5),
    "harder positives": Kind(harder=0.7),
}


def archive(kind: Kind, distance: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the truth (N,) and the probabilities (N,) that a system gives the images.

    With scores s of unit variance around 0 and d, log(P(1 | s) / P(0 | s)) is d s - d^2 / 2 plus
    that of the prior. Under covariate shift s moves, and the truth follows that chance.
    """
    positive = rng.random(IMAGES) < kind.prior
    score = rng.standard_normal(IMAGES) + (distance - kind.harder) * positive + kind.shift

    def chance(prior: float) -> np.ndarray:
        margin = distance * score - distance**2 / 2 + special.logit(prior)
        return np.asarray(special.expit(margin))

    if kind.shift:
        positive = rng.random(IMAGES) < chance(kind.prior)
    return positive, chance(PRIOR)


def runs(kind: Kind, distance: float, size: int, archives: int) -> dict[str, np.ndarray]:
    """Estimate the share of many archives from samples of a size."""
    rng = np.random.default_rng((size, int(distance)))
    found: dict[str, list[float]] = {name: [] for name in ("holds", "width", "plain", "wilson")}
    found["threshold"] = []
    for number in range(archives):
        truth, p = archive(kind, distance, rng)
        share = truth.mean()
        found["threshold"].append(abs((p > 0.5).mean() - share))
        for again in range(SAMPLES):
            rows = rng.choice(IMAGES, size, replace=False)
            interval = predicted_share([Part(p, p[rows], truth[rows])])
            found["holds"].append(interval.low <= share <= interval.high)
            found["width"].append(interval.high - interval.low)
            if (number * SAMPLES + again) % EVERY == 0:
                alone = plain_share(truth[rows], IMAGES)
                found["plain"].append(alone.high - alone.low)
            wilson = stats.binomtest(int(truth[rows].sum()), size).proportion_ci(method="wilson")
            found["wilson"].append(wilson.high - wilson.low)
    return {name: np.array(values, float) for name, values in found.items()}


def summary(about: str, found: dict[str, np.ndarray], good: bool) -> Iterator[Figure]:
    """Return the rows of the table about one kind of archive and system."""
    held, count = float(found["holds"].mean()), len(found["holds"])
    error = float(np.sqrt(0.95 * 0.05 / count))
    met = LOW - error <= held <= HIGH + error
    yield Figure(f"{about}: cover", round(held, 4), f"± {error:.4f}", f"{LOW} to {HIGH}", met)
    narrower, of_wilson = (
        round(float(1 - found["width"].mean() / found[other].mean()), 3)
        for other in ("plain", "wilson")
    )
    name = f"{about}: narrower than the exact interval"
    yield at_least(name, narrower, 0.3) if good else Figure(name, narrower)
    yield Figure(f"{about}: narrower than Wilson's interval", of_wilson)
    error_alone = round(float(found["threshold"].mean()), 4)
    yield Figure(f"{about}: mean error of the threshold alone", error_alone)


def main(words: list[str] | None = None) -> None:
    """Run the simulation and print the table."""
    parser = arguments(__doc__, "prevalence_truth")
    parser.add_argument("--archives", type=int, default=500, help="Archives of each kind.")
    options = parser.parse_args(words)
    before, figures = load(), list[Figure]()
    for name, kind in KINDS.items():
        for system, distance in SYSTEMS.items():
            for size in SIZES:
                found = runs(kind, distance, size, options.archives)
                about = f"{name}, {system} system, {size} reviewed"
                figures += summary(about, found, system in GOOD)
    report(options.json, figures, before)


if __name__ == "__main__":
    main()
