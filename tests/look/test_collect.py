"""What a page shows of a task, column by column, held to what lies on disk."""

import csv
import json
from pathlib import Path

import numpy as np
from looked import MADE

from archiveprobe.demo.archive import write_demo
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.run import embed
from archiveprobe.evaluate.ensemble import stored_leaderboard
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.look.collect.collection import Collection
from archiveprobe.look.collect.run import collect
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.folds import folds_file
from archiveprobe.task.manifest import read_manifest


def table(task: Task) -> list[dict[str, str]]:
    assert task.table is not None
    with task.table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_rows_are_those_of_the_table_in_its_order(task: Task, demo_collection: Collection) -> None:
    entries = {entry.id: entry for entry in read_manifest(task)}
    lines = table(task)
    assert [row["id"] for row in demo_collection.rows] == [line["image"] for line in lines]
    assert [row["text"] for row in demo_collection.rows] == [line["caption"] for line in lines]
    for row in demo_collection.rows:
        entry = entries[row["id"]]
        assert row["observed"]["phash"] == entry.observed.phash
        assert row["digest"] == (entry.digest if entry.usable else "")


def test_labels_splits_and_statuses_are_those_of_the_table(
    task: Task, demo_collection: Collection
) -> None:
    meta, columns = demo_collection.meta, demo_collection.columns
    entries = {entry.id: entry for entry in read_manifest(task)}
    for at, line in enumerate(table(task)):
        label = columns["label"][at]
        assert (meta["labels"][label] if label >= 0 else "") == line["label"]
        assert meta["splits"][columns["split"][at]] == line["split"]
        entry = entries[line["image"]]
        assert meta["statuses"][columns["status"][at]] == entry.status
        assert columns["width"][at] == (entry.observed.width or -1)
        assert columns["bytes"][at] == entry.observed.bytes
    assert meta["labelled"] + meta["to_predict"] == meta["count"] == len(demo_collection.rows)
    assert np.array_equal(columns["label"], columns["table_label"])


def test_folds_are_those_of_the_first_repeat(task: Task, demo_collection: Collection) -> None:
    with folds_file(task).open(newline="", encoding="utf-8") as stream:
        header, *lines = list(csv.reader(stream))
    at = next(place for place, name in enumerate(header) if name.startswith(("fold", "repeat")))
    first = {line[header.index("id")]: int(line[at]) for line in lines}
    found = {
        row["id"]: int(fold)
        for row, fold in zip(demo_collection.rows, demo_collection.columns["fold"], strict=True)
    }
    assert {id_: fold for id_, fold in found.items() if fold >= 0} == first


def test_systems_are_sorted_as_on_the_leaderboard(task: Task, demo_collection: Collection) -> None:
    board = stored_leaderboard(task)
    assert [one["name"] for one in demo_collection.meta["systems"]] == [
        line.system for line in board.lines
    ]
    for one, line in zip(demo_collection.meta["systems"], board.lines, strict=True):
        assert one["macro_f1"] == line.macro_f1 and one["threshold"] == line.threshold
    assert demo_collection.meta["board"]["majority"]["label"] == "not_destruction"


def test_probabilities_and_answers_are_those_on_disk(
    task: Task, demo_collection: Collection
) -> None:
    columns, k = demo_collection.columns, 2
    ids = [row["id"] for row in demo_collection.rows]
    for number, one in enumerate(demo_collection.meta["systems"]):
        stored = load_run(task, one["name"]).predictions()
        p = columns[f"p:{number}"].reshape(-1, k)
        known = [ids.index(id_) for id_ in stored.ids]
        new = [ids.index(id_) for id_ in stored.test_ids]
        np.testing.assert_array_equal(p[known], stored.oof.mean(0))
        np.testing.assert_array_equal(p[new], stored.test)
        above = stored.test[:, stored.positive] > stored.threshold
        np.testing.assert_array_equal(columns[f"answer:{number}"][new], above.astype(int))
        share = (stored.decision == 1).mean(0)
        clear = np.abs(share - 0.5) > 0.01
        answer = columns[f"answer:{number}"][known]
        np.testing.assert_array_equal(answer[clear], (share > 0.5)[clear].astype(int))


def test_all_of_it_can_be_written_and_is_the_same_twice(
    task: Task, demo_collection: Collection
) -> None:
    again = collect(task, made=MADE)
    assert json.dumps(again.meta, allow_nan=False) == json.dumps(
        demo_collection.meta, allow_nan=False
    )
    assert (
        list(again.columns)
        == list(demo_collection.columns)
        == list(demo_collection.meta["columns"])
    )
    for name, column in demo_collection.columns.items():
        assert column.tobytes() == again.columns[name].tobytes()
        assert (
            f"{column.dtype.kind}{column.dtype.itemsize}" == demo_collection.meta["columns"][name]
        )
        assert column.dtype.byteorder in "=|<"
    json.dumps(list(demo_collection.rows), allow_nan=False)


def test_a_task_without_systems_says_what_to_run(tmp_path: Path) -> None:
    write_demo(tmp_path / "archive", count=60)
    task = load_task(tmp_path / "archive")
    embed(task, EmbedOptions(workers=0))
    found = collect(task)
    assert found.meta["systems"] == [] and found.meta["board"] is None
    assert {"what": "no systems yet", "command": f"archiveprobe probe {task.file}"} in found.meta[
        "missing"
    ]
    assert found.meta["embeddings"] == ["hog"] and np.isfinite(found.columns["x:0"]).any()
