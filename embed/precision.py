"""Choosing how a backbone computes: as fast as agrees with fp32."""

from collections.abc import Callable

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.embed.encoder import Encoder

AGREEMENT = 0.9995

Encode = Callable[[Encoder, np.ndarray, np.ndarray], np.ndarray]


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Row by row cosine of two (n, *shape) arrays, in float64; NaN where a row is zero."""
    a = left.reshape(len(left), -1).astype(np.float64)
    b = right.reshape(len(right), -1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: np.ndarray = (a * b).sum(1) / (
            np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        )
    return result


def check_precision(precision: str, device: str) -> None:
    """Refuse a precision that the device cannot compute.

    Raises:
        InputError: fp16 on a CPU.
    """
    if precision == "fp16" and not device.startswith("cuda"):
        raise InputError("fp16 needs a GPU: use --precision auto, bf16 or fp32 on this machine")


def encode_here(encoder: Encoder, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """See Encoder.encode."""
    return encoder.encode(crops, mirror)


def choose(
    encoder: Encoder,
    crops: np.ndarray,
    mirror: np.ndarray,
    device: str,
    encode: Encode = encode_here,
) -> tuple[Encoder, str]:
    """Pick the precision of a new cache on its first batch, which `encode` has embedded.

    On CUDA fp16 autocast; on a CPU a faster precision only if every row of the batch agrees with
    fp32 at cosine >= 0.9995.

    Returns:
        The encoder at that precision, and a sentence that says why.
    """
    tried = []
    exact = None
    for precision in encoder.candidates():
        faster = encoder.at(precision)
        if device.startswith("cuda"):
            return faster, f"{precision} on the GPU"
        exact = encode(encoder, crops, mirror) if exact is None else exact
        worst = float(np.min(cosines(encode(faster, crops, mirror), exact)))
        verdict = f"worst cosine to fp32 {worst:.5f} over {len(crops)} crops"
        if worst >= AGREEMENT:
            return faster, f"{precision}, {verdict}"
        tried.append(f"{precision} refused, {verdict}")
    return encoder.at("fp32"), "; ".join(["fp32", *tried])
