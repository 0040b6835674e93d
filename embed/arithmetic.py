"""Which GPU computes and how it multiplies fp32 numbers: set for one pass, then given back.

Tensor cores round the factors of a product of fp32 numbers to ten bits (TF32) unless they are told
not to: torch allows it for convolutions by default, for matrices not. Here "fp32" never does, and
"tf32" always.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# The settings belong to the whole process, so passes of other threads wait for their turn. A GPU
# runs them one after the other anyway.
_TURN = RLock()


@contextmanager
def computing_on(device: "str | torch.device", precision: str = "fp32") -> Iterator[None]:
    """Make a GPU with CUDA the current one, where fp32 is multiplied exactly or as "tf32" says.

    What names no device of its own (libraries, random states) would else begin on the first GPU and
    take memory there. Elsewhere than on CUDA nothing changes.
    """
    if not str(device).startswith("cuda"):
        yield
        return
    import torch

    with _TURN, torch.cuda.device(device), _multiplying("tf32" if precision == "tf32" else "ieee"):
        yield


@contextmanager
def _multiplying(way: str) -> Iterator[None]:
    """Set how products of fp32 are computed: "ieee" or "tf32"."""
    import torch

    # Only these names, never torch's older `allow_tf32` beside them: it refuses to be asked when
    # the two disagree. torch compares convolutions with recurrent layers, so both are set.
    backends: Any = torch.backends
    settings = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = way
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value
