"""Archives drawn from known sources: a table of them, an archive's rows, and endless new rows."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

FRESH = 20_000
WIDTH = 24
TELLING = slice(6, 18)
VIEWS = {"ridge a": slice(0, 16), "lda b": slice(8, 24)}
OWN_WIDTH = 16
LIKENESS = 0.98
LEAST_OF_A_LABEL = 8
_NEW_GROUPS, _OF_A_NEW_GROUP = 4000, 5


@dataclass(frozen=True)
class Drawn:
    """Rows (n, d), labels (n,), groups (n,), and how much each row counts (n,)."""

    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Source:
    """Two classes whose means lie `distance` apart; an archive has `rows` of them.

    The columns TELLING carry the distance, and two backbones see most of these each. With `systems`
    every one of as many systems has columns of its own instead, each `distance` apart.

    tails: degrees of freedom of Student's t noise, 0 for normal noise.
    mislabelled: share of labels turned round.
    copies: share of rows that are near-duplicates of an earlier one.
    groups: sources that rows come from, 0 for none; each moves its rows by `shift` in every
        column, and its log-odds of the positive class by `lean`.
    uneven: spread of the logarithm of the groups' sizes.
    """

    rows: int
    prevalence: float = 0.353
    distance: float = 2.8
    mislabelled: float = 0.02
    tails: float = 0.0
    copies: float = 0.0
    groups: int = 0
    uneven: float = 0.0
    shift: float = 0.7
    lean: float = 1.0
    systems: int = 0

    def views(self) -> dict[str, slice]:
        """Return the columns that each line sees."""
        if not self.systems:
            return VIEWS
        starts = range(0, OWN_WIDTH * self.systems, OWN_WIDTH)
        return {f"ridge {at}": slice(start, start + OWN_WIDTH) for at, start in enumerate(starts)}

    def archive(self, seed: int) -> Drawn:
        """Return the rows of one archive; draws again while a label has next to no rows."""
        rng = np.random.default_rng([seed, 1])
        while True:
            drawn = self._rows(rng, self._members(rng))
            if min(np.bincount(drawn.y, minlength=2)) >= LEAST_OF_A_LABEL:
                return drawn

    def fresh(self, seed: int) -> Drawn:
        """FRESH new rows, where rows have groups of new groups, each weighted by its size."""
        rng = np.random.default_rng([seed, 2])
        if not self.groups:
            return self._rows(rng, np.arange(FRESH))
        size = self._sizes(rng, _NEW_GROUPS)
        drawn = self._rows(rng, np.repeat(np.arange(_NEW_GROUPS), _OF_A_NEW_GROUP))
        return Drawn(drawn.x, drawn.y, drawn.groups, size[drawn.groups])

    def _sizes(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return np.exp(self.uneven * rng.standard_normal(count))

    def _members(self, rng: np.random.Generator) -> np.ndarray:
        """Group every row (n,); without groups near-duplicates share that of the first."""
        if not self.groups:
            rows = np.arange(self.rows)
            for row in np.flatnonzero(rng.random(self.rows) < self.copies)[1:]:
                rows[row] = rows[rng.integers(row)]
            return rows
        size = self._sizes(rng, self.groups)
        counts = np.maximum(2, np.round(size / size.sum() * self.rows)).astype(int)
        return np.repeat(np.arange(self.groups), counts)

    def _rows(self, rng: np.random.Generator, members: np.ndarray) -> Drawn:
        n, d = len(members), max(OWN_WIDTH * self.systems, WIDTH)
        odds = np.full(n, logit(self.prevalence))
        noise = rng.standard_normal((n, d))
        if self.tails:
            noise /= np.sqrt(rng.chisquare(self.tails, n) / self.tails)[:, None]
        if self.groups:
            odds += self.lean * rng.standard_normal(members.max() + 1)[members]
            moved = self.shift * rng.standard_normal((members.max() + 1, d))[members]
        else:
            moved = np.zeros((n, d))
        true = rng.random(n) < expit(odds)
        y = (true ^ (rng.random(n) < self.mislabelled)).astype(np.int64)
        if not self.groups:
            # A copy alone must look like any other row, or the archive is harder than the truth.
            copy = np.flatnonzero(members != np.arange(n))
            true[copy], y[copy] = true[members[copy]], y[members[copy]]
            own = np.sqrt(1 - LIKENESS**2) * noise[copy]
            noise[copy] = LIKENESS * noise[members[copy]] + own
        x = np.where(true, 1, -1)[:, None] * self._mean(d) + moved + noise
        return Drawn(x, y, members, np.ones(n))

    def _mean(self, width: int) -> np.ndarray:
        """Half the way (d,) from one class to the other."""
        telling = slice(None) if self.systems else TELLING
        way = np.zeros(width)
        way[telling] = 1.0
        apart = OWN_WIDTH if self.systems else way.sum()
        return np.asarray(self.distance / 2 / np.sqrt(apart) * way)


SOURCES = {
    "plain, 150 rows": Source(150, copies=0.2),
    "plain, 400 rows": Source(400, copies=0.2),
    "plain, 1200 rows": Source(1200, copies=0.2),
    "60 rows": Source(60),
    "hard, 150 rows": Source(150, prevalence=0.3, distance=1.2),
    "noisy hard labels": Source(300, distance=1.8, mislabelled=0.2),
    "heavy tails": Source(400, tails=2.5, copies=0.2),
    "5 % positives": Source(600, prevalence=0.05, mislabelled=0.005),
    "2.5 % positives": Source(1000, prevalence=0.025, mislabelled=0.002),
    "10 groups": Source(400, groups=10),
    "10 uneven groups": Source(400, groups=10, uneven=0.8),
    "10 groups, noisy, heavy tails": Source(
        300, distance=2.0, mislabelled=0.1, tails=3, groups=10, uneven=0.5
    ),
    "20 groups": Source(400, groups=20),
    "20 uneven groups": Source(400, groups=20, uneven=0.8),
    "40 groups": Source(400, groups=40),
    "40 uneven groups": Source(400, groups=40, uneven=0.8),
    "100 uneven groups": Source(800, groups=100, uneven=0.8),
    "12 systems at chance": Source(200, prevalence=0.4, distance=0, mislabelled=0, systems=12),
    "12 good systems": Source(200, prevalence=0.4, systems=12),
}
