"""A task in a notebook: frames are aligned, name their snapshot, and refuse what is not sound."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import archiveprobe as ap
from archiveprobe.embed.run import Options, embed
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.probe.run import Options as Probes
from archiveprobe.probe.run import run_probes
from archiveprobe.task.config import load_task

quiet = pytest.mark.filterwarnings("ignore::UserWarning")


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")


def test_importing_costs_nothing() -> None:
    heavy = ("numpy", "pandas", "sklearn", "torch", "pydantic", "click", "PIL")
    program = (
        "import sys; import archiveprobe as ap; dir(ap); ap.InputError; "
        f"sys.exit(str([name for name in {heavy} if name in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "\n")


def test_the_root_names_what_is_promised() -> None:
    assert dir(ap) == sorted(ap.__all__)
    for name in ap.__all__:
        assert getattr(ap, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = ap.nonsense
    with pytest.raises(AttributeError, match="no probe 'Tree': there are KNN, LDA"):
        _ = ap.probes.Tree


def test_a_task_is_opened_by_any_of_its_names(home: Path, monkeypatch) -> None:
    archive = home / "my" / "photographs"
    monkeypatch.chdir(archive)
    monkeypatch.setenv("HOME", str(home))
    for given in ((), ("task.toml",), ("~/my/photographs",), (archive,)):
        assert ap.open(*given).file == archive / "task.toml"


def test_what_cannot_be_opened(tmp_path: Path, fault_of) -> None:
    fault_of(lambda: ap.open(tmp_path / "nowhere"), "no task file at", "archiveprobe init DIR")
    (tmp_path / "labels.csv").write_text("id,label\na.jpg,intact\n")
    (tmp_path / "labels.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    for table in ("labels.csv", "labels.xlsx"):
        fault_of(lambda name=table: ap.open(tmp_path / name), f"{table} is no task.toml: name one")
    for given in (None, 3, ["task.toml"], b"task.toml"):
        fault_of(lambda given=given: ap.open(given), "place must be a path, got ")
    fault_of(lambda: ap.open("x" * 5000), "cannot read ", "File name too long")
    fault_of(lambda: ap.open("a\0b"), "is no task.toml")
    fault_of(lambda: ap.open("~nobody-of-this-name"), "place '~nobody-of-this-name': ", "home")
    (tmp_path / "task.toml").write_text('name = "x"\nlabel = ["a"]\n')
    fault_of(lambda: ap.open(str(tmp_path)), "unknown key 'label'", "did you mean 'labels'?")
    (tmp_path / "task.toml").write_text('name = "x"\n')
    (tmp_path / "images").mkdir()
    fault_of(ap.open(tmp_path).rows, "nothing is embedded yet", "archiveprobe embed")


@quiet
def test_every_frame_names_the_snapshot_of_the_command_line(task: ap.Task, capsys) -> None:
    digest = load_dataset(load_task(task.file)).snapshot_digest
    frames = [task.rows(), task.leaderboard(), task.oof("greedy"), task.thresholds("lda-hog")]
    assert {frame.attrs["snapshot"] for frame in frames} == {digest}
    assert frames[1].attrs["best"] in set(frames[1].system)
    assert {"model_selection", "majority", "reason"} <= frames[1].attrs.keys()
    out, err = capsys.readouterr()
    assert out == err == ""


def test_rows_are_those_of_the_table_and_of_the_manifest(task: ap.Task) -> None:
    rows, dataset = task.rows(), load_dataset(load_task(task.file))
    assert rows.id.tolist() == [row.id for row in dataset.rows]
    assert rows.label.cat.categories.tolist() == ["not_destruction", "destruction"]
    known = rows[rows.label.notna()]
    assert known.id.tolist() == dataset.labelled.ids.tolist()
    assert known.label.cat.codes.tolist() == dataset.labels.tolist()
    assert known.group.tolist() == dataset.groups.tolist()
    assert known.fold.tolist() == dataset.fold[0].tolist()
    assert task.rows(repeat=4).fold.dropna().tolist() == dataset.fold[4].tolist()
    assert rows[rows.label.isna()].fold.isna().all()
    assert (rows[rows.split == "test"].label.isna()).all()
    assert rows.width.dtype == "Int64" and rows.width.isna().sum() == 2
    assert [file.relative_to(task.file.parent / "images").as_posix() for file in task.files()] == (
        rows.path.tolist()
    )
    with pytest.raises(ap.InputError, match="no repeat 5: the folds have 5"):
        task.rows(repeat=5)


def test_embeddings_lie_beside_their_rows(task: ap.Task) -> None:
    rows, mean = task.rows(), task.embeddings("hog")
    assert mean.dtype == np.float32 and mean.shape == (len(rows), 1860)
    # Unreadable images are rows like all others, and copies have the same numbers.
    assert (np.isnan(mean).all(1) == (rows.status != "ok")).all()
    assert np.isfinite(mean[rows.status == "ok"]).all()
    copies = rows[rows.duplicated("digest", keep=False) & (rows.status == "ok")]
    assert len(copies) >= 2
    for places in copies.groupby("digest").groups.values():
        assert (mean[places] == mean[places[0]]).all()
    every = task.embeddings("hog", view=None)
    np.testing.assert_array_equal(every, task.embeddings("hog", view="all"))
    np.testing.assert_allclose(every.mean(1), mean, atol=1e-6)
    np.testing.assert_array_equal(every[:, 1], task.embeddings("hog", view="center-mirrored"))
    dataset = load_dataset(load_task(task.file))
    from archiveprobe.probe.choice import parse_choice
    from archiveprobe.probe.features import load_features

    features = load_features(dataset, parse_choice("hog"))
    np.testing.assert_array_equal(mean[rows.label.notna()], features.labelled[:, 0])
    with pytest.raises(ap.InputError, match="no cache for backbone 'clip-vit-b32'"):
        task.embeddings("clip-vit-b32")


def test_out_of_fold_frames_are_what_the_system_stored(task: ap.Task) -> None:
    stored = load_run(load_task(task.file), "greedy").predictions()
    for repeat in range(5):
        oof = task.oof("greedy", repeat=repeat)
        assert oof.fold.tolist() == stored.fold[repeat].tolist()
        assert oof.decision.cat.codes.tolist() == stored.decision[repeat].tolist()
        np.testing.assert_array_equal(oof.p_destruction, stored.oof[repeat, :, 1])
        assert (oof.correct == (oof.label == oof.decision)).all()
    mean = task.oof("greedy")
    np.testing.assert_allclose(mean.p_destruction, stored.oof[..., 1].mean(0))
    votes = stored.decision.sum(0)
    assert (mean.decision.cat.codes == (votes > 2)).all()
    with pytest.raises(ap.InputError, match="no repeat 9"):
        task.oof("greedy", repeat=9)
    with pytest.raises(ap.InputError, match=r"no system 'gready'.*did you mean 'greedy'"):
        task.oof("gready")


def test_predictions_are_those_that_the_command_writes(archive: Path, tmp_path: Path) -> None:
    import pandas as pd
    from click.testing import CliRunner

    from archiveprobe.cli import main

    task = ap.open(archive)
    # One to predict cannot be read: a status, no label, no probability.
    gone = task.rows().query("split == 'test'").path.iloc[0]
    (archive / "images" / gone).write_bytes(b"<html>")
    embed(load_task(archive), Options(workers=0, device="cpu"))
    for folder in (None, archive / "images" / "agency"):
        file = tmp_path / "answers.csv"
        words = ["predict", str(archive), "--system", "greedy", "-o", str(file)]
        words += [] if folder is None else ["--images", str(folder), "--workers", "0"]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        written = pd.read_csv(file, dtype=str, keep_default_na=False)
        answers = task.predict("greedy", folder, workers=0)
        assert answers.attrs["snapshot"] == task.rows().attrs["snapshot"]
        assert answers.columns.tolist() == written.columns.tolist()
        for name in ("id", "digest", "status"):
            assert answers[name].tolist() == written[name].tolist()
        assert answers.label.astype(object).fillna("").tolist() == written.label.tolist()
        numbers = pd.to_numeric(written.p_destruction, errors="coerce")
        np.testing.assert_allclose(answers.p_destruction, numbers, atol=1e-6)
        if folder is None:
            missing = answers[answers.status != "ok"]
            assert gone in set(missing.id)
            assert missing.label.isna().all() and missing.p_destruction.isna().all()


@pytest.mark.parametrize("repeat", [-1, 1.0, "0", True])
def test_a_repeat_is_a_whole_number(task: ap.Task, repeat: object, fault_of) -> None:
    said = f"repeat must be a whole number from 0, got {repeat!r}"
    fault_of(lambda: task.rows(repeat=repeat), said)
    fault_of(lambda: task.oof("greedy", repeat=repeat), said)


def test_arguments_that_nothing_can_be_done_with(task: ap.Task, fault_of) -> None:
    """As the best of a leaderboard where all systems are at chance, which is None."""
    known = "got None: there are greedy, knn-hog, lda-hog, ridge-hog"
    for answer in (task.oof, task.predict, task.thresholds):
        fault_of(lambda answer=answer: answer(None), f"system must be a name, {known}")
    fault_of(lambda: task.rows(repeat=None), "repeat must be a whole number from 0, got None")
    fault_of(lambda: task.embeddings(None), "backbone must be a name, got None: there are hog")
    fault_of(lambda: task.embeddings("hog-text"), "hog embeds no captions: only backbones of")
    fault_of(lambda: task.embeddings("hog", view=0), "view must be a name, got 0")
    files = task.files()
    for folder, said in (
        (files, "folder must be one folder of images, got [PosixPath("),
        (files[0], f"{files[0]} is one image: name the folder of the images"),
        (files[0].parent / "nowhere", "nowhere: name the folder, list, table or tar"),
        ("a\0b", "no name of an archive"),
    ):
        message = fault_of(lambda folder=folder: task.predict("greedy", folder), said)
        assert "--" not in message
    for settings, said in (
        ({"workers": -1}, "workers must be a whole number from 0, got -1"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1, got 0"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ):
        fault_of(lambda settings=settings: task.predict("greedy", **settings), said)


@quiet
def test_the_leaderboard_is_that_of_the_stored_systems(task: ap.Task) -> None:
    board = task.leaderboard()
    assert sorted(board.system) == ["greedy", "knn-hog", "lda-hog", "ridge-hog"]
    assert board.macro_f1.is_monotonic_decreasing
    for line in board.itertuples():
        right = [task.oof(line.system, repeat=repeat).correct.mean() for repeat in range(5)]
        assert line.accuracy == pytest.approx(np.mean(right))
        assert line.low < line.macro_f1 < line.high
    curve = task.thresholds("greedy")
    assert curve.attrs["macro_f1"] == board.set_index("system").macro_f1["greedy"]
    assert curve.attrs["threshold"] == board.set_index("system").threshold["greedy"]
    assert curve.threshold.is_monotonic_increasing and curve.recall.is_monotonic_decreasing


@pytest.mark.proves("state")
def test_systems_out_of_date_are_left_out_aloud_and_refused(archive: Path) -> None:
    task = ap.open(archive)
    before = task.rows()
    row = before[before.label == "destruction"].id.iloc[0]
    (archive / "corrections.csv").write_text(f"id,label\n{row},not_destruction\n", "utf-8")
    edit(archive / "task.toml", "# corrections", "corrections")
    task = ap.open(archive)
    for answer in (task.oof, task.thresholds):
        with pytest.raises(ap.InputError, match=r"greedy is out of date \(labels"):
            answer("greedy")
    with pytest.raises(ap.InputError, match="none of 4 systems is up to date: run `archiveprobe"):
        task.leaderboard()


def test_the_leaderboard_says_what_it_leaves_out(archive: Path) -> None:
    run_probes(load_task(archive), Probes(probes=("lda",), threshold_rule="half", workers=1))
    with pytest.warns(UserWarning, match=r"left out: greedy is out of date \(its member lda-hog"):
        board = ap.open(archive).leaderboard()
    assert sorted(board.system) == ["knn-hog", "lda-hog", "ridge-hog"]


@pytest.mark.proves("state")
def test_rows_that_wait_are_refused_or_left_out_aloud(archive: Path) -> None:
    task = ap.open(archive)
    then = task.rows()
    first = task.files()[0]
    (archive / "images" / "new.jpg").write_bytes(first.read_bytes())
    with (archive / "labels.csv").open("a", encoding="utf-8") as table:
        table.write("new.jpg,destruction,train,\n")
    for answer in (task.rows, lambda: task.embeddings("hog"), task.leaderboard):
        with pytest.raises(ap.InputError, match="1 of 101 rows waits for embed"):
            answer()
    part = ap.open(archive, partial=True)
    with pytest.warns(UserWarning, match="partial: 100 of 101 rows"):
        rows = part.rows()
    assert rows.attrs["partial"] == "partial: 100 of 101 rows"
    with pytest.warns(UserWarning, match="partial"):
        assert len(part.embeddings("hog")) == len(rows) == 100
    embed(load_task(archive), Options(workers=0, device="cpu"))
    with pytest.warns(UserWarning, match="has changed since the last answer") as said:
        now = task.rows()
    # The warning is about the line that asked.
    assert said[0].filename == __file__
    assert len(now) == 101 and now.attrs["snapshot"] != then.attrs["snapshot"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(task.embeddings("hog")) == 101


def test_all_answers_leave_out_rows_that_wait(archive: Path) -> None:
    first = ap.open(archive).files()[0]
    (archive / "images" / "new.jpg").write_bytes(first.read_bytes())
    with (archive / "labels.csv").open("a", encoding="utf-8") as table:
        table.write("new.jpg,,test,\n")
    with pytest.raises(ap.InputError, match=r"partial=True of ap\.open"):
        ap.open(archive).thresholds("ridge-hog")
    part = ap.open(archive, partial=True)
    with pytest.warns(UserWarning, match="partial") as said:
        curve = part.thresholds("ridge-hog")
    assert curve.attrs["partial"] == "partial: 100 of 101 rows"
    with pytest.warns(UserWarning, match="partial") as said:
        part.leaderboard()
    assert sum("partial: 100" in str(warning.message) for warning in said) == 1


@pytest.mark.filterwarnings("ignore:.*has changed since the last answer")
def test_an_open_task_answers_by_the_task_file_of_now(archive: Path) -> None:
    task = ap.open(archive)
    two = task.embeddings("hog", view=None)
    edit(archive / "task.toml", '"flip"', '"center"')
    embed(load_task(archive), Options(workers=0, device="cpu"))
    np.testing.assert_array_equal(task.embeddings("hog", view=None), two[:, :1])
    for answer in (task.oof, task.predict, task.thresholds):
        with pytest.raises(ap.InputError, match=r"ridge-hog is out of date"):
            answer("ridge-hog")
    with pytest.raises(ap.InputError, match="none of 4 systems is up to date"):
        task.leaderboard()
    edit(archive / "task.toml", "labels = [", "labels = [3, ")
    with pytest.raises(ap.InputError, match="labels"):
        _ = task.labels


def test_an_archive_without_labels_has_rows_and_embeddings(archive: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (archive / "images").rename(plain / "images")
    (plain / "task.toml").write_text('name = "plain"\n[embed]\nviews = "center"\n')
    embed(load_task(plain), Options(workers=0, device="cpu"))
    task = ap.open(plain)
    rows, x = task.rows(), task.embeddings("hog")
    assert len(rows) == len(x) == 100 and rows.fold.isna().all() and rows.label.isna().all()
    assert rows.attrs["snapshot"] == task.rows().attrs["snapshot"]
    with pytest.raises(ap.InputError, match=r"no labelled rows in .*images: label"):
        task.leaderboard()


def test_damaged_folds_leave_rows_and_are_named(archive: Path) -> None:
    folds = archive / "work" / "folds.csv"
    folds.write_text(folds.read_text("utf-8").replace(",0,", ",1,", 1), "utf-8")
    task = ap.open(archive)
    with pytest.warns(UserWarning, match=r"no folds and no systems: .*folds.csv is damaged"):
        assert task.rows().fold.isna().all()
    with (
        pytest.warns(UserWarning, match="no folds"),
        pytest.raises(ap.InputError, match=r"folds.csv is damaged or was edited"),
    ):
        task.oof("greedy")


def test_two_systems_are_compared_as_by_the_command(task) -> None:
    from stripes import answer_of

    record = answer_of("compare", task.file, "ridge-hog", "knn-hog")
    found = task.compare("ridge-hog", "knn-hog")
    assert list(found.metric) == ["macro_f1", "accuracy"]
    for row in found.to_dict("records"):
        assert record["difference"][row["metric"]] == {
            name: row[name] for name in ("difference", "low", "high", "p")
        }
        assert row["a"] == record["a"][row["metric"]]["value"]
    assert {name: found.attrs[name] for name in ("noise", "rows", "only_a_right")} == {
        name: record[name] for name in ("noise", "rows", "only_a_right")
    }
    assert (found.attrs["a"], found.attrs["b"]) == ("ridge-hog", "knn-hog")
