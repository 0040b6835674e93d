"""Where to draw: the boundary of two strata of the score, and how many images of each.

A stratum is worth drawing densely if it holds most of what was missed, and is small; the rest then
needs just enough images to show that it holds next to nothing. Which that are depends on where the
missed positives are expected, from chances for every image not reviewed. A wrong expectation costs
images, or the certificate, but never the validity of one (strata.py).

A design certifies if T, the stratified estimate, is at most t, the largest for which no pair of
counts with one more than is allowed has P(T <= t) > alpha. Its power is P(T <= t) of the expected
counts. Both are computed here with binomial samples and a grid of pairs, in a millisecond; what is
certified in the end is computed exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import special

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.calibration import fit

# Designs that are compared: where the boundary is, as a share of the unseen, and which share of the
# images comes from the upper stratum.
_BOUNDARIES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8)
_PARTS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_PAIRS, _STEPS = 17, 12


@dataclass(frozen=True)
class Design:
    """Two strata, the likelier first: images and images to draw of each; expected to certify."""

    sizes: tuple[int, int]
    draws: tuple[int, int]
    power: float


@dataclass(frozen=True)
class Missed:
    """Images not reviewed, the likeliest first, and how many are positive.

    `below` (N + 1,) is the number of positives expected among the first 0..N; `allowed` the largest
    number that still certifies.
    """

    below: np.ndarray
    allowed: int

    @classmethod
    def of(cls, chances: np.ndarray, allowed: int) -> "Missed":
        """Return it for chances (N,), the highest first."""
        return cls(np.append(0.0, np.cumsum(chances)), allowed)

    def counts(self, first: int) -> tuple[float, float]:
        """Expect so many among the `first` images, and the others."""
        return float(self.below[first]), float(self.below[-1] - self.below[first])


def expected_chances(
    seen: np.ndarray, positive: np.ndarray, unseen: np.ndarray, last: int = 5000
) -> np.ndarray:
    """Guess the chances of images (N,) not reviewed, from the answers (n,) of those reviewed.

    `seen` (n,) and `unseen` (N,) are margins, log(p / (1 - p)); those reviewed are in the order of
    the review. A logistic curve through the last of them is extrapolated: where the system's margin
    says nothing of the answers it is flat, and the missed are expected everywhere.
    """
    margins, answers = seen[-last:], positive[-last:].astype(int)
    if not len(margins):
        return np.full(len(unseen), 0.5)
    curve = fit(np.stack([-margins / 2, margins / 2], 1)[None], answers)
    return curve.apply(np.stack([-unseen / 2, unseen / 2], 1))[:, 1]


def at_most(positive: np.ndarray, counts: np.ndarray, share: float) -> np.ndarray:
    """Compute the probability of at most so many of counts, of which a share is drawn.

    Positives are few among the images, so that each is drawn with the chance `share`: binomial,
    here with counts that need not be whole.
    """
    if share >= 1:
        return (positive >= counts).astype(float)
    inside = (positive >= 0) & (positive < counts)
    rest = np.where(inside, counts - positive, 1)
    chance = special.betainc(rest, np.where(inside, positive + 1, 1), 1 - share)
    return np.asarray(np.where(inside, chance, positive >= counts) * (positive >= 0))


def below(limit: float, shares: tuple[float, float], counts: Sequence[np.ndarray]) -> np.ndarray:
    """Compute P(X1 / share1 + X2 / share2 <= limit) of counts (P,) in the strata."""
    (share, share2), (first, second) = shares, counts
    x2 = np.arange(int(limit * share2 + 1e-9) + 1)[:, None]
    chance = np.diff(at_most(x2, second, share2), axis=0, prepend=0)
    below_first = at_most(np.floor((limit - x2 / share2) * share + 1e-9), first, share)
    return np.asarray((chance * below_first).sum(0))


def power_of(missed: Missed, sizes: tuple[int, int], draws: tuple[int, int], alpha: float) -> float:
    """Compute how likely a design is to certify."""
    shares = draws[0] / sizes[0], draws[1] / sizes[1]
    grid = np.linspace(0, 1, _PAIRS) ** 2 * (missed.allowed + 1)
    pairs = grid, missed.allowed + 1 - grid
    low, high = 0.0, float(missed.allowed + 1)
    if below(low, shares, pairs).max() > alpha:
        return 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        holds = below(middle, shares, pairs).max() <= alpha
        low, high = (middle, high) if holds else (low, middle)
    expected = [np.array([count]) for count in missed.counts(sizes[0])]
    return float(below(low, shares, expected)[0])


def best_design(missed: Missed, drawn: int, alpha: float) -> Design:
    """Find the boundary and the draws of each stratum that are likeliest to certify.

    Raises InputError: too few images, or too few to draw, for two strata.
    """
    tried: dict[tuple[int, int], Design | None] = {}

    def power(place: tuple[int, int]) -> float:
        if place not in tried:
            tried[place] = _design(missed, drawn, alpha, place)
        design = tried[place]
        return -1.0 if design is None else design.power

    # Every third design, then from the best of them to its neighbours while these are better.
    best = max(product(range(1, len(_BOUNDARIES), 3), range(1, len(_PARTS), 3)), key=power)
    while True:
        around = [(best[0] + i, best[1] + j) for i, j in product((0, -1, 1), repeat=2)]
        inside = [at for at in around if 0 <= at[0] < len(_BOUNDARIES) and 0 <= at[1] < len(_PARTS)]
        better = max(inside, key=power)
        if power(better) <= power(best):
            break
        best = better
    design = tried[best]
    if design is None:
        images = len(missed.below) - 1
        raise InputError(f"{drawn} of {images} images are too few for two strata: draw without")
    return design


def _design(missed: Missed, drawn: int, alpha: float, place: tuple[int, int]) -> Design | None:
    """Return the design of a boundary and a part, None where there are too few images."""
    images = len(missed.below) - 1
    first = round(_BOUNDARIES[place[0]] * images)
    draw = min(round(_PARTS[place[1]] * drawn), first)
    if draw < 1 or not 1 <= drawn - draw <= images - first:
        return None
    sizes, draws = (first, images - first), (draw, drawn - draw)
    return Design(sizes, draws, power_of(missed, sizes, draws, alpha))
