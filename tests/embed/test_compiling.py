"""`compile` of [embed]: networks that torch.compile has changed, where they agree.

torch's compiler takes up to a minute for the smallest network; here it follows the network as it
does always, and leaves out the last step, which turns what it has seen into machine code.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import CacheRecord, find_caches
from archiveprobe.embed.networks import Network, load_backbone

TASK = """
name = "noise"
labels = ["one", "two"]
positive = "two"
[folds]
count = 2
repeats = 1
[embed]
backbones = ["tiny", "hog"]
views = "flip"
layers = "{layers}"
compile = {compiled}
[backbone.tiny]
library = "timm"
name = "test_vit"
weights = "random"
arguments = {{ depth = 1, img_size = 32 }}
"""
REAL = torch.compile
Compile = Callable[..., Any]


def without_code(read: Any, **how: Any) -> Any:
    """Compile up to the machine code."""
    return REAL(read, backend="eager", **how)


def other_numbers(read: Any, **_: Any) -> Any:
    return lambda network, pixels: read(network, pixels).roll(1, -1)


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("Failed to find C compiler.\n\nSet TORCHDYNAMO_VERBOSE=1")


def run_out(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


class Task:
    """A task of drawn images, and what commands say about it."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self.settings(compiled=True)

    def settings(self, *, compiled: bool, layers: str = "pooled") -> None:
        text = TASK.format(compiled=str(compiled).lower(), layers=layers)
        if layers != "pooled":
            text = text.replace(', "hog"', "")
        (self.folder / "task.toml").write_text(text, "utf-8")

    def add(self, seeds: range) -> None:
        for seed in seeds:
            pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)
            file = self.folder / "images" / ("one", "two")[seed % 2] / f"{seed}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)

    def run(self, command: str, *words: str, by: Compile = without_code) -> Result:
        self._patch.setattr(torch, "compile", by)
        return CliRunner().invoke(cli.main, [command, str(self.folder), *words])

    def embed(self, *, by: Compile = without_code) -> tuple[dict[str, Any], str]:
        done = self.run("embed", "--workers", "0", "--json", by=by)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    @property
    def caches(self) -> list[CacheRecord]:
        return find_caches(self.folder / "work" / "cache", "tiny")

    def rows(self) -> np.ndarray:
        [cache] = self.caches
        reader = Reader(cache.folder)
        return reader.read(sorted(reader.keys))[1]


@pytest.fixture
def task(tmp_path, monkeypatch) -> Task:
    # In fp32 on every machine, so that caches have one name.
    monkeypatch.setattr(Network, "faster_precisions", lambda _: ())
    task = Task(tmp_path, monkeypatch)
    task.add(range(5))
    return task


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("layers", ["pooled", "tokens"])
def test_a_compiled_network_is_used_where_it_agrees(task, layers) -> None:
    task.settings(compiled=True, layers=layers)
    _, said = task.embed()
    assert "tiny: torch.compile, worst cosine to the plain network 1.00000 over 8 crops" in said
    assert "hog: torch" not in said
    [cache] = task.caches
    assert cache.fingerprint["compiled"] is True
    compiled = task.rows()
    (task.folder / "work").rename(task.folder / "before")
    task.settings(compiled=False, layers=layers)
    assert "torch.compile" not in task.embed(by=fail)[1]
    [plain] = task.caches
    assert "compiled" not in plain.fingerprint and plain.digest != cache.digest
    np.testing.assert_allclose(compiled, task.rows(), rtol=2e-3, atol=1e-3)


@pytest.mark.proves("numbers")
@pytest.mark.parametrize(
    ("by", "reason"),
    [
        (fail, r"torch.compile is not used (RuntimeError: Failed to find C compiler.)"),
        (other_numbers, "torch.compile is not used, worst cosine to the plain network"),
    ],
)
def test_otherwise_the_plain_network_is_used(task, by, reason) -> None:
    found, said = task.embed(by=by)
    assert [line for line in said.splitlines() if reason in line]
    assert "TORCHDYNAMO" not in said
    assert found["embedded"] == 5
    [cache] = task.caches
    assert "compiled" not in cache.fingerprint
    assert task.embed(by=by)[0]["reused"] == 5
    # New rows go into the cache that is there, as it was made.
    task.add(range(7))
    found, said = task.embed()
    assert found["embedded"] == 2
    assert f"{cache.folder.name} was made without torch.compile and goes on so" in said
    assert [again.digest for again in task.caches] == [cache.digest]


@pytest.mark.parametrize("by", [without_code, fail])
def test_a_compiled_cache_goes_on_with_or_without_a_compiler(task, by) -> None:
    task.embed()
    task.add(range(8))
    # What the task asks now does not matter either.
    task.settings(compiled=False)
    found, said = task.embed(by=by)
    assert (found["embedded"], found["reused"]) == (3, 5)
    assert ("torch.compile is not used (RuntimeError" in said) == (by is fail)
    [cache] = task.caches
    assert cache.fingerprint["compiled"] is True
    verify = ["cache", "verify", str(task.folder), "--recompute", "8"]
    done = CliRunner().invoke(cli.main, verify)
    assert done.exit_code == 0, done.output


@pytest.mark.proves("memory")
def test_memory_that_ends_while_compiling_is_told_in_one_line(task) -> None:
    done = task.run("embed", "--workers", "0", by=run_out)
    assert done.exit_code == 1 and done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: out of memory trying timm:test_vit on cpu: ")
    assert last.endswith("or set compile = false")


@pytest.mark.proves("numbers")
def test_a_system_answers_through_the_network_it_was_trained_on(task) -> None:
    task.embed()
    done = task.run("probe", "--probe", "ridge", "--features", "tiny", "--json")
    assert done.exit_code == 0, done.output
    system = json.loads(done.stdout)["best"] or json.loads(done.stdout)["leaderboard"][0]["system"]
    new = task.folder / "new"
    new.mkdir()
    Image.fromarray(np.full((50, 50, 3), 90, np.uint8)).save(new / "one.png")
    words = ("--system", system, "--images", str(new), "--workers", "0", "-o")
    done = task.run("predict", *words, str(task.folder / "a"), by=fail)
    assert done.exit_code == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "was computed by a compiled network, and here torch.compile is not used (Run" in last
    done = task.run("predict", *words, str(task.folder / "b"))
    assert done.exit_code == 0, done.output


def test_all_sizes_of_a_batch_share_one_compilation(make_backbone, monkeypatch) -> None:
    graphs = []

    def count(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda read, **how: REAL(read, backend=count, **how))
    plain = load_backbone(make_backbone("test_vit", arguments={"depth": 1, "img_size": 32}))
    side = plain.preprocess.record()["size"]
    crops = np.random.default_rng(0).integers(0, 255, (6, side, side, 3), np.uint8)
    mirror = np.arange(6) % 2 == 0
    compiled = plain.compiled()
    for count_of_crops in (1, 6, 3, 1, 5):
        part = slice(count_of_crops)
        rows = compiled.embed(crops[part], mirror[part])
        np.testing.assert_allclose(rows, plain.embed(crops[part], mirror[part]), atol=1e-5)
    assert len(graphs) == 1
