"""What a cache's numbers depend on, and the request that leads to it without loading torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archiveprobe.embed.backbones import PRETRAINED, RANDOM, Backbone
from archiveprobe.embed.compiling import COMPILED
from archiveprobe.embed.hog import VERSION
from archiveprobe.embed.hub import revision
from archiveprobe.embed.networks import LoadedBackbone
from archiveprobe.embed.view_sets import View
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import policy, release

# Raised whenever views are rendered, or rows stored, in another way than before.
FORMAT = 1
_TORCH_PACKAGES = ("torch", "timm", "open_clip_torch", "pillow")
_PACKAGES = {
    "descriptor": ("scikit-image", "pillow"),
    "timm": _TORCH_PACKAGES,
    "open_clip": _TORCH_PACKAGES,
}


def request(task: Task, backbone: Backbone) -> dict[str, Any]:
    """Return what decides the fingerprint, as far as it is known before weights are loaded."""
    return {
        "asked": task.asks(backbone.name, backbone.tower),
        "source": {
            "library": backbone.library,
            "model": backbone.model,
            "tag": backbone.tag,
            "arguments": dict(backbone.arguments),
            "weights": _weights(backbone),
            **_tuned(backbone),
        },
        "format": FORMAT,
        "decode": policy(backbone.decode),
        "versions": versions(backbone),
    }


def fingerprint(
    backbone: Backbone,
    loaded: LoadedBackbone,
    views: Sequence[View],
    precision: str,
    *,
    compiled: bool = False,
) -> dict[str, Any]:
    """Return everything that the numbers in a cache depend on."""
    return {
        "format": FORMAT,
        "backbone": backbone.cache,
        "library": backbone.library,
        "model": backbone.model,
        "arguments": dict(backbone.arguments),
        "weights": loaded.weights_digest,
        "random_weights": loaded.random_weights,
        **_tuned(backbone),
        **_revision(backbone),
        "preprocess": loaded.preprocess.record(),
        "decode": policy(backbone.decode),
        "views": [view.name for view in views],
        "layers": backbone.layers,
        "precision": precision,
        # Named where it is so only, so that older caches are found.
        **({COMPILED: True} if compiled else {}),
        "stored": "float16",
        "versions": versions(backbone),
    }


def versions(backbone: Backbone) -> dict[str, str]:
    """Return major and minor version of the libraries that the numbers pass through."""
    return {package: release(package) for package in _PACKAGES[backbone.library]}


def _tuned(backbone: Backbone) -> dict[str, Any]:
    """Name the fine-tuned network; nothing for other backbones, so that older caches are found."""
    return {} if backbone.tuned is None else {"tuned": backbone.tuned.record()}


def _revision(backbone: Backbone) -> dict[str, Any]:
    """Name the commit that a repository of the hub stands at here; nothing for other backbones."""
    return {"revision": revision(backbone)} if backbone.repository else {}


def _weights(backbone: Backbone) -> Any:
    if backbone.tuned is not None and backbone.tuned.is_whole:
        return backbone.tuned.sha256
    if backbone.library == "descriptor":
        return f"version {VERSION}"
    if backbone.weights in (PRETRAINED, RANDOM):
        return backbone.weights
    try:
        facts = Path(backbone.weights).stat()
    except OSError:
        return {"bytes": None, "mtime_ns": None}
    return {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}
