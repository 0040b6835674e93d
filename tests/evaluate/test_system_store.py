"""Systems on disk: they come back as they were, and nothing damaged or foreign is parsed.

One is replaced in one step: kills, lost power, full disks and readers beside a writer change that
by nothing.
"""

import errno
import hashlib
import json
import os
import random
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from powerloss import Dead, RecordingOs, lay, states
from snapshots import seal_anything

import archiveprobe.base.files
from archiveprobe.base.errors import InputError
from archiveprobe.base.sealed import read_sealed, write_sealed
from archiveprobe.evaluate import system_store
from archiveprobe.evaluate.system_names import runs_folder, systems
from archiveprobe.evaluate.system_store import MODEL, PREDICTIONS, load_run, save_run


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
    assert set(run.folder.iterdir()) == {run.folder / "run.json", *run.paths.values()}
    for name, path in run.paths.items():
        content = path.read_bytes()
        assert content == run.files[name]
        stem, ending = name.split(".")
        assert path.name == f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}.{ending}"


def test_a_system_replaces_one_of_its_name(stored, fault_of) -> None:
    task, predictions, _ = stored
    save_run(task, "one", {"system": "one", "new": 1}, predictions)
    run = load_run(task, "one")
    assert run.record["new"] == 1
    assert "model.safetensors" not in run.files
    assert [folder.name for folder in runs_folder(task).iterdir()] == ["one"]
    assert set(run.folder.iterdir()) == {run.folder / "run.json", run.paths[PREDICTIONS]}
    fault_of(run.arrays, "no fitted model")


@pytest.mark.proves("hostile")
@pytest.mark.parametrize("file", ["run.json", "predictions", "model"])
@pytest.mark.parametrize("how", ["flipped", "cut", "longer", "pipe", "gone"])
def test_a_changed_file_is_never_parsed(stored, fault_of, monkeypatch, file, how) -> None:
    task = stored[0]
    (path,) = (runs_folder(task) / "one").glob(f"{file}*")
    content = bytearray(path.read_bytes())
    if how in ("gone", "pipe"):
        path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    if how in ("flipped", "cut", "longer"):
        content[len(content) // 2] ^= how == "flipped"
        path.write_bytes(content[:-1] if how == "cut" else content + b" " * (how == "longer"))
    monkeypatch.setattr(
        system_store.Predictions, "from_bytes", lambda *_: pytest.fail("was parsed")
    )
    gone = file == "run.json" and how == "gone"
    said = ["no system 'one'"] if gone else [path.name, "run that system again"]
    fault_of(lambda: load_run(task, "one"), *said)


def rewrite(folder: Path, **files: bytes) -> None:
    """Replace files and their digests: what someone may hand over as a system."""
    record = read_sealed(folder / "run.json")
    for name, content in files.items():
        digest = hashlib.sha256(content).hexdigest()
        stem, ending = name.split("_")
        (folder / f"{stem}-{digest[:16]}.{ending}").write_bytes(content)
        record["files"][f"{stem}.{ending}"] = {"bytes": len(content), "sha256": digest}
    write_sealed(folder / "run.json", record)


LISTED = {"bytes": 1, "sha256": "0" * 64}
FILES = {PREDICTIONS: LISTED, MODEL: LISTED}
FOREIGN_FILES = [
    {},
    {MODEL: LISTED},
    {**FILES, "evil.py": LISTED},
    [PREDICTIONS],
    {PREDICTIONS: "0" * 64},
    {PREDICTIONS: {"bytes": 1}},
    {PREDICTIONS: {**LISTED, "more": 1}},
    *({PREDICTIONS: {**LISTED, "bytes": size}} for size in (-1, 1e999, "1", None, True)),
    *({PREDICTIONS: {**LISTED, "sha256": text}} for text in ("../" * 22, 1, None, "A" * 64)),
]


@pytest.mark.proves("hostile")
@pytest.mark.parametrize(
    "content",
    [
        *(json.dumps({"record": {}, "files": files}) for files in FOREIGN_FILES),
        json.dumps({"record": [1, 2], "files": FILES}),
        json.dumps({"record": {}}),
        "[1, 2]",
        "not json",
        "null",
        "\ud800",
        "[" * 100_000,
    ],
    ids=lambda content: content[:60],
)
def test_a_foreign_folder_is_refused_in_one_line(stored, fault_of, content) -> None:
    task = stored[0]
    folder = runs_folder(task) / "one"
    seal_anything(folder / "run.json", content)
    fault_of(lambda: load_run(task, "one"), "damaged", str(folder), "run that system again")
    save_run(task, "one", {"new": 1}, stored[1])
    assert load_run(task, "one").record == {"new": 1}


def test_a_system_of_an_earlier_version_is_run_again(stored, fault_of) -> None:
    task, predictions, _ = stored
    folder = runs_folder(task) / "old"
    folder.mkdir()
    for name in ("run.json", "predictions.npz", "model.safetensors", "digests.json"):
        (folder / name).write_text("{}")
    (folder / "notes.txt").write_text("mine")
    fault_of(lambda: load_run(task, "old"), "another version", "run that system again")
    save_run(task, "old", {"new": 1}, predictions)
    run = load_run(task, "old")
    assert set(folder.iterdir()) == {
        folder / "run.json",
        run.paths[PREDICTIONS],
        folder / "notes.txt",
    }


def test_a_sound_digest_does_not_make_a_model_sound(stored, fault_of) -> None:
    task = stored[0]
    rewrite(runs_folder(task) / "one", model_safetensors=b"\xff" * 40, predictions_npz=b"PK")
    run = load_run(task, "one")
    fault_of(run.arrays, run.paths[MODEL].name, "run that system again")
    fault_of(run.predictions, run.paths[PREDICTIONS].name, "run that system again")


@pytest.mark.parametrize("name", ["../one", "a/b", "", ".hidden", "a" * 201, "one\n", "/etc", "ü"])
def test_a_name_never_leaves_its_folder(stored, fault_of, name) -> None:
    task, predictions, _ = stored
    shutil.copytree(runs_folder(task) / "one", task.work / "one")
    fault_of(lambda: load_run(task, name), "no system")
    fault_of(lambda: save_run(task, name, {}, predictions), "cannot name a system")
    assert systems(task) == ["one"]


def test_only_whole_systems_are_listed_and_the_nearest_name_is_offered(
    stored, make_task, tmp_path, fault_of
) -> None:
    task = stored[0]
    shutil.copytree(runs_folder(task) / "one", runs_folder(task) / ".tmp-1234")
    (runs_folder(task) / "half").mkdir()
    assert systems(task) == ["one"]
    fault_of(lambda: load_run(task, "ome"), "'ome'", "'one'", "list systems")
    assert systems(make_task(tmp_path / "new")) == []


@pytest.mark.proves("hostile")
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


DRAWS = 8
OLD, NEW, LAST = {"kind": "probe"}, {"kind": "probe", "new": 1}, {"kind": "probe", "last": 1}


@pytest.fixture
def saves(draw_dataset, draw_system):
    """A task, and a function that saves the system "one" with a record: each with its own files."""
    dataset = draw_dataset(n=20)
    drawn = [draw_system(dataset, seed=seed) for seed in range(3)]

    def save(record, files=None):
        predictions = drawn[[OLD, NEW, LAST].index(record)]
        # One of the systems has no model, so that files also have to go.
        arrays = None if record == NEW else {"coef": predictions.oof}
        save_run(dataset.task, "one", record, predictions, arrays)

    return dataset.task, save


@pytest.fixture
def recorded(saves, monkeypatch):
    """Save the system NEW over OLD, or as the first, on a disk that notes every call."""
    task_, save = saves

    def recorded(first=False, **sabotage):
        shutil.rmtree(task_.work, ignore_errors=True)
        if not first:
            save(OLD)
        record = RecordingOs(task_.folder, **sabotage)
        with monkeypatch.context() as patch:
            patch.setattr(archiveprobe.base.files, "os", record)
            try:
                save(NEW)
                record.promise(["new"])
            except Dead:
                record.revive()
        return record

    return recorded


def leftovers(task_):
    """Files of the system "one" that its record does not name."""
    run = load_run(task_, "one")
    return set(run.folder.iterdir()) - {run.folder / "run.json", *run.paths.values()}


def complaints(record, task_, tmp_path, old):
    """What is wrong with the states that may be left once the power has gone."""
    chance, seen = random.Random(0), {}
    for number in range(len(record.operations) + 1):
        for tree in states(record, number, DRAWS, chance):
            state = frozenset(tree.items())
            if state not in seen:
                root = tmp_path / f"state-{len(seen)}"
                lay(tree, root)
                there = task_.model_copy(update={"file": root / task_.file.name})
                try:
                    seen[state] = load_run(there, "one").record
                except InputError as error:
                    seen[state] = None if "no system" in str(error) else str(error)
            allowed = [NEW] if record.promised(number) else [NEW, old]
            if seen[state] not in allowed:
                yield f"after operation {number}: {seen[state]}"


@pytest.mark.proves("power")
@pytest.mark.parametrize("first", [True, False], ids=["first", "again"])
def test_when_the_power_goes_the_old_system_or_the_new_one_is_there(
    recorded, saves, tmp_path, first
):
    record = recorded(first)
    assert len(record.operations) >= 12
    assert list(complaints(record, saves[0], tmp_path, None if first else OLD)) == []


@pytest.mark.parametrize("sabotage", ["file", "folder"])
def test_a_forgotten_fsync_is_noticed(recorded, saves, tmp_path, sabotage):
    record = recorded(forget=[sabotage])
    assert list(complaints(record, saves[0], tmp_path, OLD))


@pytest.mark.proves("power")
@pytest.mark.parametrize("first", [True, False], ids=["first", "again"])
def test_what_killed_writers_left_is_put_right_by_the_next(recorded, saves, first):
    task_, save = saves
    whole = len(recorded(first).operations)
    found = []
    for dies_at in range(whole):
        recorded(first, dies_at=dies_at)
        names = systems(task_)
        assert names == ["one"] or first
        found.append(load_run(task_, "one").record if names else None)
        save(LAST)
        assert load_run(task_, "one").record == LAST
        assert leftovers(task_) == set()
    # Once the new system is there it stays.
    before = None if first else OLD
    assert found == [before] * found.count(before) + [NEW] * found.count(NEW)
    assert min(found.count(before), found.count(NEW)) > 0


class Refusing:
    """Stands in for `os`: one of its functions raises at its nth call."""

    def __init__(self, name, at):
        self.name, self.at, self.calls = name, at, 0

    def __getattr__(self, name):
        return self._counted if name == self.name else getattr(os, name)

    def _counted(self, *given):
        self.calls += 1
        if self.calls == self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return getattr(os, self.name)(*given)


@pytest.mark.proves("disk")
@pytest.mark.parametrize("first", [True, False], ids=["first", "again"])
@pytest.mark.parametrize("name", ["write", "fsync", "replace", "open", "mkdir"])
def test_a_disk_that_refuses_leaves_the_old_system(saves, monkeypatch, name, first):
    task_, save = saves
    # A read that fails is no matter of this test.
    monkeypatch.setattr(system_store, "check_name", lambda *_: None)
    for at in range(1, 30):
        shutil.rmtree(task_.work, ignore_errors=True)
        if not first:
            save(OLD)
        disk = Refusing(name, at)
        with monkeypatch.context() as patch:
            patch.setattr(archiveprobe.base.files, "os", disk)
            if not refused(save):
                break
        found = load_run(task_, "one").record if systems(task_) else None
        assert found in (None if first else OLD, NEW)
        if found is None:
            assert [*runs_folder(task_).glob("*")] == []
        elif found == OLD:
            assert leftovers(task_) == set()
    # Making the folders again is not needed where a system is replaced.
    assert at > 1 or (name == "mkdir" and not first)


def refused(save):
    """Whether saving is refused, in a line that says what to do."""
    try:
        save(NEW)
    except InputError as error:
        assert "No space left" in str(error)
        assert "make space" in str(error)
        return True
    return False


@pytest.mark.proves("writers")
def test_a_reader_whose_system_is_replaced_meanwhile_reads_the_new_one(saves, monkeypatch):
    task_, save = saves
    save(OLD)
    real, left = system_store.read_ordinary, [NEW, LAST, OLD]

    def read_late(path, largest):
        if left:
            with monkeypatch.context() as patch:
                patch.setattr(system_store, "read_ordinary", real)
                save(left.pop(0))
        return real(path, largest)

    monkeypatch.setattr(system_store, "read_ordinary", read_late)
    assert load_run(task_, "one").record == OLD
    assert not left


@pytest.mark.proves("writers")
def test_readers_beside_a_writer(saves):
    task_, save = saves
    save(OLD)
    done = threading.Event()

    def write():
        for turn in range(60):
            save([NEW, OLD, LAST][turn % 3])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not done.is_set():
        run = load_run(task_, "one")
        seen.append(run.record)
        run.predictions()
        assert systems(task_) == ["one"]
    writer.join()
    assert seen
