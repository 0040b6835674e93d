"""Where weights come from: this machine at once, or one line that says what is missing."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from archiveprobe.embed import weights
from archiveprobe.embed.backbones import BACKBONES, Backbone
from archiveprobe.embed.hub import HubFiles
from archiveprobe.embed.weights import fetch, files_on_hub, locate, registry_config

CLIP, NANO = BACKBONES["clip-vit-b32"], BACKBONES["convnextv2-nano-384"]
HUB = [row for row in BACKBONES.values() if row.library != "descriptor"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """No connection is made in these tests, and the hub's cache on this machine is empty."""
    tried: list[Any] = []

    def refuse(address: Any, *_: Any, **__: Any) -> Any:
        tried.append(address)
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: refuse(address))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tried


@pytest.mark.parametrize("backbone", HUB, ids=lambda row: row.name)
def test_the_registry_declares_every_row_of_the_table(backbone) -> None:
    place = files_on_hub(backbone)
    assert place.repository.count("/") == 1
    assert place.files


@pytest.mark.parametrize(
    ("library", "model", "tag", "words"),
    [
        ("timm", "resnet8", None, ("timm", "'resnet8'", "did you mean 'resnet")),
        ("timm", "resnet18", "a1_in2k", ("'a1_in2k'", "did you mean 'a1_in1k'", "it has")),
        ("timm", "test_resnet", "zzz", ("'zzz'", "it has r160_in1k")),
        ("open_clip", "ViT-B-33", "openai", ("'ViT-B-33'", "did you mean 'ViT-B-3")),
        ("open_clip", "ViT-B-32", "opnai", ("'opnai'", "did you mean 'openai'")),
        ("open_clip", "RN50-quickgelu", "webli", ("'webli'", "it has openai")),
    ],
)
def test_unknown_models_and_weights_are_named_with_the_nearest(
    fault_of, library, model, tag, words
) -> None:
    fault_of(lambda: registry_config(Backbone("own", library, model, tag)), *words)


def test_without_a_tag_there_is_nothing_declared_for_open_clip() -> None:
    assert registry_config(Backbone("own", "open_clip", "ViT-B-32")) == {}


@pytest.mark.parametrize("backbone", [CLIP, NANO], ids=lambda row: row.name)
def test_neither_here_nor_reachable_is_one_line_with_the_ways_out(
    fault_of, no_network, tmp_path, backbone
) -> None:
    place = files_on_hub(backbone)
    fault_of(
        lambda: fetch(backbone),
        backbone.name,
        backbone.model,
        str(backbone.tag),
        backbone.described,
        place.repository,
        str(tmp_path / "hub"),
        "huggingface.co cannot be reached",
        "archiveprobe weights",
        "weights =",
        "task.toml",
    )
    assert no_network == [("huggingface.co", 443)]  # Tried once, not for minutes.


def test_offline_mode_tries_nothing(fault_of, no_network, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    fault_of(lambda: fetch(CLIP), "cannot be reached")
    assert no_network == []


def test_a_proxy_is_what_must_be_reachable(fault_of, no_network, monkeypatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    fault_of(lambda: fetch(CLIP), "proxy.example cannot be reached")
    assert no_network == [("proxy.example", 3128)]


def test_weights_in_the_hubs_cache_are_found_without_a_network(
    monkeypatch, no_network, tmp_path
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"w")
    asked = []

    def find(repository: str, name: str) -> str | None:
        asked.append((repository, name))
        return str(file) if name.endswith(".bin") else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", find)
    assert locate(NANO) == fetch(NANO) == file
    repository = "timm/convnextv2_nano.fcmae_ft_in22k_in1k_384"
    assert asked[:2] == [(repository, "model.safetensors"), (repository, "pytorch_model.bin")]
    assert no_network == []


def test_a_file_that_the_hub_is_known_to_lack_is_not_one(monkeypatch) -> None:
    from huggingface_hub.file_download import _CACHED_NO_EXIST

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: _CACHED_NO_EXIST)
    assert locate(CLIP) is None


class Connected:
    def close(self) -> None:
        pass


def reachable(monkeypatch: pytest.MonkeyPatch, download: Any) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: Connected())
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)


def test_a_reachable_hub_is_asked_for_one_form_after_the_other(monkeypatch, tmp_path) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    def download(repository: str, name: str) -> str:
        if name == "model.safetensors":
            raise EntryNotFoundError("404")
        return str(tmp_path / repository / name)

    reachable(monkeypatch, download)
    place = files_on_hub(NANO)
    assert fetch(NANO) == tmp_path / place.repository / "pytorch_model.bin"


def test_a_download_that_breaks_off_is_not_taken_for_a_missing_form(monkeypatch, fault_of) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(*_: str) -> str:
        raise LocalEntryNotFoundError("connection lost")

    reachable(monkeypatch, download)
    fault_of(lambda: fetch(NANO), "connection lost")


def test_a_failed_download_is_one_line(monkeypatch, fault_of) -> None:
    def download(*_: str) -> str:
        raise RuntimeError("401 Client Error\n\nAccess to the model is restricted.")

    reachable(monkeypatch, download)
    fault_of(lambda: fetch(CLIP), "401 Client Error Access to the model is restricted.")


def test_weights_without_a_place_on_the_hub_say_so(fault_of) -> None:
    fault_of(lambda: files_on_hub(Backbone("own", "timm", "test_vit4")), "timm:test_vit4", "file")


def test_a_missing_file_is_named(fault_of, tmp_path) -> None:
    backbone = Backbone("own", "timm", "resnet18", weights=str(tmp_path / "no.safetensors"))
    for action in (locate, fetch):
        fault_of(
            lambda action=action: action(backbone),
            "no.safetensors",
            "'own'",
            "correct its `weights`",
        )


def test_a_file_of_ones_own_is_its_own_place(tmp_path, no_network) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"w")
    backbone = Backbone("own", "timm", "resnet18", weights=str(file))
    assert locate(backbone) == fetch(backbone) == file
    assert no_network == []


def test_a_declared_file_name_is_the_only_one_tried(monkeypatch) -> None:
    config = {"hf_hub": "apple/DFN/open_clip.bin"}
    monkeypatch.setattr(weights, "registry_config", lambda _: config)
    assert files_on_hub(CLIP) == HubFiles("apple/DFN", ("open_clip.bin",))


def test_locating_the_hubs_weights_needs_no_network_module(no_network) -> None:
    assert locate(CLIP) is None
    assert no_network == []
    assert "huggingface_hub" in sys.modules
