"""What fp32 means on a GPU, which GPU is asked, and caches that go from one device to another."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import nvidia
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import find_caches
from archiveprobe.embed.arithmetic import computing_on
from archiveprobe.embed.networks import Network, load_backbone
from archiveprobe.embed.precision import AGREEMENT, cosines
from archiveprobe.finetune.forward import computing_at

TASK = """
name = "noise"
labels = ["one", "two"]
[embed]
backbones = ["tiny"]
layers = "{layers}"
views = "center"
[backbone.tiny]
library = "timm"
name = "{network}"
weights = "random"
"""
CLIP = """
[prompts]
one = ["a tower", "a field"]
two = ["a road"]
"""
CROPS, MIRROR = (
    np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8),
    np.zeros(2, bool),
)


def settings() -> tuple[str, str, str]:
    backends: Any = torch.backends
    parts = backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn
    matmul, conv, rnn = (part.fp32_precision for part in parts)
    return matmul, conv, rnn


def write_task(folder: Path, text: str) -> Path:
    (folder / "task.toml").write_text(text, "utf-8")
    return folder


def add_images(folder: Path, seeds: range) -> None:
    for seed in seeds:
        pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)
        file = folder / "images" / ("one" if seed % 2 else "two") / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)


def embed(task: Path, *words: str) -> Result:
    words = ("embed", str(task), "--workers", "0", "--json", *words)
    return CliRunner().invoke(cli.main, words)


def stored(task: Path) -> tuple[str, np.ndarray]:
    """Return the precision of the only cache, and the rows of all images."""
    (record,) = find_caches(task / "work" / "cache", "tiny")
    files = sorted(task.glob("images/*/*.png"))
    keys = [hashlib.sha256(file.read_bytes()).digest() for file in files]
    present, rows = Reader(record.folder).read(keys)
    return str(record.fingerprint["precision"]), rows[present]


@pytest.mark.parametrize(
    ("precision", "way"), [("fp32", "ieee"), ("tf32", "tf32"), ("fp16", "ieee")]
)
@pytest.mark.parametrize("allowed", [True, False])
def test_fp32_is_exact_and_tf32_is_not_whatever_was_set(
    monkeypatch, precision: str, way: str, allowed: bool
) -> None:
    nvidia.pretend(monkeypatch)
    before, older = settings(), torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    mine = settings()
    try:
        with pytest.raises(KeyError), computing_on("cuda:1", precision):
            assert settings() == (way, way, way)
            raise KeyError
        assert settings() == mine
        assert torch.backends.cudnn.allow_tf32 is allowed
    finally:
        torch.backends.cudnn.allow_tf32 = older
    assert settings() == before


def test_elsewhere_nothing_is_changed() -> None:
    before = settings()
    for device in ("cpu", "mps"):
        with computing_on(device, "tf32"):
            assert settings() == before


def test_passes_of_two_threads_keep_their_own_arithmetic(monkeypatch) -> None:
    nvidia.pretend(monkeypatch)
    before, wrong = settings(), []

    def work(precision: str, way: str) -> None:
        for _ in range(200):
            with computing_on("cuda:0", precision), computing_on("cuda:0", precision):
                wrong.extend([settings()] * (settings() != (way, way, way)))

    threads = [threading.Thread(target=work, args=how) for how in (("fp32", "ieee"), ("tf32",) * 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert settings() == before


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_a_network_computes_on_the_gpu_that_is_named(
    make_backbone, monkeypatch, precision: str
) -> None:
    cards = nvidia.pretend(monkeypatch)
    network: Any = load_backbone(make_backbone("test_resnet"), "cuda:1").at(precision)
    seen = []
    read: Callable[..., Any] = network._read
    network._read = lambda *given: seen.append(settings()) or read(*given)
    network.embed(CROPS, MIRROR)
    assert set(seen) == {("tf32",) * 3 if precision == "tf32" else ("ieee",) * 3}
    # Loading, then the pass; and nothing was put on the first GPU.
    assert cards.current == ["cuda:1", "cuda:1"]
    assert set(cards.moved) == {"cuda:1"}


@pytest.mark.parametrize(
    ("capability", "faster"), [((7, 5), ("fp16",)), ((8, 0), ("fp16", "bf16"))]
)
def test_what_a_gpu_tries_before_fp32(make_backbone, monkeypatch, capability, faster) -> None:
    nvidia.pretend(monkeypatch, capability)
    assert load_backbone(make_backbone("test_resnet"), "cuda").faster_precisions() == faster


@pytest.mark.parametrize(
    ("device", "capability"), [("cpu", (9, 0)), ("cuda:1", (7, 5))], ids=["no GPU", "before Ampere"]
)
def test_tf32_is_refused_where_there_is_none(tmp_path, monkeypatch, device, capability) -> None:
    nvidia.pretend(monkeypatch, capability)
    add_images(tmp_path, range(2))
    task = write_task(tmp_path, TASK.format(network="test_resnet", layers="pooled"))
    done = embed(task, "--precision", "tf32", "--device", device)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "error: tf32 needs a GPU with CUDA, Ampere or later: use the precision" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("fails", [(), ("fp16",), ("fp16", "bf16")], ids=str)
def test_auto_on_a_gpu_takes_what_agrees(tmp_path, monkeypatch, fails: tuple[str, ...]) -> None:
    nvidia.pretend(monkeypatch)
    real = Network.embed

    def overflowing(self: Network, *given: np.ndarray) -> np.ndarray:
        rows = real(self, *given)
        return np.full_like(rows, np.inf) if self.precision in fails else rows

    monkeypatch.setattr(Network, "embed", overflowing)
    # Networks of random weights may be as far apart as 0.9995 in bf16: the choice is tested here.
    monkeypatch.setattr("archiveprobe.embed.precision.AGREEMENT", 0.9)
    add_images(tmp_path, range(4))
    task = write_task(tmp_path, TASK.format(network="test_resnet", layers="pooled"))
    done = embed(task, "--device", "cuda:1")
    assert done.exit_code == 0, done.output
    taken = next(each for each in ("fp16", "bf16", "fp32") if each not in fails)
    assert stored(task)[0] == taken
    for precision in fails:
        assert f"{precision} refused, worst cosine to fp32 nan over 4 crops" in done.stderr


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("precision", ["fp16", "tf32"])
@pytest.mark.parametrize("layers", ["pooled", "tokens"])
def test_a_cache_goes_from_a_gpu_to_a_cpu_and_back(
    tmp_path, monkeypatch, precision, layers
) -> None:
    task = write_task(tmp_path, TASK.format(network="test_vit", layers=layers))
    for device, seeds in (("cuda:1", range(3)), ("cpu", range(5)), ("cuda:1", range(7))):
        add_images(tmp_path, seeds)
        with monkeypatch.context() as patch:
            words = ["--device", device]
            if device != "cpu":
                nvidia.pretend(patch)
            if seeds == range(3):
                words += ["--precision", precision]
            done = embed(task, *words)
        assert done.exit_code == 0, done.output
        said = f"made in {precision}, goes on in fp32 on cpu" in done.stderr
        assert said is (device == "cpu")
    kept, rows = stored(task)
    assert (kept, len(rows)) == (precision, 7)
    (task / "work").rename(task / "before")
    assert embed(task, "--device", "cpu", "--precision", "fp32").exit_code == 0
    exact = stored(task)[1]
    assert cosines(rows, exact).min() >= AGREEMENT


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("precision", ["fp16", "tf32", "fp32"])
def test_a_cache_of_texts_goes_from_a_gpu_to_a_cpu_and_back(
    tmp_path, monkeypatch, wordy_clip, precision
) -> None:
    own = TASK.format(network=wordy_clip, layers="pooled").replace("timm", "open_clip")
    add_images(tmp_path, range(2))
    prompts = ("a field", 'a field", "a wall', 'a field", "a wall", "a roof')
    for device, prompt in zip(("cuda:1", "cpu", "cuda:1"), prompts, strict=True):
        task = write_task(tmp_path, own + CLIP.replace("a field", prompt))
        words = ["--precision", precision] if prompt == prompts[0] else []
        with monkeypatch.context() as patch:
            if device != "cpu":
                nvidia.pretend(patch)
            done = embed(task, "--device", device, *words)
        assert done.exit_code == 0, done.output
        said = f"tiny-text: made in {precision}, goes on in fp32 on cpu" in done.stderr
        assert said is (device == "cpu" and precision != "fp32")
    (record,) = find_caches(task / "work" / "cache", "tiny-text")
    assert (record.fingerprint["precision"], Reader(record.folder).rows) == (precision, 5)


@pytest.mark.proves("numbers")
def test_fine_tuned_networks_multiply_exactly_on_the_gpu_that_is_named(monkeypatch) -> None:
    cards = nvidia.pretend(monkeypatch)
    before = torch.backends.cudnn.conv.fp32_precision
    with computing_at("cuda:1", "bf16"):
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.is_autocast_enabled("cpu")
    assert cards.current == ["cuda:1"]
    assert torch.backends.cudnn.conv.fp32_precision == before
