"""Networks compiled by torch.compile: taken only where they agree with the plain ones."""

import numpy as np

from archiveprobe.base.memory import is_out_of_memory
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.embed.networks import LoadedBackbone
from archiveprobe.embed.precision import AGREEMENT, Embed, worst_cosine

COMPILED = "compiled"
"""Marks fingerprints of numbers that a compiled network has made."""
# Characters of a library's own words.
_SHOWN = 120


def was_compiled(cache: CacheRecord) -> bool:
    """Return whether the numbers of a cache are those of a compiled network."""
    return bool(cache.fingerprint.get(COMPILED))


def compile_network(
    loaded: LoadedBackbone, crops: np.ndarray, mirror: np.ndarray, embed: Embed
) -> tuple[LoadedBackbone, str]:
    """Compile a network, and compare it with the plain one on some crops; `embed` runs both.

    Returns:
        The compiled network and the agreement; or, where torch.compile fails or a row agrees at a
        cosine below 0.9995, the plain one and the reason.
    """
    expected = embed(loaded, crops, mirror)
    try:
        compiled = loaded.compiled()
        worst = worst_cosine(embed(compiled, crops, mirror), expected)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # The first line says it; a log of the compiler may follow.
        first = str(error).strip().partition("\n")[0]
        reason = f"{type(error).__name__}: {first}"[:_SHOWN]
        return loaded, f"torch.compile is not used ({reason})"
    measured = f"worst cosine to the plain network {worst:.5f} over {len(crops)} crops"
    # A NaN agrees with nothing.
    if not worst >= AGREEMENT:
        return loaded, f"torch.compile is not used, {measured}"
    return compiled, f"torch.compile, {measured}"
