"""Prompts and captions: embedded by the text tower, into the same kind of cache, once."""

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from snapshots import current_cache

from archiveprobe.cache.prune import prune
from archiveprobe.cache.spec import find_caches
from archiveprobe.cache.store import Reader
from archiveprobe.embed import text_tower
from archiveprobe.embed.backbones import BACKBONES, Backbone, task_backbones
from archiveprobe.embed.dry_run import dry_run
from archiveprobe.embed.export import export_task
from archiveprobe.embed.inventory import list_caches, unused_caches, verify_caches
from archiveprobe.embed.recompute import recompute
from archiveprobe.embed.run import Options, embed
from archiveprobe.embed.text_tower import TextNetwork, load_text_network
from archiveprobe.embed.weights import fetch_all
from archiveprobe.task.config import Task
from archiveprobe.task.rows import read_rows
from archiveprobe.task.texts import text_key, texts

CPU = Options(workers=0, device="cpu", precision="fp32")
PROMPTS = ["a destroyed building", "rubble after an airstrike", "an intact street"]
CAPTIONS = ["غزة اليوم", "غزة اليوم", "", "  ", "a quiet street", PROMPTS[0]]


@pytest.fixture
def wordy(archive, wordy_clip):
    """A task with three prompts and captions: two equal, two blank, one equal to a prompt."""

    def wordy(weights: str | Path = "random", captions: list[str] = CAPTIONS) -> Task:
        if not archive.ids:
            archive.add_drawn(range(len(captions)))
        task = archive.task(
            ["words"],
            settings='[prompts]\ndestroyed = ["a destroyed building", "rubble after an airstrike"]'
            '\nintact = ["an intact street"]\n'
            f'[backbone.words]\nlibrary = "open_clip"\nname = "{wordy_clip}"\n'
            f'weights = "{weights}"\n',
        )
        lines = [
            f'{name},intact,"{text}"' for name, text in zip(archive.ids, captions, strict=False)
        ]
        (archive.folder / "labels.csv").write_text("\n".join(["image,label,caption", *lines]))
        return task.model_copy(
            update={"images": task.images.model_copy(update={"text": "caption"})}
        )

    return wordy


@pytest.fixture
def whole_clip(wordy_clip) -> Any:
    torch.manual_seed(77)
    return open_clip.create_model(wordy_clip, load_weights=False).eval()


@pytest.fixture
def weights(whole_clip, tmp_path) -> Path:
    file = tmp_path / "clip.safetensors"
    save_file({k: v.clone().contiguous() for k, v in whole_clip.state_dict().items()}, file)
    return file


def text_reader(task: Task) -> Reader:
    record = current_cache(task, task_backbones(task)[1])
    assert record is not None
    return Reader(record.folder)


def test_texts_are_prompts_and_captions_each_once(wordy) -> None:
    task = wordy()
    found = texts(task, read_rows(task))
    assert list(found.values()) == [*PROMPTS, "غزة اليوم", "a quiet street"]
    assert next(iter(found)) == hashlib.sha256(b"a destroyed building").hexdigest()


def test_the_cache_holds_what_the_library_computes(wordy, weights, whole_clip, wordy_clip) -> None:
    task = wordy(weights)
    summary = embed(task, CPU)
    assert [(one.backbone, one.rows, one.views, one.width) for one in summary.texts] == [
        ("words-text", 5, 1, 16)
    ]
    assert [one.backbone for one in summary.caches] == ["words"]
    words = list(texts(task, read_rows(task)).values())
    present, rows = text_reader(task).read([text_key(text) for text in words])
    assert present.all()
    tokens = open_clip.get_tokenizer(wordy_clip)(words)
    with torch.inference_mode():
        wanted = whole_clip.encode_text(tokens).numpy()
    np.testing.assert_allclose(rows[:, 0], wanted, rtol=1e-3, atol=1e-4)
    record = text_reader(task).fingerprint
    assert record["preprocess"]["length"] == 8
    scale = float(whole_clip.logit_scale.detach().exp())
    assert record["preprocess"]["scale"] == pytest.approx(scale)


def test_a_text_is_embedded_once(wordy, monkeypatch) -> None:
    task, seen = wordy(), []
    real = TextNetwork.embed

    def counted(self: TextNetwork, *views: np.ndarray) -> np.ndarray:
        seen.append(len(views[0]))
        return real(self, *views)

    monkeypatch.setattr(TextNetwork, "embed", counted)
    embed(task, CPU)
    assert sum(seen) == 5
    embed(task, CPU)
    assert sum(seen) == 5
    more = wordy(captions=[*CAPTIONS[:5], "a new caption"])
    embed(more, CPU)
    assert sum(seen) == 6
    assert text_reader(more).rows == 6


def test_images_and_other_views_leave_the_text_cache_alone(wordy) -> None:
    task = wordy()
    embed(task, CPU)
    before = text_reader(task).folder
    other = task.model_copy(update={"embed": task.embed.model_copy(update={"views": "flip"})})
    embed(other, CPU)
    assert text_reader(other).folder == before
    assert len(find_caches(task.work / "cache", "words-text")) == 1
    assert len(find_caches(task.work / "cache", "words")) == 2


def test_show_verify_prune_and_export_know_it(wordy, tmp_path) -> None:
    task = wordy()
    embed(task, CPU)
    assert {line.cache.rpartition("-")[0]: line.in_use for line in list_caches(task)} == {
        "words": True,
        "words-text": True,
    }
    assert unused_caches(task) == []
    assert verify_caches(task, deep=True).rows == 6 + 5
    export_task(task, tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5") as file:
        assert [text.decode() for text in file["text"][:2]] == ["غزة اليوم", "غزة اليوم"]
    silent = task.model_copy(
        update={"prompts": {}, "images": task.images.model_copy(update={"text": None})}
    )
    (task.folder / "task.toml").unlink()
    assert [item.path.name.rpartition("-")[0] for item in unused_caches(silent)] == ["words-text"]
    prune(unused_caches(silent))
    assert current_cache(silent, "words") is not None


def test_texts_are_computed_again(wordy) -> None:
    task = wordy()
    embed(task, CPU)
    assert [(one.rows, one.agrees) for one in recompute(task, 4)] == [
        (4, True),
        (4, True),
    ]


def test_a_dry_run_counts_them(wordy) -> None:
    task = wordy()
    lines = {line.backbone: line for line in dry_run(task, CPU).backbones}
    assert lines["words-text"].missing == 5
    assert lines["words-text"].bytes > 5 * 2 * 16
    embed(task, CPU)
    lines = {line.backbone: line for line in dry_run(task, CPU).backbones}
    assert (lines["words-text"].missing, lines["words-text"].weights) == (0, "not needed")


@pytest.mark.proves("tables")
def test_texts_that_are_cut_are_counted_aloud(wordy) -> None:
    # Eight tokens: begin, six words, end.
    said: list[str] = []
    exact, longer = "one two three four five six", "one two three four five six seven"
    embed(wordy(captions=[exact, longer, longer + " " * 9, "x " * 40]), CPU, notify=said.append)
    assert [line for line in said if "tokens" in line] == [
        "words-text: 3 texts are longer than 8 tokens and truncated"
    ]


@pytest.mark.proves("tables")
def test_weights_without_a_text_tower_are_refused_before_any_image(
    wordy, whole_clip, tmp_path, fault_of
) -> None:
    file = tmp_path / "visual.safetensors"
    save_file({k: v.clone().contiguous() for k, v in whole_clip.visual.state_dict().items()}, file)
    task = wordy(file)
    message = fault_of(lambda: embed(task, CPU), str(file), "no text tower", "[prompts]")
    assert "is missing" in message
    assert find_caches(task.work / "cache", "words") == []


def test_other_weights_are_another_text_cache(wordy, weights) -> None:
    embed(wordy("random"), CPU)
    embed(wordy(weights), CPU)
    assert len(find_caches(wordy(weights).work / "cache", "words-text")) == 2


def test_a_tokenizer_that_needs_another_package_says_so(monkeypatch, fault_of) -> None:
    monkeypatch.setattr(text_tower.importlib.util, "find_spec", lambda _: None)
    siglip = BACKBONES["siglip2-so400m-384"]
    fault_of(lambda: text_tower.load_tokenizer(siglip), "transformers", ".[texts]", "SigLIP2")


@pytest.mark.proves("tables")
def test_a_tokenizer_out_of_reach_says_how_to_get_it(monkeypatch, fault_of) -> None:
    asked: list[dict[str, Any]] = []

    def refuse(model: str, **arguments: Any) -> None:
        asked.append(arguments)
        raise OSError("not in the cache")

    monkeypatch.setattr(text_tower.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(text_tower, "hub_reachable", lambda: False)
    monkeypatch.setattr(open_clip, "get_tokenizer", refuse)
    siglip = BACKBONES["siglip2-so400m-384"]
    fault_of(lambda: text_tower.load_tokenizer(siglip), "tokenizer", "archiveprobe weights")
    assert asked == [{"local_files_only": True}]


def test_backbones_without_a_text_tower_have_no_texts(archive, bench) -> None:
    archive.add_drawn(range(2))
    task = archive.task(["resnet18"], settings='[prompts]\nintact = ["a street"]\n')
    assert bench.run(task).texts == []


def test_weights_are_checked_for_both_towers(wordy, weights) -> None:
    assert [line.backbone for line in fetch_all(wordy(weights))] == ["words", "words-text"]


@pytest.mark.parametrize(
    "name", [row.name for row in BACKBONES.values() if row.library == "open_clip"]
)
def test_every_clip_of_the_table_has_a_known_tokenizer(name) -> None:
    config = open_clip.get_model_config(BACKBONES[name].model)["text_cfg"]
    bundled = "hf_tokenizer_name" not in config
    # Of these two families the tokenizer comes from the hub, as the weights do.
    assert bundled or name.startswith(("siglip2-", "metaclip2-"))
    if bundled:
        tokenizer, named = text_tower.load_tokenizer(BACKBONES[name])
        assert (named, tokenizer.context_length) == ("open_clip", config["context_length"])


def test_bf16_is_taken_only_where_it_agrees(wordy_clip) -> None:
    backbone = Backbone("words", "open_clip", wordy_clip, weights="random", tower="text")
    encoder = load_text_network(backbone)
    tokens = encoder.tokens(PROMPTS)
    none = np.zeros(len(tokens), bool)
    fp32, bf16 = encoder.embed(tokens, none), encoder.at("bf16").embed(tokens, none)
    assert fp32.shape == (3, 16)
    assert not np.array_equal(fp32, bf16)
    np.testing.assert_allclose(fp32, bf16, atol=0.05)
