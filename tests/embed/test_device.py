"""Devices: which is taken, which is refused, and what is different on a GPU of Apple."""

import sys
from pathlib import Path

import apple
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli
from archiveprobe.embed import device as module
from archiveprobe.embed.device import check_device, default_device
from archiveprobe.embed.job import crops_per_pass
from archiveprobe.embed.models import load_model
from archiveprobe.embed.networks import ImageNetwork, Network
from archiveprobe.embed.precision import check_precision

TASK = """
name = "noise"
[embed]
backbones = ["tiny"]
views = "flip"
[backbone.tiny]
library = "timm"
name = "test_convnext2"
weights = "random"
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images" / "one").mkdir(parents=True)
    for number in range(5):
        pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / "one" / f"{number}.png")
    (tmp_path / "task.toml").write_text(TASK, "utf-8")
    return tmp_path


def embed(task: Path, *words: str) -> Result:
    words = ("embed", str(task), "--workers", "0", "--json", *words)
    return CliRunner().invoke(cli.main, words)


@pytest.mark.parametrize(("is_there", "device"), [(True, "mps"), (False, "cpu")])
def test_a_mac_takes_its_gpu_where_torch_sees_one(
    monkeypatch: pytest.MonkeyPatch, is_there: bool, device: str
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: is_there)
    assert default_device() == device


@pytest.mark.parametrize(
    ("file", "device"),
    [("nvidia0", "cuda"), ("dxg", "cuda"), ("kfd", "cuda"), ("nvidiactl", "cpu"), ("null", "cpu")],
)
def test_torch_is_asked_where_there_is_a_file_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, device: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "_DEVICES", tmp_path)
    (tmp_path / file).touch()
    assert default_device() == device


def test_devices_that_are_not_here_are_refused(fault_of, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("cpu", "cuda", "cuda:0", "cuda:1"):
        check_device(device)
    fault_of(lambda: check_device("cuda:2"), "torch sees 2 GPUs", "the device cpu")
    fault_of(lambda: check_device("mps"), "no GPU of Apple", "the device cpu")
    for device in ("mps:1", "cuda:", "gpu", ""):
        fault_of(lambda device=device: check_device(device), "cpu, cuda, cuda:N or mps")
    apple.pretend(monkeypatch)
    check_device("mps")


def test_precision_on_apple_is_fp32(
    make_backbone, fault_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault_of(lambda: check_precision("fp16", "mps"), "CUDA", "on mps")
    apple.pretend(monkeypatch)
    model = load_model(make_backbone("test_convnext2", library="timm"))
    assert ImageNetwork("tiny", model, "mps").faster_precisions() == ()


def test_apple_and_cpu_share_a_cache(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        moved = apple.pretend(patch)
        done = embed(task, "--device", "mps", "--batch-size", "3")
    assert done.exit_code == 0, done.output
    assert "Tensor" in moved and set(moved) - {"Tensor"}
    assert '"embedded": 5' in done.stdout
    assert '"reused": 5' in embed(task, "--device", "cpu").stdout


def test_a_gpu_that_disagrees_with_the_cpu_is_refused(
    task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Network.on_cpu

    def otherwise(network: Network) -> Network:
        other = real(network)
        real_embed = other.embed
        other.embed = lambda *crops: np.roll(real_embed(*crops), 1, 1)  # type: ignore[method-assign]
        return other

    apple.pretend(monkeypatch)
    monkeypatch.setattr(Network, "on_cpu", otherwise)
    done = embed(task, "--device", "mps")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "gives other numbers on this GPU than on the CPU" in done.stderr
    assert "the device cpu" in done.stderr
    assert not list(task.glob("work/cache/*/shards/*"))


def test_every_device_has_a_batch_size() -> None:
    assert [crops_per_pass(device, None) for device in ("cpu", "cuda:1", "mps")] == [8, 256, 64]
    assert crops_per_pass("mps", 5) == 5
