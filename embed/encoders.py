"""A backbone's line of the table becomes its encoder."""

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import keep_freed_memory, memory_for
from archiveprobe.embed.backbones import RANDOM, Backbone
from archiveprobe.embed.encoder import Encoder, TorchEncoder
from archiveprobe.embed.layers import reader
from archiveprobe.embed.models import load_model


def make_encoder(backbone: Backbone, device: str = "cpu", *, untrained: bool = False) -> Encoder:
    """Build the encoder of a backbone on a device ("cpu", "cuda", "cuda:1").

    Raises:
        InputError: its weights are missing or do not fit, it has no such layers, or memory runs
            out.
    """
    remedy = "free memory, choose a smaller backbone, or embed one at a time with --backbone"
    with memory_for(f"loading {backbone.described} on {device}", remedy):
        return _make_encoder(backbone, device, untrained)


def _make_encoder(backbone: Backbone, device: str, untrained: bool) -> Encoder:
    if backbone.library == "descriptor":
        from archiveprobe.embed.hog import HogEncoder

        if backbone.layers != "pooled":
            raise InputError(f'{backbone.name} has no layers: use layers = "pooled"')
        return HogEncoder(backbone.name)
    if device == "cpu":
        keep_freed_memory()
    if backbone.tower == "text":
        from archiveprobe.embed.text_tower import TextEncoder, load_text_tower

        tower = load_text_tower(backbone, untrained=untrained)
        return TextEncoder(backbone.name, tower, device, random=backbone.weights == RANDOM)
    model = load_model(backbone, untrained=untrained)
    read = reader(model.module, backbone.layers, backbone.described)
    return TorchEncoder(backbone.name, model, device, random=backbone.weights == RANDOM, read=read)
