"""Combine systems: what is learned is learned outside the fold in which it is used.

METHODS is the one place where a method is named; adding one is one entry.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from scipy.special import softmax

from archiveprobe.base.errors import InputError
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
class Members:
    """Holds log-probabilities of all members: out of fold (M, R, n, K), unlabelled (M, m, K)."""

    systems: Sequence[Predictions]
    out_of_fold: np.ndarray
    unlabelled: np.ndarray
    labels: np.ndarray
    fold: np.ndarray
    readable: np.ndarray
    ties: str = "mean"

    @property
    def folds(self) -> int:
        """Count the folds of a repeat."""
        return int(self.fold.max()) + 1


def members_of(systems: Sequence[Predictions]) -> Members:
    """Put systems side by side, on the repeats that all of them have.

    Raises:
        InputError: fewer than two, or their rows were not held out in the same folds.
    """
    if len(systems) < 2:
        raise InputError("an ensemble needs two systems: run more probes, or name two")
    check_same_rows(list(systems))
    repeats = min(len(member.fold) for member in systems)
    out_of_fold = np.stack([_logs(member.oof[:repeats]) for member in systems])
    return Members(
        systems,
        out_of_fold,
        np.stack([_logs(member.test) for member in systems]),
        systems[0].labels,
        systems[0].fold[:repeats],
        np.isfinite(out_of_fold).all((0, 1, 3)),
    )


def combine(systems: Sequence[Predictions], method: str, ties: str = "mean") -> Combined:
    """Combine systems by one of METHODS; `ties`, of TIES, matters to a vote only.

    Raises:
        InputError: no such method (the nearest is named), or systems that do not fit together.
    """
    for what, given, known in (("method", method, METHODS), ("tie rule", ties, TIES)):
        if given not in known:
            raise InputError(
                f"unknown {what} {given!r}{nearest(given, known)}: use {', '.join(known)}"
            )
    return METHODS[method].run(replace(members_of(systems), ties=ties))


def apply_weights(
    systems: Sequence[Predictions], method: str, weights: np.ndarray, ties: str = "mean"
) -> tuple[np.ndarray, np.ndarray | None]:
    """Combine answers for other rows at weights (M,) that were learned before.

    Returns logits (m, K), and the decisions (m,) of a vote, else None.
    """
    members = replace(members_of(systems), ties=ties)
    space = METHODS[method].space
    if space is None:
        # Such a method learns no weights, so that combining again is applying it.
        combined = METHODS[method].run(members)
        return combined.unlabelled, combined.answer
    total = np.tensordot(weights, space.enter(members.unlabelled), 1)
    return space.leave(total), None


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.clip(probabilities, _TINY, 1)))


@dataclass(frozen=True)
class Space:
    """Holds what log-probabilities become before they are summed, and the way back."""

    enter: Callable[[np.ndarray], np.ndarray]
    leave: Callable[[np.ndarray], np.ndarray]


_LOGITS = Space(lambda logs: logs, lambda total: total)
_PROBABILITIES = Space(np.exp, _logs)


def _equal_weights(values: np.ndarray, labels: np.ndarray) -> np.ndarray:  # noqa: ARG001
    return np.ones(len(values)) / len(values)


def _weighted(
    members: Members, learn: Callable[[np.ndarray, np.ndarray], np.ndarray], space: Space
) -> Combined:
    """Sum members by weights (M,) that `learn` finds on values (M, rows, K) and labels."""
    count, repeats = len(members.systems), len(members.fold)
    out_of_fold = space.enter(members.out_of_fold)
    weights = np.zeros((repeats, members.folds, count))
    total = np.full(out_of_fold.shape[1:], np.nan)
    for repeat, fold_of in enumerate(members.fold):
        for fold in range(members.folds):
            inside = fold_of == fold
            outside = ~inside & members.readable
            weights[repeat, fold] = learn(out_of_fold[:, repeat, outside], members.labels[outside])
            total[repeat, inside] = np.tensordot(
                weights[repeat, fold], out_of_fold[:, repeat, inside], 1
            )
    flat = out_of_fold[:, :, members.readable].reshape(count, -1, out_of_fold.shape[3])
    final = learn(flat, np.tile(members.labels[members.readable], repeats))
    unlabelled = np.tensordot(final, space.enter(members.unlabelled), 1)
    return Combined(space.leave(total), space.leave(unlabelled), weights, final)


def _rank(members: Members) -> Combined:
    """Replace probabilities by their place among those of the rows outside the fold."""
    repeats = len(members.fold)
    out_of_fold = np.full(members.out_of_fold.shape[1:], np.nan)
    for repeat, fold_of in enumerate(members.fold):
        for fold in range(members.folds):
            inside = fold_of == fold
            outside = ~inside & members.readable
            places = [
                _places(member[repeat, outside], member[repeat, inside])
                for member in members.out_of_fold
            ]
            out_of_fold[repeat, inside] = np.mean(places, 0)
    everything = [
        _places(member[:, members.readable].reshape(-1, member.shape[2]), rest)
        for member, rest in zip(members.out_of_fold, members.unlabelled, strict=True)
    ]
    equal = np.ones(len(members.systems)) / len(members.systems)
    weights = np.broadcast_to(equal, (repeats, members.folds, len(equal))).copy()
    return Combined(_logs(out_of_fold), _logs(np.mean(everything, 0)), weights, equal)


def _places(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Find for every class the share (rows, K) of reference rows below a value; rows sum to 1."""
    shares = np.full(values.shape, np.nan)
    known = np.isfinite(values).all(1)
    for label in range(values.shape[1]):
        ordered = np.sort(reference[:, label])
        low = np.searchsorted(ordered, values[known, label], "left")
        high = np.searchsorted(ordered, values[known, label], "right")
        shares[known, label] = (low + high + 1) / (2 * len(ordered) + 2)
    return np.asarray(shares / shares.sum(1, keepdims=True))


def _vote(members: Members) -> Combined:
    """Let every member decide at its own threshold; the majority wins."""
    repeats = len(members.fold)
    decisions = np.stack([member.decision[:repeats] for member in members.systems])
    answers = np.stack([own_answers(member) for member in members.systems])
    mean = _weighted(members, _equal_weights, _LOGITS)
    positive = members.systems[0].positive
    out_of_fold, decision = _majority(decisions, mean.logits, members.ties, positive)
    unlabelled, answer = _majority(answers, mean.unlabelled, members.ties, positive)
    return Combined(out_of_fold, unlabelled, mean.weights, mean.final, decision, answer)


def own_answers(system: Predictions) -> np.ndarray:
    """Decide the rows to predict (m,) at the system's own threshold; 0 where unreadable."""
    if system.answer is not None:
        return system.answer
    if len(system.classes) > 2 or np.isnan(system.threshold):
        return np.asarray(np.nan_to_num(system.test, nan=0.0).argmax(1))
    positive = system.positive
    return np.where(system.test[:, positive] > system.threshold, positive, 1 - positive)


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


def greedy_weights(probabilities: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Select members with replacement by log-loss: weights (M,) that sum to one.

    Sorted start and bagging after Caruana et al., "Ensemble selection from libraries of models"
    (ICML 2004): each bag draws half of the members, starts with its best, and adds whichever member
    lowers the loss of the mean probability most; the counts of all bags are the weights.
    """
    count = len(probabilities)
    true = np.take_along_axis(probabilities, labels[None, :, None], 2)[..., 0]
    rng = np.random.default_rng(seed)
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

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total = np.tensordot(weights, logits, 1)
        top = total.max(1, keepdims=True)
        exponent = np.exp(total - top)
        norm = exponent.sum(1, keepdims=True)
        value = (np.log(norm) + top)[:, 0].sum() - total[rows, labels].sum()
        residual = exponent / norm
        residual[rows, labels] -= 1
        pull = weights - start
        gradient = np.tensordot(logits, residual, 2) + 2 * _STACK_PENALTY * count * pull
        return value + _STACK_PENALTY * count * (pull**2).sum(), gradient

    solution = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * count)
    weights: np.ndarray = solution.x
    return weights if weights.sum() > 0 else start


@dataclass(frozen=True)
class Method:
    """Combines systems; `space` is that of a weighted sum, None for a method without weights."""

    run: Callable[[Members], Combined]
    what: str
    space: Space | None = None


def _sum_of(
    learn: Callable[[np.ndarray, np.ndarray], np.ndarray], space: Space, what: str
) -> Method:
    return Method(lambda members: _weighted(members, learn, space), what, space)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "mean": _sum_of(_equal_weights, _LOGITS, "mean of the members' logits"),
        "probability": _sum_of(
            _equal_weights, _PROBABILITIES, "mean of the members' probabilities"
        ),
        "rank": Method(_rank, "mean of the members' ranks"),
        "vote": Method(_vote, "majority of the members' decisions, each at its own threshold"),
        "greedy": _sum_of(
            greedy_weights, _PROBABILITIES, "selection with replacement, bagged (Caruana, 2004)"
        ),
        "stack": _sum_of(
            stack_weights, _LOGITS, "logistic regression on the members' logits, none negative"
        ),
    }
)
