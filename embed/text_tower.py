"""The text tower of a CLIP: prompts and captions become embeddings beside those of images."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import one_line
from archiveprobe.embed.backbones import RANDOM, Backbone
from archiveprobe.embed.hub import hub_reachable, local_name, read_config
from archiveprobe.embed.libraries import make_torchvision_importable
from archiveprobe.embed.models import (
    build_clip,
    misfit,
    quiet,
    read_state,
    seeded,
    tensor_digest,
)
from archiveprobe.embed.networks import Network
from archiveprobe.embed.preprocess import Tokens
from archiveprobe.embed.weights import fetch, registry_config

if TYPE_CHECKING:
    import torch


def load_text_network(
    backbone: Backbone, device: str = "cpu", *, untrained: bool = False
) -> "TextNetwork":
    """Load the text tower of a CLIP; its digest is the SHA-256 over its own tensors.

    Raises:
        InputError: as `load_model`, and where the weights hold no text tower or the tokenizer is
            not at hand.
    """
    config = registry_config(backbone)
    tokenizer, name = load_tokenizer(backbone)
    module = seeded(backbone, lambda: build_clip(backbone, config))
    del module.visual
    if backbone.weights != RANDOM and not untrained:
        _load_weights(module, backbone, fetch(backbone))
    module.eval().requires_grad_(False)
    bias = getattr(module, "logit_bias", None)
    tokens = Tokens(
        tokenizer=name,
        length=int(tokenizer.context_length),
        scale=float(module.logit_scale.exp()),
        bias=0.0 if bias is None else float(bias),
    )
    return TextNetwork(backbone, module, tokens, tokenizer, device)


def _load_weights(module: "torch.nn.Module", backbone: Backbone, file: Path) -> None:
    state = {
        name: tensor for name, tensor in read_state(file).items() if not name.startswith("visual.")
    }
    problem = misfit(module, state)
    if problem:
        raise InputError(
            f"the weights in {file} hold no text tower that fits {backbone.described}: {problem}: "
            "name a file with both towers, or remove [prompts] and images.text from task.toml"
        )
    module.load_state_dict(state, strict=True)


def load_tokenizer(backbone: Backbone) -> tuple[Any, str]:
    """Return the tokenizer of a CLIP and its name: open_clip's own, or one from the hub.

    Raises:
        InputError: it is not at hand, or the optional package that it needs is not installed.
    """
    make_torchvision_importable()
    import open_clip

    config: Mapping[str, Any]
    if backbone.repository:
        config = read_config(backbone)["model_cfg"]
    else:
        config = open_clip.get_model_config(backbone.model) or {}
    text = config.get("text_cfg", {})
    name = text.get("hf_tokenizer_name")
    if not name:
        return open_clip.get_tokenizer(local_name(backbone)), "open_clip"
    if importlib.util.find_spec("transformers") is None:
        raise InputError(
            f"the texts of {backbone.described} need the package transformers: install it with "
            "`pip install -c constraints.txt -e '.[texts]'`, or remove [prompts] and images.text"
        )
    offline = {} if hub_reachable() else {"local_files_only": True}
    try:
        with quiet():
            if backbone.repository:
                return _hub_tokenizer(text, offline), str(name)
            return open_clip.get_tokenizer(backbone.model, **offline), str(name)
    except Exception as error:
        reason = one_line(error)
        raise InputError(
            f"cannot get the tokenizer {name} of {backbone.described} ({reason}): fetch it with "
            "`archiveprobe weights TASK` where there is a network"
        ) from None


def _hub_tokenizer(text: Mapping[str, Any], offline: Mapping[str, bool]) -> Any:
    """Return the tokenizer that a repository's configuration names.

    open_clip's own `get_tokenizer` would look for its files beside the configuration.
    """
    from open_clip.tokenizer import HFTokenizer

    return HFTokenizer(
        text["hf_tokenizer_name"],
        context_length=text.get("context_length", 77),
        tokenizer_mode=text.get("tokenizer_mode"),
        **{**text.get("tokenizer_kwargs", {}), **offline},
    )


class TextNetwork(Network):
    """A loaded text tower; its crops are tokens (n, length) int64."""

    def __init__(
        self, backbone: Backbone, module: Any, tokens: Tokens, tokenizer: Any, device: str
    ) -> None:
        digest, random = tensor_digest(module.state_dict()), backbone.weights == RANDOM
        super().__init__(
            backbone.name, module, digest, tokens, device, random=random, read=_encode_text
        )
        self.length = tokens.length
        self._tokenizer = tokenizer

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Return texts as tokens (n, length) int64; those that are too long lose their end."""
        result: np.ndarray = self._tokenizer(list(texts)).numpy()
        return result

    def too_long(self, texts: Sequence[str]) -> int:
        """Count the texts that lose their end."""
        longer = self._tokenizer(list(texts), 2 * self.length).numpy()
        padding = longer[:, -1:]
        return int((longer[:, self.length :] != padding).any(1).sum())

    def _input(
        self,
        crops: "torch.Tensor",
        mirror: np.ndarray,  # noqa: ARG002
        crop: np.ndarray | None,  # noqa: ARG002
    ) -> "torch.Tensor":
        # A text has one view.
        return crops


def _encode_text(module: Any, tokens: "torch.Tensor") -> Any:
    # CoCa's would normalise by default.
    return module.encode_text(tokens, normalize=False)
