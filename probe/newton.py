"""Logistic regression at many penalties at once: one matrix product serves the whole path.

Every penalty is a column. Each step is one product with the rows and one with their transpose for
all columns that have not converged: preconditioned L-BFGS (Nocedal and Wright, "Numerical
Optimization", 2006, chapter 7) in the eigenbasis of the rows, where the Hessian is nearly diagonal,
with an exact line search, which is cheap because logits are linear along a direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logsumexp

_MEMORY = 10
_MOST_STEPS = 500
_LINE_STEPS = 6
_FLAT = 1e-8
# Square root of g' H^-1 g per row at which probabilities agree with the optimum to 1e-6.
TOLERANCE = 1e-7


@dataclass(frozen=True)
class Problem:
    """Rows z (n, r), whose last column is the intercept's, and what they are to be fitted to.

    `target` is (n, k): one column of zeros and ones for two classes, an indicator per class for
    several. `curvature` (r,) holds the squared norms of the columns of z; `offset` (n, k) is added
    to every logit.
    """

    z: np.ndarray
    target: np.ndarray
    curvature: np.ndarray
    offset: np.ndarray | None = None

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Of logits (n, p, k)."""
        if logits.shape[2] == 1:
            result: np.ndarray = expit(logits)
        else:
            shifted = np.exp(logits - logits.max(2, keepdims=True))
            result = shifted / shifted.sum(2, keepdims=True)
        return result

    def losses(self, logits: np.ndarray) -> np.ndarray:
        """Sums of log-losses (p,) of logits (n, p, k)."""
        if logits.shape[2] == 1:
            total = np.logaddexp(0.0, logits[..., 0])
        else:
            total = logsumexp(logits, axis=2)
        result: np.ndarray = (total - (self.target[:, None] * logits).sum(2)).sum(0)
        return result


def solve(
    problem: Problem, penalties: Sequence[float] | np.ndarray, exact_from: float = 0.0
) -> np.ndarray:
    """The minima of log-loss + penalty / 2 * |weights|^2, (r, p, k), a column per penalty.

    The intercept is not penalised. Columns with a penalty below `exact_from` stop when all others
    have converged: early stopping, which regularises like a penalty. Where all lie below it, all
    are exact.
    """
    given = np.asarray(penalties, np.float64)
    return _Path(problem, given, exact_from if (given >= exact_from).any() else 0.0).run()


class _Path:
    """The iterations of all columns; those that converge leave."""

    def __init__(self, problem: Problem, penalty: np.ndarray, exact_from: float) -> None:
        self._problem = problem
        self._exact = penalty >= exact_from
        n, r = problem.z.shape
        k = problem.target.shape[1]
        self._n = n
        self._final = np.zeros((r, len(penalty), k))
        self._left = np.arange(len(penalty))
        self._penalty = np.broadcast_to(penalty[None, :, None], (r, len(penalty), 1)).copy()
        self._penalty[-1] = 0.0
        self._weights = np.zeros((r, len(penalty), k))
        self._logits = np.zeros((n, len(penalty), k))
        if problem.offset is not None:
            self._logits += problem.offset[:, None, :]
        self._steps: list[np.ndarray] = []
        self._changes: list[np.ndarray] = []

    def run(self) -> np.ndarray:
        """Iterate until every column that is to be exact has converged."""
        gradient, curvature = self._gradient()
        for _ in range(_MOST_STEPS):
            decrement = np.sqrt((gradient**2 / curvature).sum((0, 2)) / self._n)
            done = decrement <= TOLERANCE
            if done.any():
                self._settle(done)
                if not self._exact[self._left].any():
                    break
                gradient, curvature = gradient[:, ~done], curvature[:, ~done]
            direction = -self._inverse(gradient, curvature)
            downhill = (direction * gradient).sum((0, 2)) < 0
            if not downhill.all():
                self._steps, self._changes = [], []
                direction = -gradient / curvature
            length = self._move(direction)
            if length is None:
                break
            before = gradient
            gradient, curvature = self._gradient()
            self._remember(length * direction, gradient - before)
        self._settle(np.ones(len(self._left), bool))
        return self._final

    def _product(self, weights: np.ndarray) -> np.ndarray:
        r, p, k = weights.shape
        product: np.ndarray = self._problem.z @ weights.reshape(r, p * k)
        return product.reshape(-1, p, k)

    def _gradient(self) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (r, p, k), and the diagonal of the Hessian in the eigenbasis, approximately."""
        probability = self._problem.probabilities(self._logits)
        n, p, k = probability.shape
        residual = probability - self._problem.target[:, None]
        gradient = (self._problem.z.T @ residual.reshape(n, p * k)).reshape(-1, p, k)
        gradient += self._penalty * self._weights
        spread = np.maximum((probability * (1 - probability)).mean(0), _FLAT)
        curvature = spread * self._problem.curvature[:, None, None] + self._penalty
        return gradient, curvature

    def _inverse(self, gradient: np.ndarray, curvature: np.ndarray) -> np.ndarray:
        """The two-loop recursion, for all columns at once."""
        q = gradient.copy()
        factors = []
        for step, change in zip(reversed(self._steps), reversed(self._changes), strict=True):
            scale = _positive((step * change).sum((0, 2)))
            factor = (step * q).sum((0, 2)) / scale
            q -= factor[:, None] * change
            factors.append((factor, scale))
        q /= curvature
        for step, change, (factor, scale) in zip(
            self._steps, self._changes, reversed(factors), strict=True
        ):
            q += (factor - (change * q).sum((0, 2)) / scale)[:, None] * step
        return q

    def _move(self, direction: np.ndarray) -> np.ndarray | None:
        """Go to the minimum along the direction; the lengths (p, 1), None where nothing moves."""
        along = self._product(direction)
        pull = (self._penalty * self._weights * direction).sum((0, 2))
        stiff = (self._penalty * direction**2).sum((0, 2))
        length = np.ones(len(self._left))
        for _ in range(_LINE_STEPS):
            probability = self._problem.probabilities(self._logits + length[:, None] * along)
            residual = probability - self._problem.target[:, None]
            slope = (residual * along).sum((0, 2)) + pull + length * stiff
            bend = self._bend(probability, along) + stiff
            change = slope / np.maximum(bend, 1e-300)
            new = np.clip(length - change, 0.1 * length, 4.0 * length)
            close = np.abs(new - length) <= 0.05 * length
            length = new
            if close.all():
                break
        self._weights = self._weights + length[:, None] * direction
        self._logits = self._logits + length[:, None] * along
        return length[:, None] if (length > 0).any() else None

    @staticmethod
    def _bend(probability: np.ndarray, along: np.ndarray) -> np.ndarray:
        """The second derivative of the loss along a direction, (p,)."""
        if along.shape[2] == 1:
            result: np.ndarray = (probability * (1 - probability) * along**2).sum((0, 2))
        else:
            mean = (probability * along).sum(2)
            result = ((probability * along**2).sum(2) - mean**2).sum(0)
        return result

    def _remember(self, step: np.ndarray, change: np.ndarray) -> None:
        self._steps = [*self._steps, step][-_MEMORY:]
        self._changes = [*self._changes, change][-_MEMORY:]

    def _settle(self, done: np.ndarray) -> None:
        """Take the columns that are done out of the iterations."""
        self._final[:, self._left[done]] = self._weights[:, done]
        self._left = self._left[~done]
        self._penalty = self._penalty[:, ~done]
        self._weights = self._weights[:, ~done]
        self._logits = self._logits[:, ~done]
        self._steps = [step[:, ~done] for step in self._steps]
        self._changes = [change[:, ~done] for change in self._changes]


def _positive(values: np.ndarray) -> np.ndarray:
    """The values, infinite where they are not positive, which switches them off."""
    result: np.ndarray = np.where(values > 0, values, np.inf)
    return result
