"""Labels that were swapped are found, by a stored system or by a quick probe."""

import csv

import numpy as np
import pytest

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_names import runs_folder
from archiveprobe.probe.audit.data import audit_data
from archiveprobe.probe.audit.labels import QUICK, audit_labels, best_system, find_suspects
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import load_task

SWAPPED = ("p004.jpg", "p011.jpg", "p030.jpg")


def swap(images, labels=("intact", "destroyed")):
    for image in images:
        if image.id in SWAPPED:
            image.label = labels[(labels.index(image.label) + 1) % len(labels)]
    return images


def finding_of(task):
    return audit_labels(audit_data(load_dataset(task)))


def ids(finding):
    return {row["id"] for row in finding.details["suspects"]}


def assert_found(finding):
    """One in three may hide: a few swaps among 120 rows lower the confidence of all answers."""
    assert ids(finding) <= set(SWAPPED)
    assert finding.value == len(ids(finding)) >= 2


@pytest.fixture
def task(archive, draw, tmp_path):
    return archive(tmp_path, swap(draw(120, apart=6.0)))


def test_a_quick_probe_finds_them_and_they_become_corrections(task):
    finding = finding_of(task)
    assert finding.details["judge"] == QUICK
    assert_found(finding)
    rows = finding.details["suspects"]
    assert all({row["given"], row["suggested"]} == {"intact", "destroyed"} for row in rows)
    assert all(row["score"] < 0.5 for row in rows)
    (task.folder / "corrections.csv").write_bytes(finding.files["suspect_labels.csv"])
    with (task.folder / "corrections.csv").open(newline="") as stream:
        assert next(csv.reader(stream)) == ["id", "label", "given", "score"]
    task.file.write_text('corrections = "corrections.csv"\n' + task.file.read_text())
    corrected = load_task(task.file)
    after = load_dataset(corrected)
    labels = dict(zip(after.labelled.ids, after.labels, strict=True))
    assert all(after.classes[labels[row["id"]]] == row["suggested"] for row in rows)
    assert not ids(finding_of(corrected)) & ids(finding)


def test_the_best_sound_system_is_asked(task):
    run_probes(task, Options(probes=("ridge", "knn"), workers=1))
    best = best_system(load_dataset(task)).system
    finding = finding_of(task)
    assert finding.details["judge"] == best != QUICK
    assert_found(finding)
    (file,) = (runs_folder(task) / best).glob("predictions-*.npz")
    file.write_bytes(file.read_bytes()[:-1])
    assert best_system(load_dataset(task)).system != best
    table = task.folder / "labels.csv"
    table.write_text(table.read_text().replace("p004.jpg,destroyed", "p004.jpg,intact"))
    assert best_system(load_dataset(load_task(task.file))) is None


def test_sure_answers_find_all_of_them_the_surest_first(task):
    dataset = load_dataset(task)
    truth = np.array([int(id_[1:4]) % 2 for id_ in dataset.labelled.ids])
    sure = np.where(np.isin(dataset.labelled.ids, SWAPPED), 0.98 + truth / 1000, 0.97)
    sure[30] = 0.99
    proba = np.where(np.arange(2) == truth[:, None], sure[:, None], 1 - sure[:, None])
    suspects = find_suspects(dataset, proba)
    assert [row.id for row in suspects] == ["p030.jpg", "p011.jpg", "p004.jpg"]
    assert suspects[0].score == pytest.approx(0.01)


def test_three_labels(archive, draw, tmp_path):
    labels = ("intact", "damaged", "destroyed")
    images = swap(draw(150, labels, apart=7.0), labels)
    finding = finding_of(archive(tmp_path, images, labels=labels))
    assert_found(finding)
    # Number 30 is "intact" and was labelled the next, "damaged".
    suggested = {row["id"]: row["suggested"] for row in finding.details["suspects"]}
    assert suggested["p030.jpg"] == "intact"


def test_images_that_cannot_be_read_are_no_suspects(archive, draw, tmp_path):
    images = swap(draw(120, apart=6.0))
    images[4].seen["status"] = "truncated"
    suspects = ids(finding_of(archive(tmp_path, images)))
    assert suspects
    assert suspects <= set(SWAPPED) - {"p004.jpg"}


def test_a_label_without_any_probability_is_no_fault(task):
    dataset = load_dataset(task)
    proba = np.full((len(dataset), 2), np.nan)
    assert find_suspects(dataset, proba) == []
    proba[dataset.labels == 0] = [0.9, 0.1]
    assert find_suspects(dataset, proba) == []
