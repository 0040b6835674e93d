"""Backbones that fine-tuning has changed: the trained tensors laid over the backbone's own."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import is_out_of_memory, memory_for
from archiveprobe.cache.spec import differences, list_changes
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.models import Model, at_size, load_model, misfit, tensor_digest
from archiveprobe.embed.preprocess import Preprocess
from archiveprobe.evaluate.tuned import TunedNetwork

_BODY = "body."


def load_tuned(backbone: Backbone, network: TunedNetwork, *, untrained: bool = False) -> Model:
    """Build a backbone with the weights of a fine-tuned network, in `eval` mode on the CPU.

    Raises:
        InputError: the backbone or the weights are gone, do not fit, or are not those of then.
    """
    plain = replace(backbone, tuned=None)
    loaded = load_model(plain, untrained=untrained or network.is_whole)
    preprocess = at_size(loaded, network.model.get("size"), backbone)
    digest = None if network.is_whole or untrained else loaded.digest
    check_start(backbone.name, backbone.described, network.made_of, preprocess, digest)
    state = read_weights(network.file, network.sha256)
    trained = {
        name.removeprefix(_BODY): tensor for name, tensor in state.items() if name.startswith(_BODY)
    }
    given = {**loaded.module.state_dict(), **trained}
    problem = misfit(loaded.module, given)
    if problem:
        raise InputError(
            f"the weights in {network.file} do not fit {backbone.described}: {problem}: run "
            "finetune again"
        )
    loaded.module.load_state_dict(given, strict=True)
    return Model(loaded.module, preprocess, tensor_digest(loaded.module.state_dict()))


def check_start(
    name: str, backbone: str, then: Mapping[str, Any], preprocess: Preprocess, weights: str | None
) -> None:
    """Check that what was fine-tuned `then` began with this backbone.

    Without `weights`, their digest, only the preprocessing counts: where all of a network was
    trained nothing is left of what it started from.

    Raises:
        InputError: it began with another one; what differs is listed.
    """
    now = {"preprocess": preprocess.record(), "weights": weights or then["weights"]}
    changed = differences({key: then[key] for key in now}, now)
    if changed:
        raise InputError(
            f"{name} was trained on another {backbone}: {list_changes(changed[:3])}: bring that "
            "one back, or run finetune again"
        )


def read_weights(file: Path, digest: str) -> dict[str, Any]:
    """Read the state of a trained part.

    Raises:
        InputError: missing, or not the file of that SHA-256.
    """
    from safetensors.torch import load

    again = f"delete {file.parent} and run finetune again"
    with memory_for(f"reading {file}", "free some and run the same command again"):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise InputError(
                f"cannot read {file}: {error.strerror or error}: bring it back, or {again}"
            ) from None
        # Before it is parsed: safetensors has no checksum of its own.
        if hashlib.sha256(content).hexdigest() != digest:
            raise InputError(f"{file} has changed since it was trained: {again}")
        try:
            return dict(load(content))
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise InputError(f"{file} holds no weights ({error}): {again}") from None
