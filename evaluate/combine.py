"""Combining systems: everything that is learned is learned outside the fold it is used in."""

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
    """Logits of an ensemble: out of fold (R, n, K) and for the rows to predict (m, K).

    `weights` (R, folds, M) and `final` (M,) tell how much each member counts. A hard vote has no
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
    """Log-probabilities of all members: out of fold (M, R, n, K), rows to predict (M, m, K)."""

    systems: Sequence[Predictions]
    held: np.ndarray
    unlabelled: np.ndarray
    labels: np.ndarray
    fold: np.ndarray
    readable: np.ndarray
    ties: str = "mean"

    @property
    def folds(self) -> int:
        """How many folds every repeat has."""
        return int(self.fold.max()) + 1


def members_of(systems: Sequence[Predictions]) -> Members:
    """Put systems side by side, on the repeats that all of them have.

    Raises:
        InputError: fewer than two, or their rows were not held out in the same folds.
    """
    if len(systems) < 2:
        raise InputError("an ensemble needs two systems: run more probes, or name two")
    check_same_rows(list(systems))
    repeats = min(len(one.fold) for one in systems)
    held = np.stack([_logs(one.oof[:repeats]) for one in systems])
    return Members(
        systems,
        held,
        np.stack([_logs(one.test) for one in systems]),
        systems[0].labels,
        systems[0].fold[:repeats],
        np.isfinite(held).all((0, 1, 3)),
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


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.clip(probabilities, _TINY, 1)))


def _mean(members: Members) -> Combined:
    weights = np.ones(len(members.systems)) / len(members.systems)
    return _weighted(members, lambda *_: weights)


def _weighted(members: Members, learn: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Combined:
    """Weighted sums of what `held` holds; `learn` finds weights (M,) on (M, rows, K) and labels."""
    repeats = len(members.fold)
    weights = np.zeros((repeats, members.folds, len(members.systems)))
    logits = np.full(members.held.shape[1:], np.nan)
    for repeat, fold_of in enumerate(members.fold):
        for fold in range(members.folds):
            inside = fold_of == fold
            outside = ~inside & members.readable
            weights[repeat, fold] = learn(members.held[:, repeat, outside], members.labels[outside])
            logits[repeat, inside] = np.tensordot(
                weights[repeat, fold], members.held[:, repeat, inside], 1
            )
    flat = members.held[:, :, members.readable].reshape(
        len(members.systems), -1, members.held.shape[3]
    )
    final = learn(flat, np.tile(members.labels[members.readable], repeats))
    return Combined(logits, np.tensordot(final, members.unlabelled, 1), weights, final)


def _rank(members: Members) -> Combined:
    """Every member's probabilities by their place among those of the rows outside the fold."""
    repeats = len(members.fold)
    held = np.full(members.held.shape[1:], np.nan)
    for repeat, fold_of in enumerate(members.fold):
        for fold in range(members.folds):
            inside = fold_of == fold
            outside = ~inside & members.readable
            places = [_places(one[repeat, outside], one[repeat, inside]) for one in members.held]
            held[repeat, inside] = np.mean(places, 0)
    everything = [
        _places(one[:, members.readable].reshape(-1, one.shape[2]), rest)
        for one, rest in zip(members.held, members.unlabelled, strict=True)
    ]
    alike = np.ones(len(members.systems)) / len(members.systems)
    weights = np.broadcast_to(alike, (repeats, members.folds, len(alike))).copy()
    return Combined(_logs(held), _logs(np.mean(everything, 0)), weights, alike)


def _places(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For every class the share (rows, K) of reference rows below a value; rows sum to one."""
    shares = np.full(values.shape, np.nan)
    known = np.isfinite(values).all(1)
    for label in range(values.shape[1]):
        ordered = np.sort(reference[:, label])
        low = np.searchsorted(ordered, values[known, label], "left")
        high = np.searchsorted(ordered, values[known, label], "right")
        shares[known, label] = (low + high + 1) / (2 * len(ordered) + 2)
    return np.asarray(shares / shares.sum(1, keepdims=True))


def _vote(members: Members) -> Combined:
    """Every member decides at its own threshold; the majority wins."""
    repeats = len(members.fold)
    decisions = np.stack([one.decision[:repeats] for one in members.systems])
    answers = np.stack([own_answers(one) for one in members.systems])
    mean = _mean(members)
    positive = members.systems[0].positive
    held, decision = _majority(decisions, mean.logits, members.ties, positive)
    unlabelled, answer = _majority(answers, mean.unlabelled, members.ties, positive)
    return Combined(held, unlabelled, mean.weights, mean.final, decision, answer)


def own_answers(system: Predictions) -> np.ndarray:
    """A system's answers (m,) for the rows to predict, at its own threshold; 0 where unreadable."""
    if system.answer is not None:
        return system.answer
    if len(system.classes) > 2 or np.isnan(system.threshold):
        return np.asarray(np.nan_to_num(system.test, nan=0.0).argmax(1))
    positive = system.positive
    return np.where(system.test[:, positive] > system.threshold, positive, 1 - positive)


def _majority(
    votes: np.ndarray, logits: np.ndarray, ties: str, positive: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logs of the shares of votes (..., K), and the winners (...), ties settled by logits or so."""
    k = logits.shape[-1]
    counts = np.stack([(votes == label).sum(0) for label in range(k)], -1).astype(np.float64)
    favoured = np.arange(k) == positive
    bonus = {"mean": np.zeros(k), "positive": favoured, "other": ~favoured}[ties]
    # Less than one vote, so that it decides ties and nothing else.
    score = counts + 0.5 * bonus + 0.25 * softmax(np.nan_to_num(logits), -1)
    shares = (score + _TINY) / (score + _TINY).sum(-1, keepdims=True)
    known = np.isfinite(logits).all(-1, keepdims=True)
    return np.where(known, np.log(shares), np.nan), score.argmax(-1)


def _on_probabilities(run: Callable[[Members], Combined], members: Members) -> Combined:
    """What `run` makes of probabilities instead of their logs."""
    combined = run(
        replace(members, held=np.exp(members.held), unlabelled=np.exp(members.unlabelled))
    )
    return replace(combined, logits=_logs(combined.logits), unlabelled=_logs(combined.unlabelled))


def _probability(members: Members) -> Combined:
    return _on_probabilities(_mean, members)


def _greedy(members: Members) -> Combined:
    return _on_probabilities(lambda given: _weighted(given, greedy_weights), members)


def greedy_weights(probabilities: np.ndarray, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Ensemble selection with replacement by log-loss: weights (M,) that sum to one.

    Sorted start and bagging after Caruana et al., "Ensemble selection from libraries of models"
    (ICML 2004): each bag draws half of the members, starts with its best, and adds whichever member
    lowers the loss of the mean probability most; the counts of all bags are the weights.
    """
    count = len(probabilities)
    true = np.take_along_axis(probabilities, labels[None, :, None], 2)[..., 0]
    rng = np.random.default_rng(seed)
    drawn = max(2, (count + 1) // 2)
    chosen = np.zeros(count)
    for _ in range(_BAGS):
        bag = rng.choice(count, min(drawn, count), replace=False)
        chosen[bag] += _greedy_bag(true[bag])
    return np.asarray(chosen / chosen.sum())


def _greedy_bag(true: np.ndarray) -> np.ndarray:
    """How often each member was taken; `true` (M, n) are probabilities of the true class."""
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


def _stack(members: Members) -> Combined:
    """Logistic regression on the members' logits, pulled towards their plain mean."""
    return _weighted(members, stack_weights)


def stack_weights(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights (M,) of members' logits by penalised log-loss (Wolpert, "Stacked generalization").

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

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * count)
    weights: np.ndarray = found.x
    return weights if weights.sum() > 0 else start


@dataclass(frozen=True)
class Method:
    """A way to combine systems, and what it does in a line."""

    run: Callable[[Members], Combined]
    what: str


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "mean": Method(_mean, "mean of the members' logits"),
        "probability": Method(_probability, "mean of the members' probabilities"),
        "rank": Method(_rank, "mean of the members' ranks"),
        "vote": Method(_vote, "majority of the members' decisions, each at its own threshold"),
        "greedy": Method(_greedy, "selection with replacement, bagged (Caruana et al., 2004)"),
        "stack": Method(_stack, "logistic regression on the members' logits, none negative"),
    }
)
