"""Picking among systems: the simplest that is not worse, and what such a pick is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from archiveprobe.evaluate.intervals import grouped_weights, standard_error
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.predictions import Predictions, check_shared_folds
from archiveprobe.evaluate.variance import fold_shift, group_sums, influence

_RESAMPLES = 1000


@dataclass(frozen=True)
class Choice:
    """The system to prefer, the one that scores highest, how much higher, and the error of that."""

    pick: int
    first: int
    gap: float
    error: float


@dataclass(frozen=True)
class Candidates:
    """Systems to pick among: their figures (S,), and each group's influence on them (S, G).

    `sizes` (G,) are the groups' shares of the rows. `error` (S, S) is the standard error of the
    difference of two figures.
    """

    scores: np.ndarray
    influence: np.ndarray
    sizes: np.ndarray
    error: np.ndarray
    complexity: np.ndarray
    caution: float

    def pick(self, scores: np.ndarray) -> Choice:
        """Pick the system to prefer at these figures (S,)."""
        first = int(scores.argmax())
        error = self.error[first]
        close = scores[first] - scores <= self.caution * error + 1e-12
        order = np.lexsort((-scores, self.complexity))
        pick = int(order[close[order]][0])
        return Choice(pick, first, float(scores[first] - scores[pick]), float(error[pick]))

    def resample(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Let B resamples pick (B,); their scores (B, S), and those of the groups left out.

        Figures are linear in the groups' weights, so that small shares of rows bias no F1; the mean
        over resamples is made that of all rows.
        """
        groups = np.arange(len(self.sizes))
        drawn = grouped_weights(groups, _RESAMPLES, seed=1).astype(np.float64)
        drawn = drawn[(drawn == 0).any(1)]
        if not len(drawn):
            # A single group has nothing outside it.
            return np.array([self.pick(self.scores).pick]), self.scores[None], self.scores[None]
        inside, outside = self._figures(drawn), self._figures((drawn == 0).astype(np.float64))
        return np.array([self.pick(scores).pick for scores in inside]), inside, outside

    def _figures(self, weights: np.ndarray) -> np.ndarray:
        moved = weights @ self.influence.T / (weights @ self.sizes)[:, None]
        return np.asarray(self.scores + moved - moved.mean(0))


def candidates_of(systems: Sequence[Predictions], caution: float) -> Candidates:
    """Put systems side by side.

    Raises:
        InputError: they were held out in different folds.
    """
    check_shared_folds(list(systems))
    first = systems[0]
    classes = len(first.classes)
    members = np.unique(first.groups, return_inverse=True)[1]
    moves = [
        influence(first.labels, system.decision, classes, "macro_f1").mean(0) for system in systems
    ]
    sums = group_sums(np.stack(moves), members)
    sizes = np.bincount(members) / len(members)
    apart = ((sums[:, None] - sums) ** 2).sum(-1)
    return Candidates(
        np.array([macro_f1(system.labels, system.decision, classes) for system in systems]),
        sums,
        sizes,
        np.sqrt(apart * len(sizes) / max(1, len(sizes) - 1)),
        np.array([float(system.origin.get("complexity", 0.0)) for system in systems]),
        caution,
    )


@dataclass(frozen=True)
class ExpectedScore:
    """What a pick is worth: `share` (S,) of resamples that pick each system, and their figure.

    `outside` is the score on groups that did not pick, `leak` what their labels had told to the
    models that did, `shift` what the mean figure of models lies above that of pooled decisions.
    """

    share: np.ndarray
    outside: float
    leak: float
    shift: float


def expected_score(candidates: Candidates, systems: Sequence[Predictions]) -> ExpectedScore:
    """Estimate what picking among systems is worth on new rows.

    Resamples of groups pick, and the groups that each has left out score what it picked: BBC-CV of
    Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the out-of-sample predictions for
    efficient and accurate cross-validation" (2018). Three things would still flatter it:

    - The models that were scored inside have learnt from the groups outside, so a system that is
      lucky inside is lucky outside. With v the variance of a figure that comes of held-out rows and
      m the part of training rows (evaluate/variance.py), a resample has the variance 2 v + m, as
      every group weighs in by the square of its count, whose mean is 2, and its covariance with the
      groups outside is m. Of its excess e the share m / (2 v + m) is seen outside too. The gap is
      what is left, e 2 v / (2 v + m), so the leak is gap m / 2 v.
    - The threshold, calibration and penalties of a system are picks as well, made by rows whose
      models have learnt from the fold. Their luck is about one standard error sqrt(v), of which
      the share u = m / (v + m) is seen in the fold, and the better a system, the better they are
      determined: sqrt(v) u^2 is what 200 archives at chance, of 100 and 200 rows, have shown
      (.0085 and .0079), and next to nothing where systems are good.
    - Pooled decisions flatter models that differ (`fold_shift`). It is noise where they do not, so
      only its flattery is taken off.

    With one repeat neither can be told, and the figure is that of BBC-CV alone.
    """
    picked, inside, outside = candidates.resample()
    share = np.bincount(picked, minlength=len(systems)) / len(picked)
    each = np.arange(len(picked))
    scored = float(outside[each, picked].mean())
    gap = float(inside[each, picked].mean()) - scored
    shift = float(share @ [_shift(system) for system in systems])
    return ExpectedScore(share, scored, _leak(systems, share, max(0.0, gap)), min(0.0, shift))


def _shift(system: Predictions) -> float:
    return fold_shift(system.labels, system.decision, system.fold, len(system.classes), "macro_f1")


def _leak(systems: Sequence[Predictions], share: np.ndarray, gap: float) -> float:
    """Estimate what picking owes to rows that models had seen; see `expected_score`."""
    errors = [
        standard_error(
            system.labels, system.decision, system.groups, len(system.classes), fold=system.fold
        )
        for system in systems
    ]
    held_out = float(share @ [error.held_out for error in errors])
    training = float(share @ [error.training for error in errors])
    if not held_out:
        return 0.0
    inside = np.sqrt(held_out) * (training / (held_out + training)) ** 2
    return float(gap * training / (2 * held_out) + inside)
