"""A label that leaks into what ought not to matter is caught; what is unrelated is not."""

import numpy as np
import pytest

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.probe import audit_shortcuts
from archiveprobe.probe.audit_properties import SUBJECTS, encoded, held_out_logits
from archiveprobe.probe.audit_rows import gather
from archiveprobe.probe.audit_shortcuts import ALL, find_shortcuts


def shortcuts_of(task):
    return {one.name: one for one in find_shortcuts(gather(load_dataset(task)))}


def leak(one, **values):
    one.seen |= {name: value(one.label) for name, value in values.items()}


def test_unrelated_properties_are_not_flagged(archive, draw, tmp_path):
    found = shortcuts_of(archive(tmp_path, draw(240)))
    assert list(found) == [*SUBJECTS, ALL]
    assert not any(one.flagged for one in found.values())
    for name in set(SUBJECTS) - {"borders"}:
        assert found[name].low < found[name].chance + 0.1
        assert found[name].low <= found[name].macro_f1 <= found[name].high
    assert found["borders"].macro_f1 is None


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
    pictures = draw(120)
    for one in pictures:
        leak(one, **values)
    found = shortcuts_of(archive(tmp_path, pictures))
    assert {name for name, one in found.items() if one.flagged} == {subject, ALL}
    assert found[subject].macro_f1 > 0.98
    assert 0.4 < found[subject].chance < 0.6


def test_a_weak_leak_of_a_rare_label_is_caught(archive, draw, tmp_path):
    """A plain classifier would answer the frequent label everywhere and see nothing."""
    pictures = draw(400)
    rng = np.random.default_rng(3)
    for at, one in enumerate(pictures):
        one.label = "destroyed" if at % 8 == 0 else "intact"
        if one.label == "destroyed":
            one.seen["bytes"] = int(rng.integers(20_000, 100_000))
    found = shortcuts_of(archive(tmp_path, pictures))
    assert found["file size"].flagged
    assert found["file size"].macro_f1 < 0.8


def test_one_of_three_labels_leaks(archive, draw, tmp_path):
    labels = ("intact", "damaged", "destroyed")
    pictures = draw(180, labels)
    for one in pictures:
        if one.label == "damaged":
            one.seen["bytes"] = 5_000
    found = shortcuts_of(archive(tmp_path, pictures, labels=labels))
    assert found["file size"].flagged
    assert 0.2 < found["file size"].chance < 0.45
    assert not found["mean colour"].flagged


def test_nothing_was_observed(archive, draw, tmp_path):
    pictures = draw(60)
    for one in pictures:
        one.seen = {}
    found = shortcuts_of(archive(tmp_path, pictures))
    assert all(one.macro_f1 is None and not one.flagged for one in found.values())
    assert found["EXIF"].record() == {
        "name": "EXIF",
        "macro_f1": None,
        "low": None,
        "high": None,
        "chance": None,
        "flagged": False,
    }


def test_a_label_in_one_fold_only_is_no_fault(archive, draw, tmp_path):
    pictures = [*draw(60, ["intact"]), *draw(1, ["destroyed"], prefix="d", seed=4)]
    found = shortcuts_of(archive(tmp_path, pictures))
    assert all(one.macro_f1 is None for one in found.values())


def test_many_rows_are_sampled(archive, draw, tmp_path, monkeypatch):
    monkeypatch.setattr(audit_shortcuts, "_MOST_ROWS", 90)
    pictures = draw(150)
    for one in pictures:
        leak(one, bytes=lambda label: 1_000 if label == "intact" else 2_000)
    rows = gather(load_dataset(archive(tmp_path, pictures)))
    assert len(audit_shortcuts._places(rows)) == 90
    assert find_shortcuts(rows)[0].flagged


def test_a_frequent_value_and_missing_ones_have_indicators():
    column = np.array([np.nan] * 20 + [7.0] * 40 + [*np.linspace(0, 20, 60)])
    matrix = encoded([column, np.ones(120)])
    same = [set(np.flatnonzero(indicator)) for indicator in matrix[:, 1:].T]
    assert set(range(20)) in same
    assert set(range(20, 60)) in same
    assert encoded([np.ones(5), np.full(5, np.nan)]) is None


def test_no_row_is_answered_by_a_model_that_saw_it():
    """An indicator of every row would give labels away in the fit, never held out."""
    y = np.arange(40) % 2
    logits = held_out_logits(np.eye(40), y, np.arange(40) // 2 % 4)
    assert np.ptp(logits[:, 1] - logits[:, 0]) < 1e-6
