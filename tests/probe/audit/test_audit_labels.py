"""Labels that were swapped are found, by a stored system or by a quick probe."""

import csv

import numpy as np
import pytest

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_store import runs_folder
from archiveprobe.probe.audit_labels import (
    QUICK,
    as_corrections,
    best_system,
    find_suspects,
    suspects,
)
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import load_task

SWAPPED = ("p004.jpg", "p011.jpg", "p030.jpg")


def swap(pictures, labels=("intact", "destroyed")):
    for one in pictures:
        if one.id in SWAPPED:
            one.label = labels[(labels.index(one.label) + 1) % len(labels)]
    return pictures


def ids(found):
    return {one.id for one in found}


def assert_found(rows):
    """One in three may hide: a few swaps among 120 rows lower the confidence of all answers."""
    assert ids(rows) <= set(SWAPPED)
    assert len(rows) >= 2


@pytest.fixture
def task(archive, draw, tmp_path):
    return archive(tmp_path, swap(draw(120, apart=6.0)))


def test_a_quick_probe_finds_them(task):
    found = find_suspects(load_dataset(task), ["hog"])
    assert found.system == QUICK
    assert_found(found.rows)
    for one in found.rows:
        assert {one.given, one.suggested} == {"intact", "destroyed"}
        assert one.score < 0.5


def test_the_best_stored_system_is_asked(task):
    run_probes(task, Options(probes=("ridge", "knn"), workers=1))
    dataset = load_dataset(task)
    found = find_suspects(dataset, ["hog"])
    assert found.system == best_system(dataset).system != QUICK
    assert_found(found.rows)


def test_sure_answers_find_all_of_them_the_surest_first(task):
    dataset = load_dataset(task)
    truth = np.array([int(id_[1:4]) % 2 for id_ in dataset.labelled.ids])
    sure = np.where(np.isin(dataset.labelled.ids, SWAPPED), 0.98 + truth / 1000, 0.97)
    sure[30] = 0.99
    found = suspects(
        dataset, np.where(np.arange(2) == truth[:, None], sure[:, None], 1 - sure[:, None])
    )
    assert [one.id for one in found] == ["p030.jpg", "p011.jpg", "p004.jpg"]
    assert found[0].score == pytest.approx(0.01)


def test_stale_and_damaged_systems_are_not_asked(task):
    run_probes(task, Options(probes=("ridge", "knn"), workers=1))
    best = best_system(load_dataset(task)).system
    (file,) = (runs_folder(task) / best).glob("predictions-*.npz")
    file.write_bytes(file.read_bytes()[:-1])
    other = best_system(load_dataset(task)).system
    assert other != best
    table = task.folder / "labels.csv"
    table.write_text(table.read_text().replace("p004.jpg,destroyed", "p004.jpg,intact"))
    assert best_system(load_dataset(load_task(task.file))) is None


def test_three_labels(archive, draw, tmp_path):
    labels = ("intact", "damaged", "destroyed")
    pictures = swap(draw(150, labels, apart=7.0), labels)
    found = find_suspects(load_dataset(archive(tmp_path, pictures, labels=labels)), ["hog"])
    assert_found(found.rows)
    # Number 30 is "intact" and was labelled the next, "damaged".
    assert next(one for one in found.rows if one.id == "p030.jpg").suggested == "intact"


def test_pictures_that_cannot_be_read_are_no_suspects(archive, draw, tmp_path):
    pictures = swap(draw(120, apart=6.0))
    pictures[4].seen["status"] = "truncated"
    dataset = load_dataset(archive(tmp_path, pictures))
    found = ids(find_suspects(dataset, ["hog"]).rows)
    assert found
    assert found <= set(SWAPPED) - {"p004.jpg"}


def test_a_label_without_any_probability_is_no_fault(task):
    dataset = load_dataset(task)
    proba = np.full((len(dataset), 2), np.nan)
    assert suspects(dataset, proba) == []
    proba[dataset.labels == 0] = [0.9, 0.1]
    assert suspects(dataset, proba) == []


def test_what_was_looked_at_becomes_corrections(task):
    found = find_suspects(load_dataset(task), ["hog"]).rows
    (task.folder / "corrections.csv").write_bytes(as_corrections(found))
    task.file.write_text('corrections = "corrections.csv"\n' + task.file.read_text())
    after = load_dataset(load_task(task.file))
    labels = dict(zip(after.labelled.ids, after.labels, strict=True))
    for one in found:
        assert after.classes[labels[one.id]] == one.suggested
    assert not ids(find_suspects(after, ["hog"]).rows) & ids(found)
    with (task.folder / "corrections.csv").open(newline="") as stream:
        assert next(csv.reader(stream)) == ["id", "label", "given", "score"]
