"""A label that leaks into what ought not to matter is caught; what is unrelated is not."""

import numpy as np
import pytest

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.probe.audit import shortcuts
from archiveprobe.probe.audit.data import audit_data
from archiveprobe.probe.audit.properties import SUBJECTS, tree_probabilities
from archiveprobe.probe.audit.shortcuts import ALL, find_shortcuts


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(shortcuts, "_PERMUTATIONS", 100)
    monkeypatch.setattr(shortcuts, "_REPLICATES", 200)


def shortcuts_of(task):
    return {row.name: row for row in find_shortcuts(audit_data(load_dataset(task)))}


def leak(image, **values):
    image.seen |= {name: value(image.label) for name, value in values.items()}


def test_unrelated_properties_are_not_flagged(archive, draw, tmp_path):
    found = shortcuts_of(archive(tmp_path, draw(240)))
    assert list(found) == [*SUBJECTS, ALL]
    assert not any(row.flagged for row in found.values())
    for name in set(SUBJECTS) - {"borders"}:
        assert found[name].low < found[name].chance + 0.1
        assert found[name].low <= found[name].macro_f1 <= found[name].high
    assert found["borders"].macro_f1 is None


@pytest.mark.proves("data")
@pytest.mark.parametrize(
    ("subject", "values"),
    [
        ("file size", {"bytes": lambda label: 90_000 if label == "intact" else 90_001}),
        ("dimensions", {"width": lambda label: 640 if label == "intact" else 480}),
        ("format", {"format": lambda label: "JPEG" if label == "intact" else "PNG"}),
        ("EXIF", {"exif": lambda label: 0 if label == "intact" else 12}),
        ("borders", {"border": lambda label: 0.0 if label == "intact" else 0.2}),
        ("mean colour", {"red": lambda label: 90.0 if label == "intact" else 120.0}),
    ],
)
def test_a_label_that_leaks_is_caught(archive, draw, tmp_path, subject, values):
    images = draw(120)
    for image in images:
        leak(image, **values)
    found = shortcuts_of(archive(tmp_path, images))
    assert {name for name, row in found.items() if row.flagged} == {subject, ALL}
    assert found[subject].macro_f1 > 0.98
    assert 0.4 < found[subject].chance < 0.6


def test_a_weak_leak_of_a_rare_label_is_caught(archive, draw, tmp_path):
    """A plain classifier would answer the frequent label everywhere and see nothing."""
    images = draw(400)
    rng = np.random.default_rng(3)
    for at, image in enumerate(images):
        image.label = "destroyed" if at % 8 == 0 else "intact"
        if image.label == "destroyed":
            image.seen["bytes"] = int(rng.integers(20_000, 100_000))
    found = shortcuts_of(archive(tmp_path, images))
    assert found["file size"].flagged
    assert found["file size"].macro_f1 < 0.8


def test_one_of_three_labels_leaks(archive, draw, tmp_path):
    labels = ("intact", "damaged", "destroyed")
    images = draw(180, labels)
    for image in images:
        if image.label == "damaged":
            image.seen["bytes"] = 5_000
    found = shortcuts_of(archive(tmp_path, images, labels=labels))
    assert found["file size"].flagged
    assert 0.2 < found["file size"].chance < 0.45
    assert not found["mean colour"].flagged


def test_nothing_was_observed(archive, draw, tmp_path):
    images = draw(60)
    for image in images:
        image.seen = {}
    found = shortcuts_of(archive(tmp_path, images))
    assert all(row.macro_f1 is None and not row.flagged for row in found.values())
    assert found["EXIF"].record() == {
        "name": "EXIF",
        "macro_f1": None,
        "low": None,
        "high": None,
        "chance": None,
        "flagged": False,
    }


def test_a_label_in_one_fold_only_is_no_fault(archive, draw, tmp_path):
    images = [*draw(60, ["intact"]), *draw(1, ["destroyed"], prefix="d", seed=4)]
    found = shortcuts_of(archive(tmp_path, images))
    assert all(row.macro_f1 is None for row in found.values())


def test_many_rows_are_sampled(archive, draw, tmp_path, monkeypatch):
    monkeypatch.setattr(shortcuts, "_MOST_ROWS", 90)
    images = draw(150)
    for image in images:
        leak(image, bytes=lambda label: 1_000 if label == "intact" else 2_000)
    used = []
    measure = shortcuts.tree_probabilities
    monkeypatch.setattr(
        shortcuts,
        "tree_probabilities",
        lambda columns, y, fold: used.append(len(y)) or measure(columns, y, fold),
    )
    assert shortcuts_of(archive(tmp_path, images))["file size"].flagged
    assert set(used) == {90}


def test_a_label_in_one_exact_value_or_in_missing_ones_is_found():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    fold = np.arange(300) // 2 % 5
    exact = np.where(y == 1, 7.0, rng.uniform(0, 14, 300))
    missing = np.where(y == 1, np.nan, rng.uniform(0, 14, 300))
    for column in (exact, missing):
        proba = tree_probabilities([column, np.ones(300)], y, fold)
        assert (proba.argmax(1) == y).mean() > 0.95
    assert tree_probabilities([np.ones(300), np.full(300, np.nan)], y, fold) is None


def test_no_row_is_answered_by_a_model_that_saw_it():
    """A number of every row would give labels away in the fit, never held out."""
    y = np.random.default_rng(0).permutation(np.arange(200) % 2)
    proba = tree_probabilities([np.arange(200.0)], y, np.arange(200) % 5)
    assert abs((proba.argmax(1) == y).mean() - 0.5) < 0.15
