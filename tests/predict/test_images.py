"""Answers for images: the task's own rows, and folders of new ones, embedded alike."""

import hashlib
import io
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import archiveprobe.embed.fingerprint
import archiveprobe.embed.unit_encoder
from archiveprobe.archive.source import open_source
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.run import embed as run_embed
from archiveprobe.embed.unit_encoder import cache_of_system
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_store import load_run, save_run
from archiveprobe.predict.archive import How
from archiveprobe.predict.archive_table import answers_of, predict_table
from archiveprobe.predict.images import predict
from archiveprobe.predict.systems import load_system
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import load_task

TASK = """\
name = "real"
labels = ["bright", "dark"]
[images]
table = "labels.csv"
[folds]
count = 2
repeats = 1
group = "none"
[embed]
backbones = ["hog"]
views = "flip"
"""


def picture(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4 + 8 * (seed % 2), 5, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task of 20 labelled and 4 open images, embedded and probed."""
    folder = tmp_path_factory.mktemp("real") / "archive"
    (folder / "images").mkdir(parents=True)
    lines = ["image,label"]
    for at in range(24):
        (folder / "images" / f"{at:02}.png").write_bytes(picture(at))
        lines.append(f"{at:02}.png,{('bright', 'dark')[at % 2] if at < 20 else ''}")
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder / "task.toml").write_text(TASK)
    task = load_task(folder)
    run_embed(task, EmbedOptions(workers=0, device="cpu"))
    run_probes(task, Options(probes=("ridge", "lda"), workers=1))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "work/new" not in path.as_posix()
    }


def answers_for(folder: Path, images: Path | None, out: Path, name: str = "ridge-hog", **how):
    if images is None:
        return predict(load_task(folder), name, out, **how)
    cpu = How(device="cpu", workers=0, keep_embeddings=how.pop("keep_embeddings", False))
    return predict_table(load_task(folder), name, open_source(str(images)), out, cpu, **how)


def test_rows_of_the_task(archive, rows_of, tmp_path) -> None:
    done = predict(archive.task, "greedy", tmp_path / "p.csv")
    header, *rows = rows_of(tmp_path / "p.csv")
    assert header == ["id", "digest", "status", "label", "p_intact", "p_destroyed"]
    assert [row[0] for row in rows] == archive.test_ids
    dataset = load_dataset(archive.task)
    answers = load_system(dataset, "greedy").answer(dataset.unlabelled)
    for row, p, decision in zip(rows, answers.proba, answers.decision, strict=True):
        if row[0] in ("075.jpg", "080.jpg"):
            assert row[2:] == ["truncated", "", "", ""]
        else:
            assert row[2:4] == ["ok", dataset.classes[decision]]
            assert np.abs(np.array(row[4:], float) - p).max() <= 1e-6
        content = (archive.folder / "images" / row[0]).read_bytes()
        assert row[1] == hashlib.sha256(content).hexdigest()
    assert done.status == {"ok": 22, "truncated": 2}
    assert done.unreadable == 2
    assert sum(done.labels.values()) == 22


FORMULA = ("=cmd({}).png", "+{}.png", "-{}.png", "@{}.png", "\t{}.png", "{}=.png")


def test_a_copy_for_spreadsheets(real, rows_of, tmp_path) -> None:
    """Of the rows of a task, and of new images, whose names anybody may have chosen."""
    new = tmp_path / "new"
    new.mkdir()
    names = sorted(form.format(at) for at, form in enumerate(FORMULA))
    for at, name in enumerate(names):
        (new / name).write_bytes(picture(at))
    done = answers_for(real, new, tmp_path / "p.csv", spreadsheet_safe=True)
    assert done.copy == tmp_path / "p.spreadsheet.csv"
    assert done.record()["copy"] == str(done.copy)
    plain, safe = rows_of(tmp_path / "p.csv"), rows_of(done.copy)
    assert [row[0] for row in plain[1:]] == names
    expected = [name if name == "5=.png" else f"'{name}" for name in names]
    assert [row[0] for row in safe[1:]] == expected
    assert [row[1:] for row in safe] == [row[1:] for row in plain]
    assert answers_for(real, None, tmp_path / "q.csv").copy is None
    assert answers_for(real, None, tmp_path / "q.csv", spreadsheet_safe=True).copy.is_file()


def test_the_same_images_elsewhere_have_the_same_answers(real, rows_of, tmp_path) -> None:
    new = tmp_path / "صور جديدة"
    (new / "deep").mkdir(parents=True)
    for at in range(20, 24):
        (new / "deep" / f"دمار {at}.png").write_bytes(picture(at))
    answers_for(real, None, tmp_path / "own.csv")
    answers_for(real, new, tmp_path / "new.csv")
    own, found = rows_of(tmp_path / "own.csv"), rows_of(tmp_path / "new.csv")
    assert [row[1:] for row in found] == [row[1:] for row in own]
    assert [row[0] for row in found[1:]] == [f"deep/دمار {at}.png" for at in range(20, 24)]


def test_every_file_has_a_row_with_a_status(real, rows_of, tmp_path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    whole = picture(50)
    for name, content in {
        "a.png": whole,
        "b.png": whole[:-40],
        "c.jpg": b"<!doctype html>",
        "d.png": b"",
        "e.png": whole,
        "note.txt": b"nothing",
    }.items():
        (new / name).write_bytes(content)
    said: list[str] = []
    done = answers_for(real, new, tmp_path / "p.csv", "lda-hog", notify=said.append)
    rows = {row[0]: row[1:] for row in rows_of(tmp_path / "p.csv")[1:]}
    status = {name: row[1] for name, row in rows.items()}
    assert status == {
        "a.png": "ok",
        "b.png": "truncated",
        "c.jpg": "html_not_image",
        "d.png": "empty_file",
        "e.png": "ok",
    }
    assert rows["a.png"] == rows["e.png"]
    assert all(rows[name][2:] == ["", "", ""] for name in ("b.png", "c.jpg", "d.png"))
    assert (done.rows, done.unreadable) == (5, 3)
    assert "no label for 3 that cannot be read (1 truncated, 1 html" in done.summary()
    assert any("note" in text or ".txt" in text for text in said)
    assert not any("folds" in text for text in said)


@pytest.mark.parametrize("left", ["merged", "replaced"])
def test_what_a_killed_merge_left_is_begun_again_where_images_changed(real, tmp_path, left) -> None:
    task, new = load_task(real), tmp_path / "new"
    new.mkdir()
    (new / "a.png").write_bytes(picture(62))
    source, how = open_source(str(new)), How(device="cpu", workers=0)
    with suppress(KeyboardInterrupt), answers_of(task, "ridge-hog", source, how) as done:
        (done.file / left).mkdir()
        (done.file / left / "00000000-00000001.parquet").write_bytes(b"large")
        raise KeyboardInterrupt
    (new / "b.png").write_bytes(picture(63))
    assert answers_for(real, new, tmp_path / "p.csv").rows == 2
    assert not done.file.exists()


def test_random_weights_are_said_once(real, tmp_path, monkeypatch) -> None:
    def drawn(*about: Any) -> CacheRecord:
        record = cache_of_system(*about)
        return replace(record, fingerprint={**record.fingerprint, "random_weights": True})

    monkeypatch.setattr("archiveprobe.embed.unit_encoder.cache_of_system", drawn)
    said: list[str] = []
    # All of these are in the cache.
    answers_for(real, real / "images", tmp_path / "p.csv", notify=said.append)
    assert said.count("hog: RANDOM WEIGHTS, for trials only") == 1


def test_the_tasks_own_work_stays_as_it_was(real, tmp_path) -> None:
    before = tree(real)
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.png").write_bytes(picture(60))
    answers_for(real, new, tmp_path / "p.csv")
    after = tree(real)
    # What was written is remembered, so that `init` never takes it for labels.
    assert after.pop("work/answers.json") != before.pop("work/answers.json", None)
    assert after == before


def test_kept_embeddings_are_not_computed_again(real, rows_of, tmp_path, monkeypatch) -> None:
    """Not for another system either, nor where the folder has another name."""
    archive = tmp_path / "archive"
    shutil.copytree(real, archive)
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.png").write_bytes(picture(61))
    answers_for(archive, new, tmp_path / "p.csv", keep_embeddings=True)
    new.rename(tmp_path / "renamed")
    monkeypatch.setattr("archiveprobe.embed.unit_encoder.load_backbone", None)
    for system in ("ridge-hog", "lda-hog"):
        answers_for(archive, tmp_path / "renamed", tmp_path / f"{system}.csv", system)
    assert rows_of(tmp_path / "ridge-hog.csv") == rows_of(tmp_path / "p.csv")
    with pytest.raises(TypeError):
        answers_for(real, tmp_path / "renamed", tmp_path / "q.csv")


def test_not_one_image_can_be_read(real, rows_of, tmp_path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.png").write_bytes(b"")
    answers_for(real, new, tmp_path / "p.csv")
    digest = hashlib.sha256(b"").hexdigest()
    assert rows_of(tmp_path / "p.csv")[1:] == [["a.png", digest, "empty_file", "", "", ""]]


def test_systems_of_other_views_than_the_task_asks_for_are_refused(
    real, rows_of, fault_of, tmp_path
) -> None:
    """Their cache gets no new rows any more, so its answers would soon be about other rows."""
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.png").write_bytes(picture(20))
    answers_for(real, new, tmp_path / "p.csv")
    file = real / "task.toml"
    file.write_text(TASK.replace('"flip"', '"center"'))
    try:
        fault_of(lambda: answers_for(real, new, tmp_path / "q.csv"), "the cache of hog", "probe")
    finally:
        file.write_text(TASK)
    answers_for(real, new, tmp_path / "q.csv")
    assert rows_of(tmp_path / "p.csv") == rows_of(tmp_path / "q.csv")


def test_other_libraries_are_refused_before_anything_is_embedded(
    real, fault_of, tmp_path, monkeypatch
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.png").write_bytes(picture(62))
    monkeypatch.setattr(archiveprobe.embed.fingerprint, "release", lambda _: "0.1")
    fault_of(
        lambda: answers_for(real, new, tmp_path / "p.csv"), "trained on", "versions", "'0.1'", "hog"
    )
    assert not (tmp_path / "p.csv").exists()


def test_other_weights_are_refused(real, fault_of, tmp_path, monkeypatch) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.png").write_bytes(picture(63))
    real_one = archiveprobe.embed.unit_encoder.fingerprint
    monkeypatch.setattr(
        "archiveprobe.embed.unit_encoder.fingerprint",
        lambda *given, **more: {**real_one(*given, **more), "weights": "others"},
    )
    fault_of(lambda: answers_for(real, new, tmp_path / "p.csv"), "weights was", "others", "again")
    assert not (tmp_path / "p.csv").exists()


def test_folders_that_cannot_be_meant(real, fault_of, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, words in (
        (tmp_path / "gone", ("no file or folder", "name the folder")),
        (real, ("work folder", "new images")),
        (tmp_path / "empty", ("no image", "name the place")),
    ):
        fault_of(lambda folder=folder: answers_for(real, folder, tmp_path / "p.csv"), *words)


def test_nothing_to_predict(draw, fault_of, tmp_path) -> None:
    archive = draw(known=45, test=0)
    archive.fit(probes=("ridge", "lda"))
    fault_of(
        lambda: predict(archive.task, "mean", tmp_path / "p.csv"),
        "nothing to predict",
        "folder of new images",
    )


def test_a_model_that_gives_other_answers_than_it_stored(archive, fault_of, tmp_path) -> None:
    run = load_run(archive.task, "ridge-hog")
    arrays = run.arrays()
    arrays["coef"] = -arrays["coef"]
    save_run(archive.task, "ridge-hog", run.record, run.predictions(), arrays)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.png").write_bytes(picture(1))
    for images in (None, tmp_path / "new"):
        fault_of(
            lambda images=images: answers_for(archive.folder, images, tmp_path / "p.csv"),
            "stored answers",
            "'072.jpg'",
        )
    assert not (tmp_path / "p.csv").exists()
