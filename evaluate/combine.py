"""Combine systems: what is learned is learned outside the fold in which it is used.

METHODS is the one place where a method is named; adding one is one entry.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import log_softmax, softmax

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.majority import final_decision
from archiveprobe.evaluate.predictions import Predictions, check_same_rows
from archiveprobe.task.config import nearest

_TINY = 1e-7
_BAGS = 20
_ROUNDS = 30
_STARTERS = 2
_STACK_PENALTY = 1.0
TIES: Mapping[str, str] = MappingProxyType(
    {
        "mean": "by the mean of the members' logits",
        "positive": "for the positive class",
        "other": "against the positive class",
    }
)
"""How a hard vote settles a tie; what that leaves open goes by the mean logit."""


@dataclass(frozen=True)
class Combined:
    """Holds an ensemble's logits: out of fold (R, n, K) and for the rows to predict (m, K).

    `weights` (R, folds, M) and `final` (M,) say how much each member counts. A hard vote has no
    threshold of its own: `decision` (R, n) and `answer` (m,) then hold its decisions, else None.
    """

    logits: np.ndarray
    unlabelled: np.ndarray
    weights: np.ndarray
    final: np.ndarray
    decision: np.ndarray | None = None
    answer: np.ndarray | None = None


@dataclass(frozen=True)
class Space:
    """Holds what log-probabilities become before they are summed, and the way back.

    `enter` maps rows (M, n, K), given reference rows (M, r, K) to rank them among.
    """

    enter: Callable[[np.ndarray, np.ndarray], np.ndarray]
    leave: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Method:
    """Says in a line how systems are combined: a sum in a space, by weights that `learn` finds.

    `learn` takes values (M, rows, K) in that space and labels (rows,), and returns weights (M,).
    Members vote where `space` is None.
    """

    what: str
    learn: Callable[[np.ndarray, np.ndarray], np.ndarray]
    space: Space | None


def combine(systems: Sequence[Predictions], method: str, ties: str = "mean") -> Combined:
    """Combine systems by one of METHODS; `ties`, of TIES, matters to a vote only.

    Systems are used on the repeats that all of them have.

    Raises:
        InputError: no such method (the nearest is named), fewer than two systems, or systems whose
            rows were not held out in the same folds.
    """
    for what, given, known in (("method", method, METHODS), ("tie rule", ties, TIES)):
        if given not in known:
            raise InputError(
                f"unknown {what} {given!r}{nearest(given, known)}: use {', '.join(known)}"
            )
    if len(systems) < 2:
        raise InputError("an ensemble needs two systems: run more probes, or name two")
    check_same_rows(list(systems))
    space, learn = METHODS[method].space or _LOGITS, METHODS[method].learn
    repeats = min(len(member.fold) for member in systems)
    fold, labels = systems[0].fold[:repeats], systems[0].labels
    logs = np.stack([_logs(member.oof[:repeats]) for member in systems])
    readable = np.isfinite(logs).all((0, 1, 3))
    weights = np.zeros((repeats, int(fold.max()) + 1, len(systems)))
    total = np.full(logs.shape[1:], np.nan)
    for repeat, held in np.ndindex(*weights.shape[:2]):
        inside = fold[repeat] == held
        outside = ~inside & readable
        values = space.enter(logs[:, repeat], logs[:, repeat, outside])
        weights[repeat, held] = learn(values[:, outside], labels[outside])
        total[repeat, inside] = np.tensordot(weights[repeat, held], values[:, inside], 1)
    reference = _reference(logs)
    final = learn(space.enter(reference, reference), np.tile(labels[readable], repeats))
    logits = space.leave(total)
    unlabelled = _weighted(systems, final, space, reference)
    if METHODS[method].space is not None:
        return Combined(logits, unlabelled, weights, final)
    decisions = np.stack([member.decision[:repeats] for member in systems])
    logits, decision = _majority(decisions, logits, ties, systems[0].positive)
    unlabelled, answer = _vote(systems, unlabelled, ties)
    return Combined(logits, unlabelled, weights, final, decision, answer)


def apply_weights(
    systems: Sequence[Predictions], method: str, weights: np.ndarray, ties: str = "mean"
) -> tuple[np.ndarray, np.ndarray | None]:
    """Combine answers for other rows at weights (M,) that were learned before.

    Returns logits (m, K), and the decisions (m,) of a vote, else None.
    """
    check_same_rows(list(systems))
    space = METHODS[method].space
    if space is None:
        return _vote(systems, _weighted(systems, weights, _LOGITS, weights), ties)
    repeats = min(len(member.fold) for member in systems)
    reference = _reference(np.stack([_logs(member.oof[:repeats]) for member in systems]))
    return _weighted(systems, weights, space, reference), None


def _reference(logs: np.ndarray) -> np.ndarray:
    """Select the rows of all repeats that every member can read, (M, R * rows, K)."""
    readable = np.isfinite(logs).all((0, 1, 3))
    return logs[:, :, readable].reshape(len(logs), -1, logs.shape[-1])


def _weighted(
    systems: Sequence[Predictions], weights: np.ndarray, space: Space, reference: np.ndarray
) -> np.ndarray:
    """Sum what the members say of the rows to predict, (m, K)."""
    rest = np.stack([_logs(member.test) for member in systems])
    return space.leave(np.tensordot(weights, space.enter(rest, reference), 1))


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.clip(probabilities, _TINY, 1)))


def _places(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Find the share of reference rows below a value (M, n, K), equal ones counting half.

    Shares of a row sum to one, and none is 0.
    """
    shares = np.full(values.shape, np.nan)
    for member, label in np.ndindex(values.shape[0], values.shape[2]):
        ordered, own = np.sort(reference[member, :, label]), values[member, :, label]
        below = np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")
        shares[member, :, label] = (below + 1) / (2 * len(ordered) + 2)
    shares[np.isnan(values)] = np.nan
    return np.asarray(shares / shares.sum(-1, keepdims=True))


def own_answers(system: Predictions) -> np.ndarray:
    """Decide the rows to predict (m,) as the system does; of no use where unreadable."""
    return final_decision(system, system.test) if system.answer is None else system.answer


def _vote(
    systems: Sequence[Predictions], logits: np.ndarray, ties: str
) -> tuple[np.ndarray, np.ndarray]:
    """Let every member decide the rows to predict; `logits` (m, K) are their mean."""
    answers = np.stack([own_answers(member) for member in systems])
    return _majority(answers, logits, ties, systems[0].positive)


def _majority(
    votes: np.ndarray, logits: np.ndarray, ties: str, positive: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count votes (M, ...): logs of their shares (..., K), and the winners (...)."""
    k = logits.shape[-1]
    counts = np.stack([(votes == label).sum(0) for label in range(k)], -1).astype(np.float64)
    favoured = np.arange(k) == positive
    bonus = {"mean": np.zeros(k), "positive": favoured, "other": ~favoured}[ties]
    # Less than one vote, so that it decides ties and nothing else.
    score = counts + 0.5 * bonus + 0.25 * softmax(np.nan_to_num(logits), -1)
    shares = (score + _TINY) / (score + _TINY).sum(-1, keepdims=True)
    known = np.isfinite(logits).all(-1, keepdims=True)
    return np.where(known, np.log(shares), np.nan), score.argmax(-1)


def _equal_weights(values: np.ndarray, labels: np.ndarray) -> np.ndarray:  # noqa: ARG001
    return np.ones(len(values)) / len(values)


def greedy_weights(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Select members with replacement by log-loss: weights (M,) that sum to one.

    Sorted start and bagging after Caruana et al., "Ensemble selection from libraries of models"
    (ICML 2004): each bag draws half of the members, starts with its best, and adds whichever member
    lowers the loss of the mean probability most; the counts of all bags are the weights.
    """
    count = len(probabilities)
    true = np.take_along_axis(probabilities, labels[None, :, None], 2)[..., 0]
    rng = np.random.default_rng(0)
    size = max(2, (count + 1) // 2)
    chosen = np.zeros(count)
    for _ in range(_BAGS):
        bag = rng.choice(count, min(size, count), replace=False)
        chosen[bag] += _greedy_bag(true[bag])
    return np.asarray(chosen / chosen.sum())


def _greedy_bag(true: np.ndarray) -> np.ndarray:
    """Count how often each member is taken, from probabilities (M, n) of the true class."""
    losses = -np.log(np.maximum(true, _TINY)).mean(1)
    taken = np.zeros(len(true))
    taken[np.argsort(losses, kind="stable")[:_STARTERS]] = 1
    total = taken @ true
    best, kept = np.inf, taken.copy()
    for _ in range(_ROUNDS):
        size = taken.sum() + 1
        trial = -np.log(np.maximum((total + true) / size, _TINY)).mean(1)
        winner = int(trial.argmin())
        taken[winner] += 1
        total = total + true[winner]
        # The loss may rise and fall again: the best of all rounds is kept.
        if trial[winner] < best - 1e-9:
            best, kept = trial[winner], taken.copy()
    return np.asarray(kept / kept.sum())


def stack_weights(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fit weights (M,) of members' logits by penalised log-loss (Wolpert, 1992).

    One weight per member for all classes, none negative (Breiman, "Stacked regressions", 1996);
    the penalty pulls towards equal weights.
    """
    from scipy.optimize import minimize

    count = len(logits)
    start = np.ones(count) / count
    rows = np.arange(len(labels))
    penalty = _STACK_PENALTY * count

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        log_p = log_softmax(np.tensordot(weights, logits, 1), 1)
        residual = np.exp(log_p)
        residual[rows, labels] -= 1
        pull = weights - start
        gradient = np.tensordot(logits, residual, 2) + 2 * penalty * pull
        return penalty * (pull**2).sum() - log_p[rows, labels].sum(), gradient

    solution = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * count)
    weights: np.ndarray = solution.x
    return weights if weights.sum() > 0 else start


_LOGITS = Space(lambda rows, _: rows, lambda total: total)
_PROBABILITIES = Space(lambda rows, _: np.exp(rows), _logs)
_RANKS = Space(_places, _logs)

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "mean": Method("mean of the members' logits", _equal_weights, _LOGITS),
        "probability": Method("mean of the members' probabilities", _equal_weights, _PROBABILITIES),
        "rank": Method("mean of the members' ranks", _equal_weights, _RANKS),
        "vote": Method(
            "majority of the members' decisions, each at its own threshold", _equal_weights, None
        ),
        "greedy": Method(
            "selection with replacement, bagged (Caruana, 2004)", greedy_weights, _PROBABILITIES
        ),
        "stack": Method(
            "logistic regression on the members' logits, none negative", stack_weights, _LOGITS
        ),
    }
)
