"""A submission has the template's form, cannot be out of order, and says what is odd."""

import errno
import hashlib
import os

import numpy as np
import pytest
from snapshots import write_snapshot

import archiveprobe.predict.submission
import archiveprobe.predict.tables
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_names import systems
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.predict.submission import submit
from archiveprobe.predict.systems import load_system
from archiveprobe.task.manifest import Entry, read_manifest, write_manifest

ARABIC = "صور/دمار {:03}.jpg".format
LONG = "90071992547409{:05}".format


def expected(task, name):
    """The labels that a system answers, by id."""
    dataset = load_dataset(task)
    answers = load_system(dataset, name).answer(dataset.unlabelled)
    labels = [dataset.classes[at] for at in answers.decision]
    return dict(zip(dataset.unlabelled.ids.tolist(), labels, strict=True))


def test_rows_in_the_order_of_the_table(archive, rows_of, tmp_path) -> None:
    file = tmp_path / "new" / "answers.csv"
    for name in systems(archive.task):
        done = submit(archive.task, name, file)
        header, *rows = rows_of(file)
        assert header == ["image", "label"]
        assert [id_ for id_, _ in rows] == archive.test_ids
        assert dict(map(tuple, rows)) == expected(archive.task, name)
        assert (done.rows, done.unreadable, done.reasons) == (24, 2, {"truncated": 2})
        assert "2 cannot be read and got 'intact' (2 truncated)" in done.summary()
        assert done.spot_check.by == "images"
        assert done.spot_check.rows == 12
        assert not done.warnings


def test_the_form_of_the_template(archive, rows_of, tmp_path) -> None:
    ids = archive.test_ids[::-1]
    rows = [["team", "p_destroyed", "prediction", "file"], *(["us", "", "", id_] for id_ in ids)]
    task = archive.template(rows)
    submit(task, "ridge-hog", tmp_path / "out.csv")
    header, *found = rows_of(tmp_path / "out.csv")
    assert header == rows[0]
    assert [row[3] for row in found] == ids
    assert {row[3]: row[2] for row in found} == expected(task, "ridge-hog")
    assert {row[0] for row in found} == {"us"}
    broken = {row[3]: float(row[1]) for row in found if row[3] in ("075.jpg", "080.jpg")}
    assert broken == {"075.jpg": 0.5, "080.jpg": 0.5}  # half of the labelled rows are destroyed
    stored = load_run(task, "ridge-hog").predictions()
    at = dict(zip(stored.test_ids.tolist(), stored.test[:, 1], strict=True))
    assert all(abs(float(row[1]) - at[row[3]]) <= 1e-6 for row in found if row[3] not in broken)


def test_a_template_with_semicolons(archive, tmp_path) -> None:
    task = archive.template([["image", "label"], *([id_, ""] for id_ in archive.test_ids)])
    form = archive.folder / "form.csv"
    form.write_text(form.read_text().replace(",", ";"))
    submit(task, "mean", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("image;label\n072.jpg;")


@pytest.mark.proves("answers")
@pytest.mark.parametrize(
    "change, words",
    [
        (lambda ids: [*ids, "0999.jpg"], ("1 of 25", "'0999.jpg'", "did you mean", "correct")),
        (lambda ids: [*ids, "005.jpg"], ("'005.jpg'", "labelled rows", "take them out")),
        (lambda ids: ids[4:], ("lacks 4", "'072.jpg'", "and 1 more")),
        (lambda ids: [*ids, ids[2]], ("line 26", "'074.jpg'", "line 4")),
        (lambda ids: [*ids[:3], " ", *ids[3:]], ("line 5", "without an id")),
        (lambda ids: [], ("has no rows",)),
    ],
    ids=["unknown", "labelled", "missing", "repeated", "blank", "empty"],
)
def test_a_template_that_does_not_fit(archive, fault_of, tmp_path, change, words) -> None:
    task = archive.template([["image", "label"], *([id_, ""] for id_ in change(archive.test_ids))])
    fault_of(lambda: submit(task, "mean", tmp_path / "out.csv"), "form.csv", *words)
    assert not (tmp_path / "out.csv").exists()


def test_a_template_without_a_known_column(archive, fault_of, tmp_path) -> None:
    task = archive.template([["a", "b"], ["x", "y"]])
    fault_of(lambda: submit(task, "mean", tmp_path / "out.csv"), "no column", "a, b", "'072.jpg'")


def test_a_missing_template(archive, fault_of, tmp_path) -> None:
    task = archive.set('[submission]\ntemplate = "gone.csv"\n')
    fault_of(lambda: submit(task, "mean", tmp_path / "out.csv"), "gone.csv", "correct its path")


def test_columns_without_a_template(archive, rows_of, fault_of, tmp_path) -> None:
    task = archive.set('[submission]\ncolumns = ["p_intact", "label", "image"]\n')
    submit(task, "mean", tmp_path / "out.csv")
    header, first, *_ = rows_of(tmp_path / "out.csv")
    assert header == ["p_intact", "label", "image"]
    assert first[2] == "072.jpg"
    assert (float(first[0]) > 0.5) in (True, False)
    file = archive.folder / "task.toml"
    file.write_text(file.read_text().replace("p_intact", "p_intactt"))
    fault_of(lambda: submit(archive.task, "mean", tmp_path / "o.csv"), "p_intactt", "'p_intact'")


@pytest.mark.parametrize("name", [ARABIC, LONG], ids=["arabic", "19 digits"])
def test_names_stay_as_they_are(fitted, rows_of, tmp_path, name) -> None:
    archive = fitted(name=name, labels=("intact", "damaged", "destroyed"), test=9)
    submit(archive.task, "greedy", tmp_path / "out.csv")
    rows = rows_of(tmp_path / "out.csv")[1:]
    assert [id_ for id_, _ in rows] == [name(at) for at in range(72, 81)]
    assert dict(map(tuple, rows)) == expected(archive.task, "greedy")


def test_one_folder_per_label(draw, rows_of, tmp_path) -> None:
    def name(at: int) -> str:
        return f"unlabelled/{at}.jpg" if at >= 60 else f"{('intact', 'destroyed')[at % 2]}/{at}.jpg"

    archive = draw(known=60, test=12, name=name)
    file = archive.folder / "task.toml"
    text = file.read_text().replace('table = "labels.csv"\nsplit = "split"', 'root = "images"')
    file.write_text(text)
    archive.fit(probes=("ridge", "lda"))
    submit(archive.task, "vote", tmp_path / "out.csv")
    rows = rows_of(tmp_path / "out.csv")[1:]
    assert sorted(id_ for id_, _ in rows) == sorted(archive.ids[60:])
    assert dict(map(tuple, rows)) == expected(archive.task, "vote")


def test_nothing_to_predict(draw, fault_of, tmp_path) -> None:
    archive = draw(known=45, test=0)
    archive.fit(probes=("ridge", "lda"))
    fault_of(lambda: submit(archive.task, "mean", tmp_path / "out.csv"), "nothing to predict")


def test_rows_that_are_not_embedded(archive, fault_of, tmp_path) -> None:
    with (archive.folder / "labels.csv").open("a") as stream:
        stream.write("late.jpg,,test\r\n")
    fault_of(
        lambda: submit(archive.task, "mean", tmp_path / "out.csv"),
        "1 of 97 rows",
        "'late.jpg'",
        "embed",
    )


def test_a_image_that_changed_since_it_was_embedded(archive, fault_of, tmp_path) -> None:
    for id_ in archive.test_ids:
        (archive.folder / "images" / id_).write_bytes(b"another")
    fault_of(lambda: submit(archive.task, "mean", tmp_path / "out.csv"), "have changed", "embed")


def test_without_the_images(archive, tmp_path) -> None:
    (archive.folder / "images").rename(archive.folder / "elsewhere")
    assert submit(archive.task, "mean", tmp_path / "out.csv").spot_check.by == "manifest"


def swap(task, first: str, second: str, **also: str) -> None:
    """Two rows of the manifest change their images."""
    entries = {entry.id: entry for entry in read_manifest(task)}
    pairs = {first: second, second: first, **also}
    sources = {id_: entries[pairs.get(id_, id_)] for id_ in entries}
    changed = [
        Entry(id_, entries[id_].path, source.digest, source.observed)
        for id_, source in sources.items()
    ]
    write_manifest(task, changed)
    write_snapshot(task)


def test_a_image_that_was_replaced_is_answered_anew(archive, tmp_path) -> None:
    (archive.folder / "images").rename(archive.folder / "elsewhere")
    swap(archive.task, "072.jpg", "073.jpg")
    done = submit(archive.task, "ridge-hog", tmp_path / "out.csv")
    assert any("2 images changed since" in warning for warning in done.warnings)


@pytest.mark.proves("answers")
def test_rows_out_of_order_in_the_system_are_refused(archive, fault_of, tmp_path) -> None:
    (archive.folder / "images").rename(archive.folder / "elsewhere")
    turned = dict(zip(archive.test_ids, [*archive.test_ids[1:], archive.test_ids[0]], strict=True))
    swap(archive.task, "072.jpg", "073.jpg", **turned)
    fault_of(
        lambda: submit(archive.task, "ridge-hog", tmp_path / "out.csv"), "stored answers", "probe"
    )


@pytest.mark.proves("answers")
def test_rows_shuffled_on_their_way_to_the_file_are_refused(
    archive, fault_of, tmp_path, monkeypatch
) -> None:
    real = archiveprobe.predict.submission._lines

    def shuffled(*given):
        lines = real(*given)
        labels = np.roll([line[1] for line in lines], 1).tolist()
        return [[line[0], label] for line, label in zip(lines, labels, strict=True)]

    monkeypatch.setattr(archiveprobe.predict.submission, "_lines", shuffled)
    fault_of(lambda: submit(archive.task, "mean", tmp_path / "out.csv"), "out of order", "nothing")
    monkeypatch.setattr(
        archiveprobe.predict.submission, "_lines", lambda *given: real(*given)[::-1]
    )
    fault_of(lambda: submit(archive.task, "mean", tmp_path / "out.csv"), "in order", "nothing")
    assert list(tmp_path.glob("*.csv")) == []


def test_a_image_of_the_training_rows_is_named(archive, tmp_path) -> None:
    (archive.folder / "images").rename(archive.folder / "elsewhere")
    swap(archive.task, "072.jpg", "072.jpg", **{"072.jpg": "000.jpg"})
    said = submit(archive.task, "ridge-hog", tmp_path / "out.csv").warnings
    assert any("byte by byte, those of 1 row to predict: '072.jpg'" in warning for warning in said)


def test_a_share_that_nobody_expects(archive, tmp_path) -> None:
    dataset = load_dataset(archive.task)
    answered = expected(archive.task, "ridge-hog")
    chosen = [id_ for id_ in archive.test_ids if answered[id_] == "destroyed"]
    others = [id_ for id_ in archive.test_ids if id_ not in chosen]
    # All images are now copies of those that were answered "destroyed".
    (archive.folder / "images").rename(archive.folder / "elsewhere")
    give = {id_: chosen[at % len(chosen)] for at, id_ in enumerate(others[: len(chosen) - 1])}
    swap(archive.task, others[0], others[0], **give)
    done = submit(archive.task, "ridge-hog", tmp_path / "out.csv")
    (share,) = done.shares
    assert share.label == "destroyed"
    assert share.training == pytest.approx(np.mean(dataset.labels == 1))
    assert share.low < share.training < share.high < share.share
    assert any("were to be expected" in warning for warning in done.warnings)


def test_the_share_of_every_label_where_there_are_more(fitted, tmp_path) -> None:
    archive = fitted(labels=("intact", "damaged", "destroyed"), test=9, name=ARABIC)
    done = submit(archive.task, "mean", tmp_path / "out.csv")
    assert [share.label for share in done.shares] == ["intact", "damaged", "destroyed"]
    assert sum(share.share for share in done.shares) == pytest.approx(1)
    assert done.record()["shares"][0]["label"] == "intact"


def test_a_copy_for_spreadsheets(fitted, rows_of, tmp_path) -> None:
    archive = fitted(name=like_a_formula, test=9)
    done = submit(archive.task, "mean", tmp_path / "out.csv", spreadsheet_safe=True)
    assert done.copy == tmp_path / "out.spreadsheet.csv"
    plain, safe = rows_of(tmp_path / "out.csv"), rows_of(done.copy)
    assert [row[0] for row in plain[1:]] == archive.test_ids
    assert [row[0] for row in safe[1:]] == [f"'{id_}" for id_ in archive.test_ids]
    assert [row[1] for row in safe] == [row[1] for row in plain]


def like_a_formula(at: int) -> str:
    return f"{'=+-@'[at % 4]}cmd({at}).jpg"


def test_the_tasks_own_files_are_not_overwritten(archive, fault_of, tmp_path) -> None:
    task = archive.template([["image", "label"], *([id_, ""] for id_ in archive.test_ids)])
    (archive.folder / "link.csv").symlink_to("labels.csv")
    for name in ("labels.csv", "form.csv", "task.toml", "work/folds.csv", "link.csv"):
        before = hashlib.sha256((archive.folder / name).read_bytes()).digest()
        fault_of(lambda name=name: submit(task, "mean", archive.folder / name), "-o")
        assert hashlib.sha256((archive.folder / name).read_bytes()).digest() == before
    fault_of(lambda: submit(task, "mean", archive.folder), "no ordinary file", "-o")


@pytest.mark.proves("disk")
@pytest.mark.parametrize("call", ["files.write_whole", "_read_back", "files.move_durable"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), SystemExit()])
def test_a_fault_leaves_the_old_file(archive, fault_of, tmp_path, monkeypatch, call, fault) -> None:
    file = tmp_path / "out.csv"
    file.write_text("old")

    def fail(*_):
        raise fault

    monkeypatch.setattr(f"archiveprobe.predict.tables.{call}", fail)
    if isinstance(fault, OSError):
        fault_of(lambda: submit(archive.task, "mean", file), "out.csv", "No space left", "-o")
    else:
        with pytest.raises(SystemExit):
            submit(archive.task, "mean", file)
    assert file.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "archive",
        "out.csv",
    ]
