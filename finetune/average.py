"""Averages of weights: a running one along a training run, and one between its ends (WiSE-FT)."""

from collections.abc import Mapping
from typing import Any

from archiveprobe.embed import libraries
from archiveprobe.finetune.settings import Ema


def decay_per_step(settings: Ema, steps: int) -> float | None:
    """The decay of a run of that many steps; None where no average is asked for.

    decay^steps is the share of the first weights that is left at the end: a fixed decay leaves much
    of them in a short run, a `remainder` leaves the same share in any.
    """
    if settings.remainder is not None:
        return float(settings.remainder ** (1 / max(1, steps)))
    return settings.decay


def make_average(network: Any, settings: Ema, steps: int) -> Any:
    """timm's running average, from the network as it is now; None where none is asked for.

    ``average.update(network)`` after every step, then ``average.module`` predicts. Buffers of
    floats are averaged too.
    """
    decay = decay_per_step(settings, steps)
    if decay is None:
        return None
    return libraries.timm_part("utils").ModelEmaV3(network, decay=decay)


def interpolated(
    first: Mapping[str, Any], tuned: Mapping[str, Any], share: float
) -> dict[str, Any]:
    """The state that has `share` of the tuned weights and the rest of the first ones.

    Tensors of whole numbers are the tuned ones; at 0 and at 1 the states come back bit by bit.
    """
    mixed = {}
    for name, end in tuned.items():
        start = first[name]
        if share in (0.0, 1.0) or not end.is_floating_point():
            mixed[name] = (start if share == 0.0 else end).clone()
        else:
            mixed[name] = start.lerp(end, share)
    return mixed
