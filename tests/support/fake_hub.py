"""A cache of the Hugging Face hub with repositories of tiny random models; no network."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file


class FakeHub:
    """The hub's folder on this machine: repositories, their commits, and where "main" stands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def commit(self, repository: str, number: int, *, ref: str = "main") -> Path:
        """Make an empty commit, at which `ref` stands; its folder."""
        commit = f"{number:040x}"
        place = self.folder / f"models--{repository.replace('/', '--')}"
        snapshot = place / "snapshots" / commit
        snapshot.mkdir(parents=True)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / ref).write_text(commit)
        return snapshot

    def save_timm(self, model: str, snapshot: Path, seed: int = 0) -> Any:
        """Save a random timm network as timm does; the network."""
        import timm
        from timm.models import save_for_hf

        torch.manual_seed(seed)
        network = timm.create_model(model, pretrained=False, num_classes=5)
        save_for_hf(network, str(snapshot), safe_serialization=True)
        return network.eval()

    def save_clip(self, model: str, snapshot: Path, seed: int = 0) -> Any:
        """Save a random CLIP in open_clip's form; the network."""
        import open_clip

        torch.manual_seed(seed)
        clip = open_clip.create_model(model, load_weights=False)
        state = {name: tensor.contiguous() for name, tensor in clip.state_dict().items()}
        save_file(state, snapshot / "open_clip_model.safetensors")
        config = {
            "model_cfg": open_clip.get_model_config(model),
            "preprocess_cfg": {
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
                "interpolation": "bilinear",
                "resize_mode": "squash",
            },
        }
        (snapshot / "open_clip_config.json").write_text(json.dumps(config))
        return clip.eval()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """An empty hub on this machine; the real one is switched off."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return FakeHub(folder)
