"""New images, embedded exactly as those that a system was trained on, in a cache of their own."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Progress
from archiveprobe.cache.spec import CacheRecord, differences, find_caches
from archiveprobe.embed.backbones import PRETRAINED, RANDOM, resolve
from archiveprobe.embed.device import default_device
from archiveprobe.embed.fingerprint import request
from archiveprobe.embed.job import Notify
from archiveprobe.embed.run import Options, embed
from archiveprobe.task.config import Embed, Images, OwnBackbone, Task
from archiveprobe.task.texts import is_text_cache

# What a cache's request says of the libraries and the decoding, known before weights are loaded.
_KNOWN_AHEAD = ("format", "decode", "versions")
# The descriptor that costs least, so that every image is decoded and has a status.
_LOOKING = "hog"


def embed_new(
    task: Task,
    images: Path,
    sources: Mapping[str, str],
    how: Options,
    notify: Notify,
    progress: Progress,
) -> Task:
    """Embed every image below `images` through the backbones in `sources`.

    `sources` maps backbones to the digests of the fingerprints to reproduce; without any, images
    are only looked at, for networks that see them themselves. Returns the archive as a task of its
    own, whose work folder lies in the task's work/new.

    Raises:
        InputError: no such folder, or this machine's weights or libraries give other numbers.
        InputError: a cache cannot be written.
    """
    root = _checked_root(task, images)
    wanted = _records(task, sources)
    archive = _archive(task, root)
    for record in wanted.values():
        _check_ahead(archive, record, how.device or default_device())
    alike = _alike(wanted) or {("center", "pooled", "auto"): [_LOOKING]}
    for (views, layers, precision), names in alike.items():
        part = _asking(archive, tuple(names), views, layers)
        options = replace(how, precision=precision)
        embed(part, options, notify=_without_folds(notify), progress=progress)
        for name in wanted.keys() & set(names):
            _check_after(part, name, wanted[name])
    return archive


def _checked_root(task: Task, images: Path) -> Path:
    try:
        root = images.resolve()
        is_there = root.is_dir()
    except (RuntimeError, OSError, ValueError):
        is_there = False  # a link that leads back to itself
    if not is_there:
        fault = f"{images} is no folder" if os.path.lexists(images) else f"no folder {images}"
        raise InputError(f"{fault}: name the folder of the images")
    if task.work.resolve().is_relative_to(root):
        raise InputError(
            f"{images} holds the task's own work folder: name the folder of the new images only"
        )
    return root


def _records(task: Task, sources: Mapping[str, str]) -> dict[str, CacheRecord]:
    """Find the caches of images that a system was trained on, by backbone."""
    records = {}
    for name, digest in sources.items():
        if is_text_cache(name):
            continue
        fitting = [r for r in find_caches(task.work / "cache", name) if r.digest == digest]
        if not fitting:
            raise InputError(
                f"the cache of {name} that the system was trained on is not in "
                f"{task.work / 'cache'}: bring it back, or run `archiveprobe embed {task.file}` "
                f"and `archiveprobe probe {task.file}`"
            )
        records[name] = fitting[0]
    return records


def _archive(task: Task, root: Path) -> Task:
    """Make a task without labels over the images below `root`."""
    digest = hashlib.sha256(str(root).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    own = {name: _absolute(task, backbone) for name, backbone in task.backbone.items()}
    return Task(
        file=task.work / "new" / digest / "task.toml",
        name=task.name,
        images=Images(root=str(root)),
        backbone=own,
    )


def _absolute(task: Task, backbone: OwnBackbone) -> OwnBackbone:
    if backbone.weights in (PRETRAINED, RANDOM):
        return backbone
    return backbone.model_copy(update={"weights": str(task.folder / backbone.weights)})


def _alike(wanted: Mapping[str, CacheRecord]) -> dict[tuple[str, str, str], list[str]]:
    """Group backbones by views, layers and precision: those that share them decode once."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name, record in wanted.items():
        asked: Mapping[str, Any] = record.request["asked"]
        precision = str(record.fingerprint["precision"])
        groups[str(asked["views"]), str(asked["layers"]), precision].append(name)
    return groups


def _asking(archive: Task, backbones: tuple[str, ...], views: str, layers: str) -> Task:
    asked = Embed(backbones=backbones, views=views, layers=layers)
    return archive.model_copy(update={"embed": asked})


def _check_ahead(archive: Task, record: CacheRecord, device: str) -> None:
    """Refuse before hours of work what is sure to give other numbers."""
    if record.fingerprint["precision"] == "fp16" and not device.startswith("cuda"):
        raise InputError(
            f"{record.folder.name}, which the system was trained on, was computed in fp16, which "
            "needs a GPU with CUDA: run this where there is one, or embed and probe again in fp32"
        )
    asked = record.request["asked"]
    part = _asking(archive, (asked["backbone"],), asked["views"], asked["layers"])
    now = request(part, resolve(asked["backbone"], part))
    changed = differences(
        {key: record.request[key] for key in _KNOWN_AHEAD}, {key: now[key] for key in _KNOWN_AHEAD}
    )
    if changed:
        _refuse(record, changed)


def _check_after(part: Task, name: str, record: CacheRecord) -> None:
    """Check that the new cache has the old fingerprint; no image at all gives no cache."""
    caches = find_caches(part.work / "cache", name)
    if caches and record.digest not in {cache.digest for cache in caches}:
        _refuse(record, differences(record.fingerprint, caches[-1].fingerprint))


def _refuse(record: CacheRecord, changed: list[tuple[str, Any, Any]]) -> None:
    listed = "; ".join(f"{field} was {old!r}, is {new!r}" for field, old, new in changed[:3])
    raise InputError(
        f"new images would not be embedded as {record.folder.name}, which the system was trained "
        f"on: {listed}: bring those weights and libraries back, or embed and probe again here"
    )


def _without_folds(notify: Notify) -> Notify:
    """Leave out the message on folds: new images have no labels."""
    return lambda text: None if text.startswith("no folds: ") else notify(text)
