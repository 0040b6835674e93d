"""Learning curves as `finetune` leaves them, read back from sealed records."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from striped_archive import striped_archive
from stripes import done

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.look.collect.curves import learning_curves
from archiveprobe.task.config import load_task

RECIPE = """
[model]
backbone = "timm:test_convnext2"
weights = "random"
size = 32
[schedule]
epochs = 3
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with all folds of a recipe, one of another, which nobody may change."""
    folder = striped_archive(tmp_path_factory.mktemp("curves") / "archive", labelled=24)
    for name in ("quick", "other"):
        (folder / f"{name}.toml").write_text(RECIPE)
    how = ("--device", "cpu", "--workers", "0")
    done("finetune", folder, "--recipe", folder / "quick.toml", "--fold", "all", *how)
    done("finetune", folder, "--recipe", folder / "other.toml", "--fold", "1", *how)
    return folder


@pytest.fixture
def own(trained: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    folder = tmp_path / "archive"
    shutil.copytree(trained, folder)
    return folder


def test_every_epoch_of_every_fold(trained: Path) -> None:
    task = load_task(trained)
    curves = learning_curves(task)
    names = [(each.system, each.part, each.fold) for each in curves]
    quick = [("quick", f"fold-{fold}", fold) for fold in range(3)]
    assert names == [("other", "fold-1", 1), *quick]
    for each in curves:
        with (task.work / "finetune" / each.system / each.part / "curves.csv").open() as file:
            written = list(csv.DictReader(file))
        record = json.loads(json.dumps(each.record()))
        assert record["epoch"] == [1, 2, 3]
        assert 1 <= record["kept"] <= 3
        for name, places in (("loss", 6), ("macro_f1", 6), ("lr", 10)):
            wanted = [float(row[name]) if row[name] else None for row in written]
            rounded = [None if x is None else round(x, places) for x in record[name]]
            assert rounded == pytest.approx(wanted, rel=1e-3), name


def test_a_task_that_was_never_fine_tuned_has_none(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text('name = "a"\nlabels = ["a", "b"]\n')
    assert learning_curves(load_task(tmp_path)) == []


def test_a_changed_record_is_left_out_and_said(own: Path) -> None:
    file = own / "work/finetune/quick/fold-1/part.json"
    file.write_text(file.read_text().replace('"loss": ', '"loss": 1'))
    other = own / "work/finetune/other/fold-1/part.json"
    other.write_bytes(b"\x00\x01")
    said: list[str] = []
    curves = learning_curves(load_task(own), notify=said.append)
    assert [(each.system, each.fold) for each in curves] == [("quick", 0), ("quick", 2)]
    assert len(said) == 2
    assert all("damaged" in line and "\n" not in line for line in said)
    assert str(file) in said[1]


def test_curves_of_another_snapshot_are_left_out_and_said(own: Path) -> None:
    task = load_task(own)
    parts = load_dataset(task).parts
    assert len(learning_curves(task, parts)) == 4
    said: list[str] = []
    assert learning_curves(task, {**parts, "labels": "0" * 64}, notify=said.append) == []
    assert len(said) == 4
    assert "another snapshot" in said[0]
