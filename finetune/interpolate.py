"""WiSE-FT: how much of the tuning to keep, chosen on held-out rows (Wortsman et al., 2022)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.finetune.average import interpolated

State = Mapping[str, Any]


@dataclass(frozen=True)
class Mixture:
    """The chosen state, its share of the tuned weights, and the score of every share tried."""

    state: State
    tuned: float
    scores: Mapping[float, float]


def choose_mixture(
    first: State, tuned: State, shares: Sequence[float], score: Callable[[State], float]
) -> Mixture:
    """The mixture of first and tuned weights with the highest score.

    `score` rates a state on rows that neither taught the network nor are reported. Equal scores go
    to the smallest share of tuned weights, and a state that cannot be rated (NaN) never wins.
    Where head and body are mixed alike, the head's first weights must be able to answer: a linear
    probe's, not random ones.

    Raises:
        InputError: no shares, or none could be rated.
    """
    scores: dict[float, float] = {}
    best: Mixture | None = None
    for share in sorted(set(shares)):
        state = interpolated(first, tuned, share)
        scores[share] = rated = float(score(state))
        if not np.isnan(rated) and (best is None or rated > scores[best.tuned]):
            best = Mixture(state, share, scores)
    if best is None:
        raise InputError(
            "no mixture of pretrained and tuned weights could be scored: leave out "
            "interpolate.tuned, or hold out rows of every class"
        )
    return best
