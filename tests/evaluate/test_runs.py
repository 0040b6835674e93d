"""Systems on disk: they come back as they were, and nothing damaged or foreign is parsed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from evaluate import runs
from evaluate.runs import load_run, runs_folder, save_run, systems


@pytest.fixture
def stored(draw_dataset, draw_system):
    """A task with one stored system, its predictions and its arrays."""
    dataset = draw_dataset()
    arrays = {
        "coef": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "levels": np.array([0.5, np.nan], np.float32),
    }
    predictions = draw_system(dataset)
    save_run(dataset.task, "one", {"system": "one"}, predictions, arrays)
    return dataset.task, predictions, arrays


def test_a_system_comes_back_as_it_was(stored) -> None:
    task, predictions, arrays = stored
    run = load_run(task, "one")
    assert systems(task) == ["one"] == [run.system]
    assert run.record == {"system": "one"}
    assert run.predictions().digest == predictions.digest
    for name, values in run.arrays().items():
        np.testing.assert_array_equal(values, arrays[name])
        assert values.dtype == arrays[name].dtype
    assert {file.name for file in run.folder.iterdir()} == {
        "run.json",
        "predictions.npz",
        "model.safetensors",
        "digests.json",
    }


def test_a_system_replaces_one_of_its_name(stored) -> None:
    task, predictions, _ = stored
    save_run(task, "one", {"system": "one", "new": 1}, predictions)
    run = load_run(task, "one")
    assert run.record["new"] == 1
    assert "model.safetensors" not in run.files
    assert [folder.name for folder in runs_folder(task).iterdir()] == ["one"]


def test_a_system_without_a_model_says_so(stored, fault_of) -> None:
    task, predictions, _ = stored
    save_run(task, "mean", {}, predictions)
    fault_of(load_run(task, "mean").arrays, "no fitted model")


@pytest.mark.parametrize("file", ["run.json", "predictions.npz", "model.safetensors"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_changed_file_is_never_parsed(stored, fault_of, monkeypatch, file, how) -> None:
    task = stored[0]
    path = runs_folder(task) / "one" / file
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content if how == "flipped" else content[:-1])
    monkeypatch.setattr(runs.Predictions, "from_bytes", lambda *_: pytest.fail("was parsed"))
    fault_of(lambda: load_run(task, "one"), file, "run that system again")


def rewrite(folder: Path, **files: bytes) -> None:
    """Replace files and their digests: what someone may hand over as a system."""
    digests = json.loads((folder / "digests.json").read_bytes())
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
        digests[name.replace("_", ".")] = runs.hashlib.sha256(content).hexdigest()
    (folder / "digests.json").write_text(json.dumps(digests))


@pytest.mark.parametrize(
    "files",
    [
        {"run_json": b"[1, 2]"},
        {"run_json": b"not json"},
        {"run_json": b"\xff\xfe"},
        {"run_json": b"[" * 100_000},
        {"evil_py": b"print()"},
        {"digests_json": b"[]"},
        {"digests_json": b'["run.json", "predictions.npz"]'},
        {"digests_json": b'{"run.json": 1, "predictions.npz": 2}'},
        {"digests_json": b'{"../../task.toml": "", "run.json": "", "predictions.npz": ""}'},
        {"digests_json": b"null"},
    ],
    ids=str,
)
def test_a_foreign_folder_is_told_in_one_line(stored, fault_of, files) -> None:
    task = stored[0]
    folder = runs_folder(task) / "one"
    if "digests_json" in files:
        (folder / "digests.json").write_bytes(files["digests_json"])
    else:
        rewrite(folder, **files)
    fault_of(lambda: load_run(task, "one"), "damaged", str(folder), "run that system again")


def test_a_sound_digest_does_not_make_a_model_sound(stored, fault_of) -> None:
    task = stored[0]
    rewrite(runs_folder(task) / "one", model_safetensors=b"\xff" * 40, predictions_npz=b"PK")
    run = load_run(task, "one")
    fault_of(run.arrays, "model.safetensors", "run that system again")
    fault_of(run.predictions, "predictions.npz", "run that system again")


@pytest.mark.parametrize("name", ["../one", "a/b", "", ".hidden", "a" * 201, "one\n", "/etc", "ü"])
def test_a_name_never_leaves_its_folder(stored, fault_of, name) -> None:
    task, predictions, _ = stored
    shutil.copytree(runs_folder(task) / "one", task.work / "one")
    fault_of(lambda: load_run(task, name), "no system")
    fault_of(lambda: save_run(task, name, {}, predictions), "cannot name a system")
    assert systems(task) == ["one"]


def test_the_nearest_name_is_offered(stored, fault_of) -> None:
    fault_of(lambda: load_run(stored[0], "ome"), "'ome'", "'one'", "list systems")


def test_what_a_killed_writer_left_is_no_system(stored) -> None:
    task = stored[0]
    shutil.copytree(runs_folder(task) / "one", runs_folder(task) / ".tmp-1234")
    (runs_folder(task) / "half").mkdir()
    assert systems(task) == ["one"]


def test_no_systems_before_the_first(make_task, tmp_path) -> None:
    assert systems(make_task(tmp_path)) == []


@pytest.mark.parametrize("step", ["write", "rename"])
def test_a_disk_that_refuses_leaves_the_old_system(stored, fault_of, monkeypatch, step) -> None:
    task, predictions, _ = stored
    real, moves = Path.rename, []

    def refuse(*_):
        raise OSError(28, "No space left on device")

    def rename_once(path, target):
        moves.append(path)
        return refuse() if len(moves) == 2 else real(path, target)

    if step == "write":
        monkeypatch.setattr(Path, "write_bytes", refuse)
    else:
        monkeypatch.setattr(Path, "rename", rename_once)
    fault_of(lambda: save_run(task, "one", {"new": 1}, predictions), "No space left", "make space")
    monkeypatch.undo()
    assert load_run(task, "one").record == {"system": "one"}
    assert [folder.name for folder in runs_folder(task).iterdir()] == ["one"]


def test_what_killed_writers_left_is_put_right_by_the_next(stored) -> None:
    task, predictions, _ = stored
    root = runs_folder(task)
    # One was killed between its two renames, one after them, one before.
    shutil.copytree(root / "one", root / ".old-gone")
    shutil.copytree(root / "one", root / ".old-one")
    (root / ".tmp-0123").mkdir()
    save_run(task, "two", {"system": "two"}, predictions)
    assert sorted(folder.name for folder in root.iterdir()) == ["gone", "one", "two"]
    assert load_run(task, "gone").record == {"system": "one"}


def test_systems_of_one_kind_never_replace_those_of_another(stored, fault_of) -> None:
    task, predictions, _ = stored
    save_run(task, "mine", {"kind": "probe"}, predictions)
    again = {"kind": "probe", "seed": 1}
    save_run(task, "mine", again, predictions)
    fault_of(
        lambda: save_run(task, "mine", {"kind": "finetune"}, predictions),
        "'probe'", "'finetune'", "another name",
    )  # fmt: skip
    assert load_run(task, "mine").record == again


def test_a_record_without_json_form_writes_nothing(stored) -> None:
    task, predictions, _ = stored
    with pytest.raises(ValueError, match="JSON"):
        save_run(task, "two", {"score": float("nan")}, predictions)
    assert systems(task) == ["one"]
