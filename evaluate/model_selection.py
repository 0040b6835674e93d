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
class Candidates:
    """Systems to pick among: their scores (S,), and each group's influence on them (S, G).

    `sizes` (G,) are the groups' shares of the rows. `error` (S, S) is the standard error of the
    difference of two scores.
    """

    systems: Sequence[Predictions]
    scores: np.ndarray
    influence: np.ndarray
    sizes: np.ndarray
    error: np.ndarray
    complexity: np.ndarray
    caution: float

    def pick(self, scores: np.ndarray, among: np.ndarray | None = None) -> int:
        """Pick the system to prefer at these scores (S,): the simplest that is not worse.

        With `among` (S,), one of these systems, the first of them where none is close to the first.
        """
        first = int(scores.argmax())
        close = scores[first] - scores <= self.caution * self.error[first] + 1e-12
        if among is not None:
            close = close & among if (close & among).any() else among
        order = np.lexsort((-scores, self.complexity))
        return int(order[close[order]][0])

    def resample(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Let B resamples pick (B,); their scores (B, S), and those of the groups left out."""
        drawn = grouped_weights(np.arange(len(self.sizes)), _RESAMPLES, seed=1).astype(np.float64)
        drawn = drawn[(drawn == 0).any(1)]
        if not len(drawn):
            # A single group has nothing outside it.
            return np.array([self.pick(self.scores)]), self.scores[None], self.scores[None]
        inside, outside = self._scores(drawn), self._scores((drawn == 0).astype(np.float64))
        return np.array([self.pick(scores) for scores in inside]), inside, outside

    def _scores(self, weights: np.ndarray) -> np.ndarray:
        """Score all systems on groups of weights (B, G): (B, S).

        The scores are linear in the weights, score + sum_g w_g D_g / sum_g w_g m_g with influence D
        and size m, because an F1 of a small share of the rows would be biased; and they are moved
        so that their mean over resamples is the score on all rows.
        """
        moved = weights @ self.influence.T / (weights @ self.sizes)[:, None]
        return np.asarray(self.scores + moved - moved.mean(0))


def candidates_of(systems: Sequence[Predictions], caution: float) -> Candidates:
    """Put systems side by side.

    Raises:
        InputError: they were held out in different folds.
    """
    check_shared_folds(list(systems))
    y, k = systems[0].labels, len(systems[0].classes)
    members = np.unique(systems[0].groups, return_inverse=True)[1]
    moves = [influence(y, system.decision, k, "macro_f1").mean(0) for system in systems]
    sums = group_sums(np.stack(moves), members)
    sizes = np.bincount(members) / len(members)
    # Groups are independent: the variance of a difference is the sum of their squared differences.
    apart = ((sums[:, None] - sums) ** 2).sum(-1)
    return Candidates(
        systems,
        np.array([macro_f1(y, system.decision, k) for system in systems]),
        sums,
        sizes,
        np.sqrt(apart * len(sizes) / max(1, len(sizes) - 1)),
        np.array([float(system.origin.get("complexity", 0.0)) for system in systems]),
        caution,
    )


@dataclass(frozen=True)
class ExpectedScore:
    """What a pick is worth: `share` (S,) of resamples that pick each system, and their score.

    `outside` is the score on groups that did not pick, `leak` what their labels had given to the
    models that did, `shift` how far the mean score of models lies above that of pooled decisions.
    """

    share: np.ndarray
    outside: float
    leak: float
    shift: float


def expected_score(candidates: Candidates) -> ExpectedScore:
    """Estimate what picking among systems is worth on new rows.

    Resamples of groups pick, and the groups that each has left out score what it picked: BBC-CV of
    Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the out-of-sample predictions for
    efficient and accurate cross-validation" (2018). Three things would still flatter it:

    - The models that were scored inside were trained on the groups outside, so a system that is
      lucky inside is lucky outside. With v the variance of a score that comes of held-out rows and
      m the part of training rows (evaluate/variance.py), a resample has the variance 2 v + m, as
      every group weighs in by the square of its count, whose mean is 2, and its covariance with the
      groups outside is m. Of its excess e the share m / (2 v + m) is seen outside too. The gap is
      what is left, e 2 v / (2 v + m), so the leak is gap m / 2 v.
    - The threshold, calibration and penalties of a system are picks as well, made by rows whose
      models were trained on the fold. Their luck is about one standard error sqrt(v), of which
      the share u = m / (v + m) is seen in the fold, and the better a system, the better they are
      determined: sqrt(v) u^2 is what 200 archives at chance, of 100 and 200 rows, have shown
      (.0085 and .0079), and next to nothing where systems are good.
    - Pooled decisions flatter models that differ (`fold_shift`). It is noise where they do not, so
      only its flattery is taken off.

    With one repeat neither can be estimated, and the score is that of BBC-CV alone.
    """
    systems = candidates.systems
    picked, inside, outside = candidates.resample()
    share = np.bincount(picked, minlength=len(systems)) / len(picked)
    resamples = np.arange(len(picked))
    score = float(outside[resamples, picked].mean())
    gap = max(0.0, float(inside[resamples, picked].mean()) - score)
    shifts, errors = [], []
    for system in systems:
        rows = (system.labels, system.decision)
        k = len(system.classes)
        shifts.append(fold_shift(*rows, system.fold, k, "macro_f1"))
        errors.append(standard_error(*rows, system.groups, k, fold=system.fold))
    v = float(share @ [error.held_out for error in errors])
    m = float(share @ [error.training for error in errors])
    leak = gap * m / (2 * v) + float(np.sqrt(v)) * (m / (v + m)) ** 2 if v else 0.0
    return ExpectedScore(share, score, leak, min(0.0, float(share @ shifts)))
