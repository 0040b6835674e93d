"""Where weights come from: a file, the local cache of the hub, or, when asked for, the network."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.embed.backbones import PRETRAINED, Backbone
from archiveprobe.task.config import nearest

_CONNECT_SECONDS = 3.0
_TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
_OPEN_CLIP_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)


@dataclass(frozen=True)
class Source:
    """A repository on the Hugging Face hub, with the file names to try in order."""

    repository: str
    files: tuple[str, ...]


def declared(backbone: Backbone) -> Mapping[str, Any]:
    """What the library's registry says of model and weights; empty without a tag.

    Raises:
        InputError: the registry knows no such model or weights; the message names the nearest.
    """
    return _declared_timm(backbone) if backbone.library == "timm" else _declared_clip(backbone)


def _declared_timm(backbone: Backbone) -> Mapping[str, Any]:
    timm = libraries.timm()
    full = f"{backbone.model}.{backbone.tag}" if backbone.tag else backbone.model
    if not timm.is_model(backbone.model):
        hint = nearest(backbone.model, timm.list_models())
        raise InputError(f"timm knows no model {backbone.model!r}{hint}: correct its name")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{backbone.model}.*")]
    if backbone.tag and backbone.tag not in tags:
        raise InputError(
            f"timm knows no weights {backbone.tag!r} for {backbone.model}"
            f"{nearest(backbone.tag, tags)}: it has {', '.join(tags) or 'none'}"
        )
    config = timm.get_pretrained_cfg(full)
    record: dict[str, Any] = config.to_dict() if config else {}
    return record


def _declared_clip(backbone: Backbone) -> Mapping[str, Any]:
    open_clip = libraries.open_clip()
    models = open_clip.list_models()
    if backbone.model not in models:
        hint = nearest(backbone.model, models)
        raise InputError(f"open_clip knows no model {backbone.model!r}{hint}: correct its name")
    if backbone.tag is None:
        return {}
    config: dict[str, Any] = open_clip.get_pretrained_cfg(backbone.model, backbone.tag)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(backbone.model)
        raise InputError(
            f"open_clip knows no weights {backbone.tag!r} for {backbone.model}"
            f"{nearest(backbone.tag, tags)}: it has {', '.join(tags) or 'none'}"
        )
    return config


def source(backbone: Backbone) -> Source:
    """Where the pretrained weights of a backbone lie on the hub.

    Raises:
        InputError: the registry names no place for them.
    """
    config = declared(backbone)
    if backbone.library == "timm":
        repository = config.get("hf_hub_id") or ""
        named = config.get("hf_hub_filename")
        files: tuple[str, ...] = (named,) if named else _TIMM_FILES
    else:
        repository, _, named = (config.get("hf_hub") or "").rpartition("/")
        files = (named,) if named else _OPEN_CLIP_FILES
    if not repository:
        raise InputError(
            f"{backbone.described} has no pretrained weights on the hub: choose other weights, or "
            f"give a file in [backbone.NAME] of task.toml"
        )
    return Source(repository, files)


def locate(backbone: Backbone) -> Path | None:
    """The weights file if it is on this machine; never asks the network.

    Raises:
        InputError: a file that task.toml names is missing.
    """
    if backbone.weights != PRETRAINED:
        return _own_file(backbone)
    from huggingface_hub import try_to_load_from_cache

    place = source(backbone)
    for name in place.files:
        found = try_to_load_from_cache(place.repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _own_file(backbone: Backbone) -> Path:
    file = Path(backbone.weights)
    if not file.is_file():
        raise InputError(
            f"no weights file {file} for backbone {backbone.name!r}: correct `weights` in task.toml"
        )
    return file


def fetch(backbone: Backbone) -> Path:
    """The weights file, downloaded if need be.

    Raises:
        InputError: neither cached nor reachable; says so at once instead of retrying for minutes.
    """
    found = locate(backbone)
    if found is not None:
        return found
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    place = source(backbone)
    if not hub_reachable():
        raise InputError(_missing(backbone, place, f"{_hub_address()[0]} cannot be reached"))
    for name in place.files:
        try:
            return Path(hf_hub_download(place.repository, name))
        except Exception as error:
            absent = isinstance(error, EntryNotFoundError)
            if absent and not isinstance(error, LocalEntryNotFoundError):
                continue
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(_missing(backbone, place, reason)) from None
    raise InputError(_missing(backbone, place, "the repository holds no weights file"))


def _hub_address() -> tuple[str, int]:
    """The host to try: the hub's endpoint, or the proxy that leads there."""
    from huggingface_hub.constants import ENDPOINT

    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    address = urlparse(proxy or ENDPOINT)
    return address.hostname or "huggingface.co", address.port or 443


def hub_reachable() -> bool:
    """Whether the hub answers; a few seconds at most, and never where it is switched off."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return False
    try:
        socket.create_connection(_hub_address(), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _missing(backbone: Backbone, place: Source, reason: str) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return (
        f"no weights for backbone {backbone.name!r}: {backbone.described} ({place.repository}) is "
        f"not in {HF_HUB_CACHE}, and {reason}: run `archiveprobe weights TASK` on a machine with a "
        'network and copy that folder, or set weights = "FILE" (or "random", for a trial) under '
        f"[backbone.NAME] in task.toml"
    )
