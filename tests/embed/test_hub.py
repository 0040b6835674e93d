"""Models of the Hugging Face hub by name: from its folder on this machine, pinned, in one line."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from archiveprobe.cache.spec import CacheRecord
from archiveprobe.cache.store import Reader
from archiveprobe.cli import main
from archiveprobe.embed import hub as hub_module
from archiveprobe.embed.backbones import resolve
from archiveprobe.embed.networks import geometry_of, load_backbone
from archiveprobe.embed.weights import fetch, locate

TIMM, CLIP = "timm:hf-hub:someone/tiny-vit", "open_clip:hf-hub:someone/tiny-clip"


def run(*words: Any) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def embed(task: Any, *words: Any) -> dict[str, Any]:
    here = ("--device", "cpu", "--workers", 0, "--precision", "fp32", "--json")
    done = run("embed", task.file, *here, *words)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def fault(*words: Any) -> str:
    """The one line that a command answers with."""
    done = run(*words)
    assert done.exit_code == 1 and done.stdout == ""
    [line] = [line for line in done.stderr.splitlines() if line]
    assert line.startswith("error: ")
    return line


def fingerprint_of(task: Any, record: dict[str, Any]) -> dict[str, Any]:
    [cache] = record["caches"]
    return dict(CacheRecord.read(task.folder / cache["path"]).fingerprint)


def expected(network: Any, backbone: Any, crops: np.ndarray, mean: float, std: float) -> np.ndarray:
    pixels = (torch.from_numpy(crops).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        return network(pixels).numpy()


def crops_for(loaded: Any) -> np.ndarray:
    side = geometry_of(loaded).size
    return np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)


def test_a_model_of_timm_by_its_repository(hub, archive) -> None:
    network = hub.save_timm("test_vit", hub.commit("someone/tiny-vit", 7))
    archive.add_drawn(range(3))
    task = archive.task([TIMM])
    record = embed(task)
    assert record["embedded"] == 3
    found = fingerprint_of(task, record)
    assert found["revision"] == f"{7:040x}" and found["model"] == "hf-hub:someone/tiny-vit"
    assert embed(task)["embedded"] == 0
    backbone = resolve(TIMM, task)
    loaded = load_backbone(backbone)
    crops = crops_for(loaded)
    network.reset_classifier(0)
    mean, std = loaded.preprocess.mean[0], loaded.preprocess.std[0]
    rows = loaded.embed(crops, np.zeros(2, bool))
    assert len(set(loaded.preprocess.mean)) == 1
    np.testing.assert_allclose(rows, expected(network, backbone, crops, mean, std), atol=1e-5)


def test_a_clip_of_open_clip_by_its_repository(hub, archive, wordy_clip) -> None:
    clip = hub.save_clip(wordy_clip, hub.commit("someone/tiny-clip", 1))
    archive.add_drawn(range(3))
    prompts = '[prompts]\nintact = ["a street"]\ndestroyed = ["rubble"]\n'
    task = archive.task([CLIP], settings=prompts)
    record = embed(task)
    assert record["embedded"] == 3 and record["texts"][0]["rows"] == 2
    found = fingerprint_of(task, record)
    assert found["preprocess"]["crop"] == "squash"
    assert found["preprocess"]["interpolation"] == "bilinear"
    backbone = resolve(CLIP, task)
    loaded = load_backbone(backbone)
    crops = crops_for(loaded)
    rows = loaded.embed(crops, np.zeros(2, bool))
    wanted = expected(clip.visual, backbone, crops, 0.5, 0.25)
    np.testing.assert_allclose(rows, wanted, atol=1e-5)


def test_a_revision_is_pinned(hub, archive, fault_of) -> None:
    hub.save_timm("test_vit", hub.commit("someone/tiny-vit", 1, ref="v1"), seed=1)
    hub.save_timm("test_vit", hub.commit("someone/tiny-vit", 2), seed=2)
    archive.add_drawn(range(2))
    pinned, newest = f"{TIMM}@v1", TIMM
    records = [embed(archive.task(), "--backbone", name) for name in (pinned, newest)]
    first, second = (fingerprint_of(archive.task(), record) for record in records)
    assert (first["revision"], second["revision"]) == (f"{1:040x}", f"{2:040x}")
    assert first["weights"] != second["weights"]
    task = archive.task()
    assert resolve(f"{TIMM}@{1:040x}", task).described == f"{TIMM}@{1:040x}"
    assert fetch(resolve(pinned, task)).parent.name == f"{1:040x}"
    fault_of(lambda: fetch(resolve(f"{TIMM}@v9", task)), "v9", "cannot be reached")


def test_in_a_task_of_ones_own(hub, archive) -> None:
    hub.save_timm("test_vit", hub.commit("someone/tiny-vit", 1))
    archive.add_drawn(range(6))
    own = f'[backbone.mine]\nlibrary = "timm"\nname = "{TIMM.partition(":")[2]}"\n'
    task = archive.task(["mine"], settings=own)
    assert embed(task)["embedded"] == 6
    recipe = archive.folder / "r.toml"
    recipe.write_text(
        '[model]\nbackbone = "mine"\n[schedule]\nepochs = 1\nmonitor = "none"\n'
        "[rows]\nmerged = true\n"
    )
    words = ("--recipe", recipe, "--fold", "0", "--device", "cpu", "--workers", 0)
    done = run("finetune", task.file, *words)
    assert done.exit_code == 0, done.stderr


def test_where_there_is_no_network_it_is_one_line(hub, archive) -> None:
    archive.add_drawn(range(2))
    task = archive.task([TIMM])
    for words in (("embed", task.file, "--device", "cpu"), ("weights", task.file)):
        line = fault(*words)
        assert "someone/tiny-vit" in line and "cannot be reached" in line
    assert locate(resolve(TIMM, task)) is None
    # The configuration alone is not enough.
    snapshot = hub.commit("someone/tiny-vit", 1)
    hub.save_timm("test_vit", snapshot)
    (snapshot / "model.safetensors").unlink()
    assert "cannot be reached" in fault("embed", task.file, "--device", "cpu")


class Remote:
    """A hub that can be reached: files come from another folder, into this machine's."""

    def __init__(self, here: Path, there: Path) -> None:
        self.here, self.there = here, there
        self.asked: list[tuple[str, str | None]] = []

    def download(self, repository: str, name: str, revision: str | None = None) -> str:
        from huggingface_hub.errors import EntryNotFoundError

        self.asked.append((name, revision))
        place = f"models--{repository.replace('/', '--')}"
        commit = revision or (self.there / place / "refs" / "main").read_text()
        source = self.there / place / "snapshots" / commit / name
        if not source.exists():
            raise EntryNotFoundError("404")
        target = self.here / source.relative_to(self.there)
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.here / place / "refs").mkdir(exist_ok=True)
        (self.here / place / "refs" / "main").write_text(commit)
        shutil.copy(source, target)
        return str(target)


def reachable(monkeypatch: pytest.MonkeyPatch, download: Any) -> None:
    monkeypatch.setattr(hub_module, "hub_reachable", lambda: True)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)


def test_what_is_not_here_is_fetched_once_at_one_commit(hub, archive, monkeypatch) -> None:
    there = hub.folder.with_name("there")
    type(hub)(there).save_timm("test_vit", type(hub)(there).commit("someone/tiny-vit", 3))
    remote = Remote(hub.folder, there)
    reachable(monkeypatch, remote.download)
    archive.add_drawn(range(2))
    task = archive.task([TIMM])
    done = run("weights", task.file)
    assert done.exit_code == 0, done.stderr
    assert remote.asked == [("config.json", None), ("model.safetensors", f"{3:040x}")]
    assert embed(task)["embedded"] == 2
    assert len(remote.asked) == 2
    assert len(Reader(task.folder / embed(task)["caches"][0]["path"]).keys) == 2


def errors_of_the_hub() -> list[tuple[Exception, str]]:
    import httpx
    from huggingface_hub import errors

    answer = httpx.Response(404, request=httpx.Request("GET", "https://huggingface.co/x"))
    return [
        (errors.RepositoryNotFoundError("401", response=answer), "no such repository"),
        (errors.GatedRepoError("403", response=answer), "terms accepted"),
        (errors.RevisionNotFoundError("404", response=answer), "no revision 'v2'"),
        (errors.EntryNotFoundError("404"), "holds no config.json"),
        (RuntimeError("broken\npipe"), "broken pipe"),
    ]


@pytest.mark.parametrize("number", range(5))
def test_what_the_hub_refuses_is_one_line(hub, archive, monkeypatch, number) -> None:
    error, words = errors_of_the_hub()[number]

    def refuse(*_: Any, **__: Any) -> str:
        raise error

    reachable(monkeypatch, refuse)
    archive.add_drawn(range(2))
    line = fault("embed", archive.task([f"{TIMM}@v2"]).file, "--device", "cpu")
    assert words in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"model_type": "bert"}', "holds no model of timm"),
        ("[1]", "holds no model of timm"),
        ("{", "cannot read"),
        ('{"architecture": "no_such_net", "pretrained_cfg": {}}', "no_such_net"),
    ],
)
def test_a_repository_of_something_else_is_one_line(hub, archive, content, words) -> None:
    (hub.commit("someone/tiny-vit", 1) / "config.json").write_text(content)
    archive.add_drawn(range(2))
    assert words in fault("embed", archive.task([TIMM]).file, "--device", "cpu")


@pytest.mark.parametrize(
    "name",
    [
        "timm:hf-hub:",
        "timm:hf-hub:tiny",
        "open_clip:hf-hub:a/b/c",
        "timm:hf-hub:a/b@",
        "timm:hf-hub:a/b@../../x",
        "timm:hf-hub:--a/b",
    ],
)
def test_a_name_of_no_repository_is_one_line(hub, archive, name) -> None:
    archive.add_drawn(range(2))
    line = fault("embed", archive.task().file, "--backbone", name, "--device", "cpu")
    assert "repository" in line


def test_tokenizers_of_the_hub_are_those_that_the_configuration_names(monkeypatch) -> None:
    from archiveprobe.embed import text_tower

    made: dict[str, Any] = {}

    def tokenizer(name: str, **how: Any) -> Any:
        made.update(how, name=name)
        return SimpleNamespace(context_length=how["context_length"])

    config = {"hf_tokenizer_name": "someone/words", "context_length": 64}
    config["tokenizer_kwargs"] = {"clean": "canonicalize"}
    backbone = SimpleNamespace(repository="someone/tiny-clip", described=CLIP, model="x")
    monkeypatch.setattr("open_clip.tokenizer.HFTokenizer", tokenizer)
    monkeypatch.setattr(text_tower, "read_config", lambda _: {"model_cfg": {"text_cfg": config}})
    monkeypatch.setattr(text_tower, "local_name", lambda _: "local-dir:nowhere")
    monkeypatch.setattr(text_tower, "hub_reachable", lambda: False)
    monkeypatch.setattr(text_tower.importlib.util, "find_spec", lambda _: True)
    found, name = text_tower.load_tokenizer(backbone)  # type: ignore[arg-type]
    assert (name, found.context_length) == ("someone/words", 64)
    assert made["clean"] == "canonicalize" and made["local_files_only"] is True
