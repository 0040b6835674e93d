"""Means of the weights of several networks, and what BatchNorms need after it.

Model soups (Wortsman et al. 2022): networks that began at the same weights and were trained with
other random draws lie in one basin of the loss, so the mean of their weights is a network too,
mostly a better one, which costs no more to run than one of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.embed.forward import Batch
from archiveprobe.finetune.forward import ForwardPasses
from archiveprobe.finetune.loader import InputRows
from archiveprobe.finetune.lora import DOWN
from archiveprobe.finetune.model import Network

State = Mapping[str, Any]
_BATCH = 32


def mean_of(states: Sequence[State]) -> dict[str, Any]:
    """Return the mean of states tensor by tensor; those of whole numbers are the first one's."""
    import torch

    first = states[0]
    return {
        name: torch.stack([state[name] for state in states]).mean(0)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in first.items()
    }


def mixture_of(
    initial: State,
    tuned: State,
    alpha: float,
    settle: Callable[[State], State] = lambda state: state,
) -> State:
    """Return the state (1 - alpha) x initial + alpha x tuned (WiSE-FT, Wortsman et al., 2022).

    Tensors of whole numbers are the tuned ones; at 0 and at 1 the states come back bit by bit. What
    lies between goes through `settle`: see `update_batch_norms`. Of LoRA, whose B starts at zero, B
    alone is mixed: (1 - alpha) W + alpha (W + B A) = W + (alpha B) A.
    """
    mixed: dict[str, Any] = {}
    for name, end in tuned.items():
        start = initial[name]
        if alpha in (0.0, 1.0) or not end.is_floating_point() or name.endswith(DOWN):
            mixed[name] = (start if alpha == 0.0 else end).clone()
        else:
            mixed[name] = start.lerp(end, alpha)
    return mixed if alpha in (0.0, 1.0) else settle(mixed)


def choose_mixture(
    initial: State,
    tuned: State,
    alphas: tuple[float, ...],
    score: Callable[[State], float],
    settle: Callable[[State], State] = lambda state: state,
) -> tuple[float, State]:
    """Return the share of tuned weights with the highest score, and the mixture.

    `score` rates a state on rows that neither trained the network nor are reported. Equal scores go
    to the smallest share, and a state that cannot be rated (NaN) never wins. Where head and body
    are mixed alike, the head's first weights must be able to answer: a linear probe's, not random
    ones.

    Raises:
        InputError: no share could be rated.
    """
    best: tuple[float, float, State] | None = None
    for alpha in sorted(set(alphas)):
        state = mixture_of(initial, tuned, alpha, settle)
        rated = float(score(state))
        if not np.isnan(rated) and (best is None or rated > best[0]):
            best = rated, alpha, state
    if best is None:
        raise InputError(
            "no mixture of pretrained and tuned weights could be scored: leave out "
            "interpolate.alphas, or hold out rows of every class"
        )
    return best[1:]


def greedy_soup(
    states: Sequence[State], score: Callable[[Sequence[State]], float]
) -> Sequence[int]:
    """Return the places of the states whose mean is to be used (the paper's recipe 1).

    From the best single one on, each is taken where the mean with it scores no worse. `score` rates
    the mean of some states on rows that neither trained them nor are reported; NaN is the worst.
    """
    alone = [_rated(score([state])) for state in states]
    order = sorted(range(len(states)), key=lambda at: -alone[at])
    chosen, best = order[:1], alone[order[0]]
    for at in order[1:]:
        rated = _rated(score([states[place] for place in (*chosen, at)]))
        if rated >= best:
            chosen, best = [*chosen, at], rated
    return sorted(chosen)


def _rated(score: float) -> float:
    return -np.inf if np.isnan(score) else score


def update_batch_norms(
    network: Network,
    inputs: InputRows,
    rows: np.ndarray,
    view: int,
    passes: ForwardPasses,
) -> None:
    """Compute the running statistics of the trained BatchNorms again, over rows through a view.

    The mean of two networks' weights gives activations of which neither the one's nor the other's
    mean and variance, nor the mean of both, are true (Izmailov et al. 2018, section 3.3). As
    torch.optim.swa_utils.update_bn, but with the images as they are answered, so that nothing is
    drawn, and with everything else in eval mode. Networks without BatchNorm are left alone.
    """
    import torch

    norms = [
        module
        for part in network.trained
        for module in network.module.get_submodule(part).modules()
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
        and module.running_mean is not None
    ]
    rows = rows[np.asarray(inputs.readable)[rows]]
    if not norms or not len(rows):
        return
    seen = passes.network(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # The plain mean over all batches, which are of one size give or take a row.
        norm.momentum = None
        norm.train()
    try:
        for some in np.array_split(rows, -(-len(rows) // _BATCH)):
            batch = Batch(_BATCH, lambda _: None)
            for row in some:
                batch.add(b"", inputs.rendered(int(row), [view]))
            seen.embed(*batch.gather(seen.allocate))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.eval()
