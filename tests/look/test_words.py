"""Words beside images: the prompts on the page, and free words on demand, through a small CLIP."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from archiveprobe.embed import words
from archiveprobe.embed.run import Options, embed
from archiveprobe.look.collect.run import collect
from archiveprobe.look.embeddings.similar import Similar
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.manifest import read_manifest

CPU = Options(workers=0, device="cpu", precision="fp32")
PROMPTS = {"intact": ["an intact street"], "destroyed": ["rubble", "a destroyed building"]}


@pytest.fixture
def task(archive, wordy_clip, tmp_path) -> Task:
    """Twenty drawn images seen by a small CLIP with weights of a file, and prompts."""
    import open_clip
    import torch

    torch.manual_seed(3)
    clip = open_clip.create_model(wordy_clip, load_weights=False)
    file = tmp_path / "clip.safetensors"
    save_file({name: value.clone().contiguous() for name, value in clip.state_dict().items()}, file)
    archive.add_drawn(range(20))
    listed = "\n".join(f"{label} = {texts}" for label, texts in PROMPTS.items())
    archive.task(
        ["words"],
        settings=f'[prompts]\n{listed}\n[backbone.words]\nlibrary = "open_clip"\n'
        f'name = "{wordy_clip}"\nweights = "{file}"\n',
    )
    task = load_task(archive.folder)
    embed(task, CPU)
    return task


def text_vectors(task: Task, texts: list[str]) -> np.ndarray:
    """Embed texts with the library alone."""
    import open_clip
    import torch

    own = task.backbone["words"]
    clip = open_clip.create_model(own.name, pretrained=own.weights).eval()
    with torch.inference_mode():
        found = clip.encode_text(open_clip.get_tokenizer(own.name)(texts)).numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def image_vectors(task: Task) -> np.ndarray:
    from archiveprobe.api.task import Task as Notebook

    found = Notebook(task).embeddings("words").astype(np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_prompts_are_columns_and_free_words_are_found(task: Task) -> None:
    collection = collect(task)
    texts = ["an intact street", "rubble", "a destroyed building"]
    assert collection.meta["words"] == [{"embedding": "words", "texts": texts, "free": True}]
    images = image_vectors(task)
    for at, vector in enumerate(text_vectors(task, texts)):
        wanted = images @ vector
        np.testing.assert_allclose(collection.columns[f"words:0:{at}"], wanted, atol=2e-3)

    similar = Similar(task, collection.meta["rows"], collection.meta["embeddings"])
    near = collection.columns["near:0"].reshape(20, -1)
    assert [at for at, _ in similar.neighbours(0, 4)] == near[4][near[4] >= 0].tolist()
    [vector] = text_vectors(task, ["a burnt car"])
    np.testing.assert_allclose(similar.search(0, "a burnt car"), images @ vector, atol=2e-3)
    # A prompt is not embedded again.
    np.testing.assert_allclose(
        similar.search(0, "rubble"), collection.columns["words:0:1"], atol=1e-6
    )


def test_stored_words_need_no_weights(task: Task, fault_of) -> None:
    Path(task.backbone["words"].weights).unlink()
    collection = collect(task)
    assert collection.meta["words"][0]["free"] is False
    similar = Similar(task, collection.meta["rows"], ["words"])
    assert np.isfinite(similar.search(0, "rubble")).all()
    fault_of(lambda: similar.search(0, "a burnt car"), "weights")


def test_another_state_of_the_task_is_refused(task: Task, fault_of) -> None:
    fault_of(lambda: Similar(task, "0" * 64, ["words"]).neighbours(0, 0), "has changed", "look")


def test_prompts_that_wait_for_embed_are_named(task: Task) -> None:
    text = task.file.read_text().replace("'rubble'", "'rubble', 'a crater'")
    task.file.write_text(text)
    changed = load_task(task.folder)
    collection = collect(changed)
    gaps = [gap for gap in collection.meta["missing"] if "crater" in gap["what"]]
    assert [gap["command"] for gap in gaps] == [f"archiveprobe embed {task.file}"]
    assert len(collection.meta["words"][0]["texts"]) == 3


def test_a_backbone_without_words_has_none(archive, fault_of) -> None:
    archive.add_drawn(range(20))
    task = archive.task(["hog"])
    embed(task, CPU)
    collection = collect(task)
    assert collection.meta["words"] == []
    similar = Similar(task, collection.meta["rows"], collection.meta["embeddings"])
    fault_of(lambda: similar.search(0, "rubble"), "hog embeds no words")


def test_weights_that_are_not_here_are_not_downloaded(monkeypatch, fault_of) -> None:
    tower = words.tower_of(Task(file=Path("t.toml"), name="t"), "clip-vit-b32")
    assert tower is not None and words.takes_free_words(tower)
    monkeypatch.setattr(words, "locate", lambda _: None)
    fault_of(lambda: words.load_tower(tower), "not on this machine", "archiveprobe weights")


def test_rank_lists_answers_by_words(task: Task, tmp_path: Path) -> None:
    from stripes import answer_of, done, run

    entries = read_manifest(task)
    file = tmp_path / "answers.csv"
    lines = [f"{entry.id},{entry.digest},ok,destroyed,0.4,0.6" for entry in entries]
    file.write_text("\n".join(["id,digest,status,label,p_intact,p_destroyed", *lines, ""]))
    images = image_vectors(task)
    for text in ("rubble", "a bridge over a river"):
        order = np.argsort(-(images @ text_vectors(task, [text])[0]))
        words = ("rank", task.file, file, "--text", text, "--all-duplicates", "--top", "5")
        report = answer_of(*words)
        found = [image["id"] for image in report["images"]]
        assert found == [entries[at].id for at in order[:5]]
        assert report["backbone"] == "words"
    assert "cosine" in done(*words).stdout
    # What a stored prompt says needs no weights; other words do.
    (tmp_path / "clip.safetensors").unlink()
    assert answer_of(*words[:4], "rubble", *words[5:])["candidates"] == len(entries)
    found = run(*words)
    assert found.exit_code == 1 and len(found.stderr.splitlines()) == 1
