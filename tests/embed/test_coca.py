"""CoCas, whose towers give their captioner more than one tensor, through the commands."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from counted import register_clip

from archiveprobe.cli import main

VISION = {"image_size": 32, "layers": 4, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
TOKENS = {"output_tokens": True}
POOL = {"attentional_pool": True, "attn_pooler_heads": 2}
ROBERTA = {"hf_model_name": "roberta-base", "hf_tokenizer_name": "roberta-base", "width": 768}
# The three kinds that open_clip has: coca_ViT-B-32, coca_base, coca_roberta-ViT-B-32.
KINDS = {
    "pool": ({**VISION, **POOL}, {**TEXT, "embed_cls": True}),
    "base": (VISION, {**TEXT, "embed_cls": True}),
    "roberta": (VISION, {**ROBERTA, "hf_proj_type": "linear"}),
}
PROMPTS = '[prompts]\nintact = ["a street"]\ndestroyed = ["rubble"]\n'


@pytest.fixture(scope="module")
def cocas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Names of tiny CoCas, registered for this session."""
    folder = tmp_path_factory.mktemp("configs")
    for kind, (vision, text) in KINDS.items():
        config = {
            "embed_dim": 16,
            "vision_cfg": {**vision, **TOKENS},
            "text_cfg": {**text, **TOKENS},
            "multimodal_cfg": {**TEXT},
            "custom_text": True,
        }
        (folder / f"coca-{kind}-test.json").write_text(json.dumps(config))
        register_clip(folder / f"coca-{kind}-test.json")
    return {kind: f"coca-{kind}-test" for kind in KINDS}


def own(name: str) -> str:
    return f'[backbone.coca]\nlibrary = "open_clip"\nname = "{name}"\nweights = "random"\n'


def run(task: Any, *words: Any) -> Any:
    given = [words[0], task.file, *words[1:]]
    return CliRunner().invoke(main, [str(word) for word in given])


def embed(task: Any) -> Any:
    return run(task, "embed", "--device", "cpu", "--workers", 0, "--json")


@pytest.mark.parametrize("kind", ["pool", "base"])
def test_images_and_texts(archive, cocas, kind) -> None:
    archive.add_drawn(range(6))
    task = archive.task(["coca"], settings=own(cocas[kind]) + PROMPTS)
    done = embed(task)
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["embedded"] == 6 and record["caches"][0]["width"] == 16
    assert record["texts"][0]["rows"] == 2
    assert run(task, "embed", "--dry-run", "--device", "cpu").exit_code == 0
    assert run(task, "probe", "--probe", "zeroshot", "--json").exit_code == 0


@pytest.mark.parametrize("kind", ["pool", "base"])
@pytest.mark.parametrize("layers", ["unprojected", "last4", "tokens"])
def test_layers(archive, cocas, kind, layers) -> None:
    archive.add_drawn(range(2))
    settings = f"layers = {layers!r}\n{own(cocas[kind])}"
    done = embed(archive.task(["coca"], settings=settings))
    assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("kind", ["pool", "base"])
@pytest.mark.parametrize("unfreeze", ["none", "last-block", "all"])
def test_finetune(archive, cocas, kind, unfreeze) -> None:
    archive.add_drawn(range(8))
    task = archive.task(["coca"], settings=own(cocas[kind]))
    assert embed(task).exit_code == 0
    recipe = Path(archive.folder / "r.toml")
    recipe.write_text(
        f'[model]\nbackbone = "coca"\nunfreeze = "{unfreeze}"\n'
        '[schedule]\nepochs = 1\nmonitor = "none"\n[rows]\nmerged = true\n'
    )
    words = ("--recipe", recipe, "--fold", 0, "--device", "cpu", "--workers", 0)
    done = run(task, "finetune", *words)
    assert done.exit_code == 0, done.stderr
    if unfreeze != "last-block":
        return
    # From cached tokens it trains or says in one line that it cannot.
    recipe.write_text(recipe.read_text() + "[augment]\ncrop_scale = [1.0, 1.0]\nflip = 0.0\n")
    cached = run(task, "finetune", *words, "--from-cache")
    lines = [line for line in cached.stderr.splitlines() if line.startswith("error: ")]
    assert cached.exit_code == len(lines)
    assert cached.exception is None or isinstance(cached.exception, SystemExit)


def test_one_whose_text_tower_cannot_be_built_is_one_line(archive, cocas, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    archive.add_drawn(range(2))
    for settings in (own(cocas["roberta"]), own(cocas["roberta"]) + PROMPTS):
        done = embed(archive.task(["coca"], settings=settings))
        assert done.exit_code == 1 and done.stdout == ""
        line = done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        assert line.startswith("error: ") and "coca-roberta-test" in line
