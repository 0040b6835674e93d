"""The table of backbones, and how a name in task.toml becomes one."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import TUNED, Decode, OwnBackbone, Preprocess, Task, nearest
from archiveprobe.task.texts import has_texts, text_cache

if TYPE_CHECKING:
    from archiveprobe.evaluate.tuned import TunedNetwork

PRETRAINED = "pretrained"
RANDOM = "random"
HUB = "hf-hub:"
_TAG_MARK = {"timm": ".", "open_clip": "/"}
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@(?!.*\.\.)[\w./-]+)?")


@dataclass(frozen=True)
class Backbone:
    """A network, its weights and what is known of it without building it.

    `model` and `tag` are the library's own names, or "hf-hub:ORG/MODEL" and a revision. `width` is
    the length of the pooled embedding and `size` the side of the input in pixels, both None where
    only the built model can tell. `weights` is "pretrained", "random" or the path of a file;
    `layers` is a name in LAYERS, `tower` says which half of a CLIP the embeddings come from, and
    `decode` how its images are decoded. `tuned` is the fine-tuned network whose weights are laid
    over it.
    """

    name: str
    library: Literal["timm", "open_clip", "descriptor"]
    model: str
    tag: str | None = None
    width: int | None = None
    size: int | None = None
    licence: str = "unknown"
    weights: str = PRETRAINED
    arguments: Mapping[str, str | int | float | bool] = field(
        default_factory=lambda: MappingProxyType({})
    )
    preprocess: Preprocess | None = None
    layers: str = "pooled"
    tower: Literal["image", "text"] = "image"
    decode: Decode = "exact"
    tuned: "TunedNetwork | None" = None

    @property
    def cache(self) -> str:
        """Return the name that its caches begin with."""
        return text_cache(self.name) if self.tower == "text" else self.name

    @property
    def repository(self) -> str | None:
        """Return the repository of the hub that the model is from, None where a library has it."""
        return self.model.removeprefix(HUB) if self.model.startswith(HUB) else None

    @property
    def described(self) -> str:
        """Return the library's name for model and weights, as task.toml may write it."""
        mark = "@" if self.repository else _TAG_MARK.get(self.library, "")
        return f"{self.library}:{self.model}" + (f"{mark}{self.tag}" if self.tag else "")


def _clip(name: str, model: str, tag: str, width: int, size: int, licence: str) -> Backbone:
    return Backbone(name, "open_clip", model, tag, width, size, licence)


def _timm(name: str, model: str, tag: str, width: int, size: int, licence: str) -> Backbone:
    return Backbone(name, "timm", model, tag, width, size, licence)


_APACHE, _APPLE, _MIT, _NC = "Apache-2.0", "Apple-AMLR", "MIT", "CC-BY-NC-4.0"
_DINOV3, _NVIDIA = "DINOv3-License", "NVIDIA-Open-Model-License"
_FCMAE, _LAION = "fcmae_ft_in22k_in1k_384", "laion2b_s29b_b131k_ft_soup"
# Name, the library's model and weights tag, width of the embedding, side of the input in pixels,
# licence of the weights. tests/embed/test_backbones.py checks every line against the libraries.
_ROWS = (
    Backbone("hog", "descriptor", "hog", None, 1860, 128, _APACHE),
    _clip("clip-vit-b32", "ViT-B-32-quickgelu", "openai", 512, 224, _MIT),
    _clip("clip-vit-l14-336", "ViT-L-14-336-quickgelu", "openai", 768, 336, _MIT),
    _clip("dfn-vit-l14", "ViT-L-14-quickgelu", "dfn2b", 768, 224, _APPLE),
    _clip("dfn-vit-h14-378", "ViT-H-14-378-quickgelu", "dfn5b", 1024, 378, _APPLE),
    _clip("siglip2-so400m-384", "ViT-SO400M-16-SigLIP2-384", "webli", 1152, 384, _APACHE),
    _clip("siglip2-so400m-512", "ViT-SO400M-16-SigLIP2-512", "webli", 1152, 512, _APACHE),
    _clip("pe-core-l14-336", "PE-Core-L-14-336", "meta", 1024, 336, _APACHE),
    _clip("metaclip2-h14", "ViT-H-14-worldwide-quickgelu", "metaclip2_worldwide", 1024, 224, _NC),
    _clip("metaclip2-h14-378", "ViT-H-14-worldwide-378", "metaclip2_worldwide", 1024, 378, _NC),
    _clip("mobileclip2-s4", "MobileCLIP2-S4", "dfndr2b", 768, 256, _APPLE),
    _clip("eva02-l14-336", "EVA02-L-14-336", "merged2b_s6b_b61k", 768, 336, _MIT),
    _clip("laion-convnext-l-320", "convnext_large_d_320", _LAION, 768, 320, _MIT),
    _timm("convnextv2-nano-384", "convnextv2_nano", _FCMAE, 640, 384, _NC),
    _timm("convnextv2-base-384", "convnextv2_base", _FCMAE, 1024, 384, _NC),
    _timm("convnext-tiny", "convnext_tiny", "in12k_ft_in1k", 768, 224, _APACHE),
    _timm("maxvit-base-384", "maxvit_base_tf_384", "in21k_ft_in1k", 768, 384, _APACHE),
    _timm("dinov2-vit-l14", "vit_large_patch14_dinov2", "lvd142m", 1024, 518, _APACHE),
    _timm("dinov3-vit-l16", "vit_large_patch16_dinov3", "lvd1689m", 1024, 256, _DINOV3),
    _timm("dinov3-convnext-l", "convnext_large", "dinov3_lvd1689m", 1536, 224, _DINOV3),
    _timm("dinov3-convnext-tiny", "convnext_tiny", "dinov3_lvd1689m", 768, 224, _DINOV3),
    _timm("tipsv2-vit-l14", "vit_large_patch14_reg1_tipsv2", "webli", 1024, 448, _APACHE),
    _timm("c-radiov4-so400m", "vit_so400m_patch16_radio_v4", "c_radio", 1152, 512, _NVIDIA),
    _timm("swin-base", "swin_base_patch4_window7_224", "ms_in22k_ft_in1k", 1024, 224, _MIT),
    _timm("resnet18", "resnet18", "a1_in1k", 512, 224, _APACHE),
    _timm("resnet34", "resnet34", "a1_in1k", 512, 224, _APACHE),
    _timm("resnet50", "resnet50", "a1_in1k", 2048, 224, _APACHE),
    _timm("efficientnet-b0", "efficientnet_b0", "ra_in1k", 1280, 224, _APACHE),
    _timm("efficientnet-b3", "efficientnet_b3", "ra2_in1k", 1536, 288, _APACHE),
    _timm("mobilenetv2", "mobilenetv2_100", "ra_in1k", 1280, 224, _APACHE),
)
BACKBONES: Mapping[str, Backbone] = MappingProxyType({row.name: row for row in _ROWS})


def text_tower(backbone: Backbone) -> Backbone | None:
    """Return the other half of a CLIP, which embeds prompts and captions; else None."""
    if backbone.library != "open_clip" or backbone.tuned is not None:
        return None
    return replace(backbone, tower="text", layers="pooled", preprocess=None, decode="exact")


def resolve(name: str, task: Task) -> Backbone:
    """Return the backbone of that name: one of the task's own, of the table, or a library's.

    It is read at the layers that the task asks for, of images decoded as the task asks.

    Raises:
        InputError: no such backbone; the message names the nearest.
    """
    backbone = _named(name, task)
    backbone = replace(backbone, layers=task.embed.layers, decode=task.embed.decode)
    # A fine-tuned network looks at what it was trained on.
    on_cpu = backbone.library == "descriptor" or backbone.tuned is not None
    return decoded_on_cpu(backbone) if on_cpu else backbone


def decoded_on_cpu(backbone: Backbone) -> Backbone:
    """Return the same backbone without a GPU that decodes its images."""
    return replace(backbone, decode="exact") if backbone.decode == "gpu" else backbone


def task_backbones(task: Task) -> list[Backbone]:
    """Return what the task's embeddings come from: its backbones, then text towers for its texts.

    Raises:
        InputError: an unknown backbone.
    """
    images = [resolve(name, task) for name in dict.fromkeys(task.embed.backbones)]
    texts = [text_tower(backbone) for backbone in images] if has_texts(task) else []
    return [*images, *(tower for tower in texts if tower)]


def _named(name: str, task: Task) -> Backbone:
    if name in task.backbone:
        return _own(name, task.backbone[name], task)
    if name in BACKBONES:
        return BACKBONES[name]
    if name.startswith(TUNED):
        return _tuned(name, task)
    library, _, model = name.partition(":")
    if model and library == "timm":
        return Backbone(name, "timm", *_split("timm", model))
    if model and library == "open_clip":
        arch, tag = _split("open_clip", model)
        if tag is None and not arch.startswith(HUB):
            raise InputError(f"backbone {name!r} names no weights: write open_clip:ARCH/TAG")
        return Backbone(name, "open_clip", arch, tag)
    known = [*task.backbone, *BACKBONES]
    raise InputError(
        f"unknown backbone {name!r}{nearest(name, known)} in {task.file}: `archiveprobe list "
        "backbones` shows the table; timm:NAME, open_clip:ARCH/TAG and both libraries' "
        "hf-hub:ORG/MODEL work too"
    )


def _tuned(name: str, task: Task) -> Backbone:
    from archiveprobe.evaluate.tuned import network_named

    network = network_named(task, name)
    base = _named(str(network.model["backbone"]), task)
    weights = RANDOM if network.model.get("weights") == RANDOM else base.weights
    # Trained in whole nothing is left of what it started from.
    weights = str(network.file) if network.is_whole else weights
    return replace(base, name=name, weights=weights, tuned=network)


def _split(library: str, model: str) -> tuple[str, str | None]:
    """Return the library's name of a model, and the tag of its weights, or of a revision.

    Raises:
        InputError: a repository of the hub that is not ORG/MODEL.
    """
    if model.startswith(HUB):
        arch, _, tag = model.partition("@")
        if not _REPOSITORY.fullmatch(model.removeprefix(HUB)):
            raise InputError(
                f"{library}:{model} names no repository: write {library}:{HUB}ORG/MODEL, and "
                "@REVISION behind it to pin one"
            )
        return arch, tag or None
    arch, _, tag = model.partition(_TAG_MARK[library])
    return arch, tag or None


def _own(name: str, own: OwnBackbone, task: Task) -> Backbone:
    arch, tag = _split(own.library, own.name)
    from_file = own.weights not in (PRETRAINED, RANDOM)
    return Backbone(
        name,
        own.library,
        arch,
        tag,
        weights=str(task.folder / own.weights) if from_file else own.weights,
        arguments=MappingProxyType(dict(own.arguments)),
        preprocess=own.preprocess,
    )
