"""Files of the Hugging Face hub: from its cache on this machine, or, where asked, the network."""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import one_line
from archiveprobe.embed.backbones import Backbone

_CONNECT_SECONDS = 3.0
_CONFIGS = {"timm": "config.json", "open_clip": "open_clip_config.json"}
# What each library's configuration must hold.
_MODEL_KEYS = {"timm": "architecture", "open_clip": "model_cfg"}


@dataclass(frozen=True)
class HubFiles:
    """A repository on the hub at a revision (None: the newest), and file names to try in order."""

    repository: str
    files: tuple[str, ...]
    revision: str | None = None

    @property
    def where(self) -> dict[str, Any]:
        """Return the revision as the hub's functions take it."""
        return {"revision": self.revision} if self.revision else {}


def find(hub: HubFiles) -> Path | None:
    """Return the first of the files that is on this machine; never ask the network.

    Raises:
        InputError: the hub allows no repository of that name.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for name in hub.files:
        try:
            path = try_to_load_from_cache(hub.repository, name, **hub.where)
        except HFValidationError:
            raise InputError(
                f"{hub.repository!r} is no name of a repository of the hub: correct it"
            ) from None
        if isinstance(path, str):
            return Path(path)
    return None


def download(backbone: Backbone, hub: HubFiles) -> Path:
    """Download the first of the files that the repository has.

    Raises:
        InputError: not reachable, no such repository, none of the files, or a failure on the way.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if not hub_reachable():
        raise InputError(_missing(backbone, hub, f"{_hub_address()[0]} cannot be reached"))
    for name in hub.files:
        try:
            return Path(hf_hub_download(hub.repository, name, **hub.where))
        except Exception as error:
            absent = isinstance(error, EntryNotFoundError)
            if absent and not isinstance(error, LocalEntryNotFoundError):
                continue
            raise InputError(_missing(backbone, hub, _reason(hub, error))) from None
    raise InputError(_missing(backbone, hub, f"the repository holds no {hub.files[0]}"))


def fetch_config(backbone: Backbone) -> Path:
    """Return the file that describes the model in a repository, downloaded if need be.

    Raises:
        InputError: it can be had neither here nor there.
    """
    hub = _config_source(backbone)
    return find(hub) or download(backbone, hub)


def revision(backbone: Backbone) -> str | None:
    """Return the commit that a repository stands at on this machine, None where it is not here."""
    file = find(_config_source(backbone))
    return file.parent.name if file else None


def hub_config(backbone: Backbone) -> Mapping[str, Any]:
    """Return what a repository says of its weights: of their classifier, of preprocessing.

    Raises:
        InputError: it cannot be had, or is no configuration of the backbone's library.
    """
    config = read_config(backbone)
    if backbone.library == "timm":
        return dict(config.get("pretrained_cfg") or config)
    return dict(config.get("preprocess_cfg") or {})


def read_config(backbone: Backbone) -> Mapping[str, Any]:
    """Return the whole configuration in a repository.

    Raises:
        InputError: as `hub_config`.
    """
    file = fetch_config(backbone)
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file} ({error}): delete it to have it fetched") from None
    if not isinstance(config, dict) or _MODEL_KEYS[backbone.library] not in config:
        raise InputError(
            f"{backbone.repository} holds no model of {backbone.library}: {file.name} has no "
            f"{_MODEL_KEYS[backbone.library]!r}: use another repository, or the other library"
        )
    return config


def local_name(backbone: Backbone) -> str:
    """Return the name under which the library builds the model, a repository's from this machine.

    Raises:
        InputError: the configuration of a repository cannot be had.
    """
    if backbone.repository:
        return f"local-dir:{fetch_config(backbone).parent}"
    has_tag = backbone.library == "timm" and backbone.tag
    return f"{backbone.model}.{backbone.tag}" if has_tag else backbone.model


def _config_source(backbone: Backbone) -> HubFiles:
    assert backbone.repository is not None
    return HubFiles(backbone.repository, (_CONFIGS[backbone.library],), backbone.tag)


def _hub_address() -> tuple[str, int]:
    """Return the host to try: the hub's endpoint, or the proxy that leads there."""
    from huggingface_hub.constants import ENDPOINT

    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    address = urlparse(proxy or ENDPOINT)
    return address.hostname or "huggingface.co", address.port or 443


def hub_reachable() -> bool:
    """Return whether the hub answers, within seconds; never ask where it is switched off."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return False
    try:
        socket.create_connection(_hub_address(), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _reason(hub: HubFiles, error: Exception) -> str:
    """Say why a download failed."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "its owner wants its terms accepted there first, and `hf auth login` here"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such repository, or shows it to others only (`hf auth login`)"
    if isinstance(error, RevisionNotFoundError):
        return f"the repository has no revision {hub.revision!r}"
    return one_line(error, 200) or type(error).__name__


def _missing(backbone: Backbone, hub: HubFiles, reason: str) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return (
        f"no weights for backbone {backbone.name!r}: {backbone.described} ({hub.repository}) is "
        f"not in {HF_HUB_CACHE}, and {reason}: run `archiveprobe weights TASK` on a machine with a "
        'network and copy that folder, or set weights = "FILE" (or "random", for a trial) under '
        f"[backbone.NAME] in task.toml"
    )
