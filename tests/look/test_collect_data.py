"""The data on the page, held to the audit; aims and differences, held to their own commands."""

import json
from dataclasses import replace

import numpy as np
import pytest

from archiveprobe.evaluate.choose_threshold import report_thresholds
from archiveprobe.evaluate.compare import paired_differences
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.look.collect import groups as collect_groups
from archiveprobe.look.collect.run import collect
from archiveprobe.probe.audit.run import run_audit


def ids_at(collection, places) -> list[str]:
    return [collection.rows[int(at)]["id"] for at in places]


def test_suspects_copies_shortcuts_and_shift_are_those_of_the_audit(copied) -> None:
    found = collect(copied())
    record = json.loads(json.dumps(run_audit(copied()).record()))
    columns, data = found.columns, found.meta["data"]
    suspect = np.flatnonzero(np.isfinite(columns["suspect"]))
    shown = {
        found.rows[int(at)]["id"]: (
            round(float(columns["suspect"][at]), 4),
            found.meta["labels"][columns["suggested"][at]],
        )
        for at in suspect
    }
    wanted = {
        each["id"]: (round(each["score"], 4), each["suggested"]) for each in record["suspects"]
    }
    assert shown == wanted
    assert data["suspects"] == {"judge": record["judge"], "count": record["suspect_labels"]}
    groups = {
        frozenset(ids_at(found, np.flatnonzero(columns["group"] == number)))
        for number in range(data["groups"]["count"])
    }
    assert groups == {frozenset(group["ids"]) for group in record["duplicate_groups"]}
    assert data["groups"]["rows"] == sum(map(len, groups)) == (columns["group"] >= 0).sum()
    assert data["shortcuts"] == record["shortcuts"]
    examples = data["shift"].pop("examples")
    assert data["shift"] == record["shift"]
    assert all(columns["label"][at] >= 0 for at in examples["labelled"])
    assert all(columns["label"][at] < 0 for at in examples["to_predict"])
    assert 0 < len(set(examples["to_predict"])) <= 12


def test_examples_of_a_shift_are_those_that_tell_the_sides_apart(copied) -> None:
    from archiveprobe.evaluate.dataset import load_dataset
    from archiveprobe.probe.audit.data import audit_data
    from archiveprobe.probe.audit.shift import shift_of, tell_apart

    data = audit_data(load_dataset(copied()))
    sides = tell_apart(data)
    assert sides is not None
    better = "images" if shift_of(sides).images >= (shift_of(sides).files or 0) else "files"
    score = dict(zip(sides.places.tolist(), sides.scores[better].tolist(), strict=True))
    labelled, to_predict = sides.examples(3)
    assert [score[at] for at in labelled] == sorted(score[at] for at in labelled)
    assert score[labelled[0]] == min(score[at] for at in score if data.labels[at] >= 0)
    assert score[to_predict[0]] == max(score[at] for at in score if data.labels[at] < 0)
    group = dict(zip(sides.places.tolist(), sides.groups.tolist(), strict=True))
    assert len({group[at] for at in to_predict}) == 3


def test_nothing_is_written(copied) -> None:
    (copied().work / "audit" / "shift.json").unlink()
    before = {file: file.stat().st_mtime_ns for file in copied().folder.rglob("*")}
    collect(copied())
    assert {file: file.stat().st_mtime_ns for file in copied().folder.rglob("*")} == before


def test_many_rows_are_not_compared_in_pairs(copied, monkeypatch) -> None:
    for module in ("groups", "data_report", "embedding_columns"):
        monkeypatch.setattr(f"archiveprobe.look.collect.{module}.MOST_PAIRED", 10)
    found = collect(copied())
    assert "near:0" not in found.columns
    assert any("equal files" in gap["what"] for gap in found.meta["missing"])
    group, digests = found.columns["group"], [row["digest"] for row in found.rows]
    for at, digest in enumerate(digests):
        same = [other for other, each in enumerate(digests) if each == digest and digest]
        assert all(group[other] == group[at] for other in same)
    # Near-duplicates that share a fold are known already.
    assert len(set(group[group >= 0])) > len({d for d in digests if digests.count(d) > 1 and d})


def test_groups_are_numbered_by_their_first_row() -> None:
    number = collect_groups.numbered_groups([[7, 2], [1, 5, 6]], 9)
    assert number.tolist() == [-1, 0, 1, -1, -1, 0, 0, 1, -1]
    assert collect_groups.numbered_groups([], 3).tolist() == [-1, -1, -1]


def test_aims_are_what_the_threshold_command_stores(copied) -> None:
    found = collect(copied())
    system = found.meta["systems"][0]
    for aim in system["aims"]:
        report = report_thresholds(copied(), system["name"], aim["rule"])
        assert aim["threshold"] == pytest.approx(report.threshold.value)
        assert aim["bound"] == pytest.approx(report.threshold.bound)
        assert aim["recall"] == pytest.approx(report.load.recall.estimate)
        assert aim["low"] == pytest.approx(report.load.recall.low)
        assert aim["precision"] == pytest.approx(report.load.precision.estimate)
        p = found.columns["p:0"].reshape(-1, 2)[found.columns["label"] < 0, 1]
        assert aim["review"] == report.load.review == (p > aim["threshold"]).sum()


def test_aims_out_of_reach_say_why(copied) -> None:
    from archiveprobe.look.collect.aims import aims_of

    run = load_run(copied(), "ridge-hog")
    stored = run.predictions()
    lost = np.flatnonzero(stored.labels == stored.positive)[:8]
    oof = stored.oof.copy()
    oof[:, lost] = np.nan
    aims = aims_of(run, replace(stored, oof=oof), unreadable=1 - stored.positive)
    assert aims is not None
    assert "cannot be reached" in aims[-1]["problem"] and aims[-1]["threshold"] is None


def test_differences_are_paired_with_the_first(task, demo_collection) -> None:
    systems = demo_collection.meta["systems"]
    stored = [load_run(task, one["name"]).predictions() for one in systems]
    assert systems[0]["difference"] is None
    for one, wanted in zip(systems[1:], paired_differences(stored, 0)[1:], strict=True):
        found = one["difference"]
        assert found["against"] == systems[0]["name"]
        gap = one["macro_f1"] - systems[0]["macro_f1"]
        assert found["macro_f1"] == pytest.approx(gap, abs=1e-6)
        assert (found["low"], found["high"]) == (wanted.macro_f1.low, wanted.macro_f1.high)


def test_neighbours_are_nearest_in_the_cache(task, demo_collection) -> None:
    from archiveprobe.api.task import Task as Notebook

    x = Notebook(task).embeddings("hog").astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    near = demo_collection.columns["near:0"].reshape(len(x), -1)
    cosine = demo_collection.columns["similarity:0"].reshape(len(x), -1)
    assert near.shape == (80, 24)
    for at in range(len(x)):
        if np.isnan(x[at]).any():
            assert (near[at] == -1).all()
            continue
        products = np.where(np.isnan(x).any(1), -2, np.nan_to_num(x) @ x[at])
        products[at] = -2
        np.testing.assert_allclose(cosine[at], np.sort(products)[::-1][:24], atol=1e-4)
        np.testing.assert_allclose(products[near[at]], cosine[at], atol=1e-4)
