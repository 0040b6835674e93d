"""The precision of a new cache: the fastest one that agrees with fp32."""

from collections.abc import Callable

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.embed.device import has_tensor_cores
from archiveprobe.embed.networks import LoadedBackbone

AGREEMENT = 0.9995
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")

Embed = Callable[[LoadedBackbone, np.ndarray, np.ndarray], np.ndarray]


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the cosine of every row of two (n, *shape) arrays; NaN where a row is zero.

    In float64, because 1 - cosine of equal rows is 1e-7 in float32, and sums of float16 overflow.
    """
    a = left.reshape(len(left), -1).astype(np.float64)
    b = right.reshape(len(right), -1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        result: np.ndarray = (a * b).sum(1) / lengths
    return result


def worst_cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Return the lowest cosine of the rows of two (n, *shape) arrays; NaN where there is one."""
    return float(np.min(cosines(left, right)))


def check_precision(precision: str, device: str) -> None:
    """Refuse a precision that the device cannot compute.

    Raises:
        InputError: fp16 without CUDA, or tf32 without such a card of Ampere's generation or later.
    """
    if not computes(precision, device):
        needs = "a GPU with CUDA" + ", Ampere or later" * (precision == "tf32")
        raise InputError(f"{precision} needs {needs}: use the precision bf16 or fp32 on {device}")


def computes(precision: str, device: str) -> bool:
    """Return whether a device has a precision; a cache of one that it lacks goes on in fp32."""
    if precision == "tf32":
        return has_tensor_cores(device)
    return precision != "fp16" or device.startswith("cuda")


def check_agreement(loaded: LoadedBackbone, crops: np.ndarray, mirror: np.ndarray) -> None:
    """Compare the embeddings of some crops with those that the CPU computes.

    Convolutions on Apple's GPUs have been silently wrong in several versions of torch
    (pytorch/pytorch#174345, #180984, #188335).

    Raises:
        InputError: a row disagrees.
    """
    expected = loaded.on_cpu().embed(crops, mirror)
    worst = worst_cosine(loaded.embed(crops, mirror), expected)
    # A NaN agrees with nothing.
    if not worst >= AGREEMENT:
        raise InputError(
            f"{loaded.name} gives other numbers on this GPU than on the CPU, worst cosine "
            f"{worst:.5f} over {len(crops)} crops: use the device cpu, or another version of torch"
        )


def choose_precision(
    loaded: LoadedBackbone,
    crops: np.ndarray,
    mirror: np.ndarray,
    embed: Embed = lambda loaded, crops, mirror: loaded.embed(crops, mirror),
) -> tuple[LoadedBackbone, str]:
    """Choose the precision of a new cache on its first crops; `embed` runs the backbone.

    A faster precision only if every row of the batch agrees with fp32 at cosine >= 0.9995.

    Returns:
        The backbone at that precision, and a sentence that says why.
    """
    refused: list[str] = []
    exact = None
    for precision in loaded.faster_precisions():
        faster = loaded.at(precision)
        exact = embed(loaded, crops, mirror) if exact is None else exact
        worst = worst_cosine(embed(faster, crops, mirror), exact)
        measured = f"worst cosine to fp32 {worst:.5f} over {len(crops)} crops"
        if worst >= AGREEMENT:
            return faster, "; ".join([f"{precision}, {measured}", *refused])
        refused.append(f"{precision} refused, {measured}")
    return loaded.at("fp32"), "; ".join(["fp32", *refused])
