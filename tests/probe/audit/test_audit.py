"""The whole audit: what it reports and writes, and folds assigned again along the duplicates."""

import csv
import json

import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.ensemble import run_ensemble
from archiveprobe.evaluate.system_status import overview
from archiveprobe.probe.audit.data import audit_data
from archiveprobe.probe.audit.duplicates import across_folds
from archiveprobe.probe.audit.run import run_audit
from archiveprobe.probe.audit.table import AUDITS
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.folds import folds_file

KEYS = ["duplicates", "suspect_labels", "shortcuts", "shift", "warnings"]


@pytest.fixture
def faulty(archive, draw, copy_of, tmp_path):
    """One fault of every kind: copies, a wrong label, a leak, and rows from elsewhere."""
    images = draw(150, apart=5.0)
    strangers = draw(40, [None], prefix="t", seed=7)
    for image in images:
        image.seen["bytes"] = 30_000 if image.label == "intact" else 60_000
    images[9].label = "intact"
    for image in strangers:
        image.embedding[12:] += 2.0
    copies = [
        copy_of(images[at], f"copy{at}.jpg", images[at].label, bits=32) for at in range(20, 40)
    ]
    copies.append(copy_of(images[50], "across.jpg", None))
    copies.append(copy_of(images[52], "contrary.jpg", "destroyed"))
    return archive(tmp_path, [*images, *copies, *strangers])


@pytest.mark.proves("data")
def test_every_planted_fault_is_said(faulty):
    report = run_audit(faulty)
    record = report.record()
    assert set(KEYS) <= set(record)
    assert record["duplicates"] == 22
    assert "p009.jpg" in {row["id"] for row in record["suspects"]}
    assert record["suspect_labels"] == len(record["suspects"]) < 8
    flagged = {row["name"] for row in record["shortcuts"] if row["flagged"]}
    assert flagged == {"file size", "all together"}
    assert record["shift"]["auc"] > 0.95
    for words in (
        "across labelled rows and rows to predict: p050.jpg = across.jpg",
        "with different labels: p052.jpg = contrary.jpg",
        "across folds",
        "labels can be predicted from file size",
        "the rows to predict differ",
    ):
        assert sum(words in warning for warning in record["warnings"]) == 1, words
    assert not report.regrouped
    # It is written down, and shown as a table.
    folder = faulty.work / "audit"
    written = {file.name for file in folder.iterdir()}
    assert {file.name for file in report.files} | {"shift.json"} == written
    assert json.loads((folder / "audit.json").read_text()) == json.loads(json.dumps(record))
    with (folder / "duplicates.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == sum(len(group["ids"]) for group in record["duplicate_groups"])
    assert {row["label"] for row in lines if row["id"] == "across.jpg"} == {""}
    with (folder / "suspect_labels.csv").open(newline="") as stream:
        written_ids = [row["id"] for row in csv.DictReader(stream)]
    assert written_ids == [row["id"] for row in record["suspects"]]
    shown = {row["looked for"]: row["found"] for row in report.lines()}
    assert shown["near-duplicate groups"] == "22"
    assert shown["- by embeddings only"] == "20"
    assert shown["shift to rows to predict"].startswith("AUC ")


@pytest.fixture(scope="module")
def sound(archive, draw, tmp_path_factory):
    """Audit data of archives without faults: ordinary, of three labels, tiny, never observed."""
    three = ("intact", "damaged", "destroyed")
    unseen = draw(60)
    for image in unseen:
        image.seen = {}
    archives = {
        "ordinary": (draw(120, apart=6.0), {}),
        "three labels": (draw(120, three), {"labels": three}),
        "tiny": (draw(6), {}),
        "never observed": (unseen, {}),
    }
    return {
        name: audit_data(load_dataset(archive(tmp_path_factory.mktemp("sound"), images, **words)))
        for name, (images, words) in archives.items()
    }


@pytest.mark.parametrize("key", AUDITS)
@pytest.mark.parametrize("name", ["ordinary", "three labels", "tiny", "never observed"])
def test_every_audit_of_the_table_returns_a_finding(key, name, sound):
    finding = AUDITS[key](sound[name])
    json.dumps([finding.value, finding.details], allow_nan=False)
    assert finding.lines
    for row in finding.lines:
        assert tuple(row) == ("looked for", "found", "about")
        assert all(isinstance(cell, str) for cell in row.values())
    assert all("\n" not in warning for warning in finding.warnings)
    assert all(isinstance(content, bytes) for content in finding.files.values())
    if name == "ordinary":
        assert not finding.warnings


def test_apply_keeps_copies_in_one_fold_and_puts_systems_out_of_date(faulty, fault_of):
    run_probes(faulty, Options(probes=("ridge", "lda"), workers=1))
    before = load_dataset(faulty)
    number = [int(id_[4:6]) for id_ in before.labelled.ids if id_.startswith("copy")]
    report = run_audit(faulty, apply=True)
    after = load_dataset(faulty)
    assert report.regrouped
    assert across_folds(before, after.groups) > 0
    assert across_folds(after, after.groups) == 0
    at = {id_: place for place, id_ in enumerate(after.labelled.ids)}
    for copy in number:
        assert (after.fold[:, at[f"p{copy:03}.jpg"]] == after.fold[:, at[f"copy{copy}.jpg"]]).all()
    assert not any("across folds" in warning for warning in report.warnings)
    stale = {row.system for row in overview(faulty) if row.state.startswith("out of date")}
    assert set(report.stale) == stale >= {"ridge-hog", "lda-hog"}
    assert any("out of date" in warning and "ridge-hog" in warning for warning in report.warnings)
    fault_of(
        lambda: run_ensemble(faulty, "mean", ("ridge-hog",)),
        "out of date (folds, groups changed since)",
    )
    # Applied twice, it moves nothing.
    content = folds_file(faulty).read_bytes()
    run_probes(faulty, Options(probes=("ridge", "lda"), workers=1))
    again = run_audit(faulty, apply=True)
    assert not again.regrouped
    assert again.stale == ()
    assert folds_file(faulty).read_bytes() == content


def test_rows_without_groups_are_not_regrouped(archive, draw, tmp_path, fault_of):
    task = archive(tmp_path, draw(60), folds='count = 3\nrepeats = 1\ngroup = "none"\n')
    fault_of(lambda: run_audit(task, apply=True), 'folds.group is "none"', "near-duplicates")
    assert not run_audit(task).regrouped


def test_a_label_too_rare_for_suspects_is_said(archive, draw, tmp_path):
    images = [*draw(60, ["intact"]), *draw(1, ["destroyed"], prefix="d", seed=4)]
    record = run_audit(archive(tmp_path, images)).record()
    assert record["judge"] is None
    assert any("suspect labels were not looked for" in warning for warning in record["warnings"])


def test_a_backbone_without_a_cache_is_left_out_aloud(archive, draw, tmp_path, fault_of):
    task = archive(tmp_path / "some", draw(60), backbones=("hog", "other"), cached=("hog",))
    messages: list[str] = []
    assert list(audit_data(load_dataset(task), notify=messages.append).sources) == ["hog"]
    assert messages == ["other: left out, it has no cache yet"]
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
