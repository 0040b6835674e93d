"""The whole audit: what it reports and writes, and folds cut anew along the duplicates."""

import csv
import json

import numpy as np
import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.ensemble import run_ensemble
from archiveprobe.evaluate.system_status import overview
from archiveprobe.probe.audit import across_folds, run_audit
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.folds import folds_file

KEYS = ["duplicates", "suspect_labels", "shortcuts", "shift", "warnings"]


@pytest.fixture
def faulty(archive, draw, copy_of, tmp_path):
    """One fault of every kind: copies, a wrong label, a leak, and rows from elsewhere."""
    pictures = draw(150, apart=5.0)
    strangers = draw(40, [None], prefix="t", seed=7)
    for one in pictures:
        one.seen["bytes"] = 30_000 if one.label == "intact" else 60_000
    pictures[9].label = "intact"
    for one in strangers:
        one.embedding[12:] += 2.0
    copies = [
        copy_of(pictures[at], f"copy{at}.jpg", pictures[at].label, bits=32) for at in range(20, 40)
    ]
    copies.append(copy_of(pictures[50], "across.jpg", None))
    copies.append(copy_of(pictures[52], "contrary.jpg", "destroyed"))
    return archive(tmp_path, [*pictures, *copies, *strangers])


def test_every_planted_fault_is_said(faulty):
    found = run_audit(faulty)
    record = found.record()
    assert list(record)[: len(KEYS)] == KEYS
    assert record["duplicates"] == 22
    assert "p009.jpg" in {one["id"] for one in record["suspects"]}
    assert record["suspect_labels"] == len(record["suspects"]) < 8
    flagged = {one["name"] for one in record["shortcuts"] if one["flagged"]}
    assert flagged == {"file size", "all together"}
    assert record["shift"]["auc"] > 0.95
    for words in (
        "across labelled rows and rows to predict: p050.jpg = across.jpg",
        "with different labels: p052.jpg = contrary.jpg",
        "across folds",
        "labels can be told by file size",
        "the rows to predict differ",
    ):
        assert sum(words in warning for warning in record["warnings"]) == 1, words
    assert not found.regrouped


def test_it_is_written_down_and_shown(faulty):
    found = run_audit(faulty)
    folder = faulty.work / "audit"
    assert {file.name for file in found.files} | {"shift.json"} == {
        file.name for file in folder.iterdir()
    }
    assert json.loads((folder / "audit.json").read_text()) == found.record()
    with (folder / "duplicates.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == sum(len(one.ids) for one in found.groups)
    assert {line["label"] for line in lines if line["id"] == "across.jpg"} == {""}
    with (folder / "suspect_labels.csv").open(newline="") as stream:
        assert [line["id"] for line in csv.DictReader(stream)] == [one.id for one in found.suspects]
    table = found.lines()
    assert {tuple(line) for line in table} == {("looked for", "found", "about")}
    shown = {line["looked for"]: line["found"] for line in table}
    assert shown["near-duplicate groups"] == "22"
    assert shown["- found by embeddings only"] == "20"
    assert shown["shift to the rows to predict"].startswith("AUC ")


def test_apply_keeps_copies_in_one_fold_and_puts_systems_out_of_date(faulty):
    run_probes(faulty, Options(probes=("ridge", "logistic"), workers=1))
    before = load_dataset(faulty)
    number = np.array(
        [int(id_[4:6]) if id_.startswith("copy") else -1 for id_ in before.labelled.ids]
    )
    found = run_audit(faulty, apply=True)
    after = load_dataset(faulty)
    assert found.regrouped
    assert across_folds(before, after.groups) > 0
    assert across_folds(after, after.groups) == 0
    at = {id_: place for place, id_ in enumerate(after.labelled.ids)}
    for copy in number[number >= 0]:
        assert (after.fold[:, at[f"p{copy:03}.jpg"]] == after.fold[:, at[f"copy{copy}.jpg"]]).all()
    assert not any("across folds" in warning for warning in found.warnings)
    stale = {one.system for one in overview(faulty) if one.state.startswith("out of date")}
    assert set(found.stale) == stale >= {"ridge-hog", "logistic-hog"}
    assert any("out of date" in warning and "ridge-hog" in warning for warning in found.warnings)


def test_applied_twice_moves_nothing(faulty, fault_of):
    run_audit(faulty, apply=True)
    content = folds_file(faulty).read_bytes()
    run_probes(faulty, Options(probes=("ridge",), workers=1))
    again = run_audit(faulty, apply=True)
    assert not again.regrouped
    assert again.stale == ()
    assert folds_file(faulty).read_bytes() == content


def test_systems_out_of_date_are_refused_by_an_ensemble(faulty, fault_of):
    run_probes(faulty, Options(probes=("ridge", "logistic"), workers=1))
    run_audit(faulty, apply=True)
    fault_of(
        lambda: run_ensemble(faulty, "mean", ("ridge-hog",)),
        "out of date (folds, groups, changed since)",
    )


def test_rows_without_groups_are_not_regrouped(archive, draw, tmp_path, fault_of):
    task = archive(tmp_path, draw(60), folds='count = 3\nrepeats = 1\ngroup = "none"\n')
    run_audit(task)
    fault_of(lambda: run_audit(task, apply=True), 'folds.group is "none"', "near-duplicates")


def test_nothing_to_predict_and_nothing_wrong(archive, draw, tmp_path):
    found = run_audit(archive(tmp_path, draw(120, apart=6.0)))
    record = found.record()
    assert [record[key] for key in ("duplicates", "suspect_labels", "warnings")] == [0, 0, []]
    assert record["shift"]["auc"] is None
    assert "-" in {line["found"] for line in found.lines()}


def test_a_label_too_rare_for_suspects_is_said(archive, draw, tmp_path):
    pictures = [*draw(60, ["intact"]), *draw(1, ["destroyed"], prefix="d", seed=4)]
    found = run_audit(archive(tmp_path, pictures))
    assert found.judge is None
    assert any("suspect labels were not looked for" in warning for warning in found.warnings)


def test_three_labels(archive, draw, copy_of, tmp_path):
    labels = ("intact", "damaged", "destroyed")
    pictures = draw(120, labels)
    contrary = copy_of(pictures[0], "contrary.jpg", "damaged")
    found = run_audit(archive(tmp_path, [*pictures, contrary], labels=labels))
    assert [one.conflicting for one in found.groups] == [True]


def test_a_backbone_without_a_cache_is_left_out_aloud(archive, draw, tmp_path, fault_of):
    task = archive(tmp_path / "some", draw(60), backbones=("hog", "other"), cached=("hog",))
    said: list[str] = []
    assert run_audit(task, notify=said.append).judge
    assert any(line.startswith("other: left out") for line in said)
    bare = archive(tmp_path / "none", draw(60), cached=())
    fault_of(lambda: run_audit(bare), "no cache for backbone 'hog'", "archiveprobe embed")


def test_a_damaged_cache_is_one_line(archive, draw, tmp_path):
    task = archive(tmp_path, draw(60))
    shard = next((task.work / "cache").rglob("*.h5"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(InputError):
        run_audit(task)
