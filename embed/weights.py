"""Where weights come from: a file, the local cache of the hub, or, when asked for, the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.embed.backbones import PRETRAINED, RANDOM, Backbone, task_backbones
from archiveprobe.embed.hub import (
    HubFiles,
    download,
    fetch_config,
    find,
    hub_config,
    local_name,
    revision,
)
from archiveprobe.embed.libraries import make_torchvision_importable
from archiveprobe.task.config import Task, nearest

_TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
_OPEN_CLIP_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)


def registry_config(backbone: Backbone) -> Mapping[str, Any]:
    """Return what the library's registry says of model and weights; empty without a tag.

    Of a repository of the hub, what its configuration says, downloaded if need be.

    Raises:
        InputError: the registry knows no such model or weights (the message names the nearest), or
            no such repository can be had.
    """
    make_torchvision_importable()
    if backbone.repository:
        return hub_config(backbone)
    if backbone.library == "timm":
        import timm

        _check_known(backbone, timm.is_model(backbone.model), timm.list_models())
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{backbone.model}.*")]
        _check_tag(backbone, backbone.tag is None or backbone.tag in tags, tags)
        config = timm.get_pretrained_cfg(local_name(backbone))
        return dict(vars(config)) if config else {}
    import open_clip

    models = open_clip.list_models()
    _check_known(backbone, backbone.model in models, models)
    if backbone.tag is None:
        return {}
    record: dict[str, Any] = open_clip.get_pretrained_cfg(backbone.model, backbone.tag)
    _check_tag(backbone, bool(record), open_clip.list_pretrained_tags_by_model(backbone.model))
    return record


def _check_known(backbone: Backbone, known: bool, models: list[str]) -> None:
    if not known:
        raise InputError(
            f"{backbone.library} knows no model {backbone.model!r}"
            f"{nearest(backbone.model, models)}: correct its name"
        )


def _check_tag(backbone: Backbone, known: bool, tags: list[str]) -> None:
    if not known:
        raise InputError(
            f"{backbone.library} knows no weights {backbone.tag!r} for {backbone.model}"
            f"{nearest(str(backbone.tag), tags)}: it has {', '.join(tags) or 'none'}"
        )


def files_on_hub(backbone: Backbone) -> HubFiles | None:
    """Return where the pretrained weights of a backbone lie on the hub; never ask the network.

    None where a repository's commit is not known yet.

    Raises:
        InputError: the registry names no place for them.
    """
    if backbone.repository:
        commit = revision(backbone)
        files = _TIMM_FILES if backbone.library == "timm" else _OPEN_CLIP_FILES
        return HubFiles(backbone.repository, files, commit) if commit else None
    config = registry_config(backbone)
    if backbone.library == "timm":
        repository, file = config.get("hf_hub_id") or "", config.get("hf_hub_filename")
        usual: tuple[str, ...] = _TIMM_FILES
    else:
        repository, _, file = (config.get("hf_hub") or "").rpartition("/")
        usual = _OPEN_CLIP_FILES
    if not repository:
        raise InputError(
            f"{backbone.described} has no pretrained weights on the hub: choose other weights, or "
            f"give a file in [backbone.NAME] of task.toml"
        )
    return HubFiles(repository, (file,) if file else usual)


def locate(backbone: Backbone) -> Path | None:
    """Return the weights file if it is on this machine; never ask the network.

    Raises:
        InputError: a file that task.toml names is missing.
    """
    if backbone.weights != PRETRAINED:
        file = Path(backbone.weights)
        if not file.is_file():
            raise InputError(
                f"no weights file {file} for backbone {backbone.name!r}: correct its `weights`"
            )
        return file
    hub = files_on_hub(backbone)
    return None if hub is None else find(hub)


def fetch(backbone: Backbone) -> Path:
    """Return the weights file, downloaded if need be.

    Raises:
        InputError: neither cached nor reachable; says so at once instead of retrying for minutes.
    """
    file = locate(backbone)
    if file is not None:
        return file
    if backbone.repository:
        # Of the same commit as the configuration, which is fetched first.
        fetch_config(backbone)
    hub = files_on_hub(backbone)
    assert hub is not None
    return download(backbone, hub)


@dataclass(frozen=True)
class WeightsLine:
    """A backbone's weights and the file they lie in."""

    backbone: str
    weights: str
    file: str


def fetch_all(task: Task) -> list[WeightsLine]:
    """Fetch the weights of every backbone of the task and say where they lie.

    Raises:
        InputError: some are neither here nor reachable.
    """
    lines, faults = [], []
    for backbone in task_backbones(task):
        try:
            lines.append(_weights_line(backbone))
        except InputError as error:
            faults.append(str(error))
    if faults:
        here = ", ".join(line.backbone for line in lines) or "none"
        more = f" ({len(faults) - 1} more are missing; here: {here})"
        raise InputError(faults[0] + (more if len(faults) > 1 or lines else ""))
    return lines


def _weights_line(backbone: Backbone) -> WeightsLine:
    needed = backbone.library != "descriptor" and backbone.weights != RANDOM
    if backbone.repository:
        fetch_config(backbone)
    file = str(fetch(backbone)) if needed else "none needed"
    if backbone.tower == "text":
        from archiveprobe.embed.text_tower import load_tokenizer

        load_tokenizer(backbone)
    return WeightsLine(backbone.cache, backbone.described, file)
