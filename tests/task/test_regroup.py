"""Folds assigned again along groups that were found later."""

import numpy as np
import pytest

from archiveprobe.task.decoding import Observation, digest
from archiveprobe.task.folds import ensure_folds, folds_file, regroup
from archiveprobe.task.manifest import Entry
from archiveprobe.task.rows import Row


@pytest.fixture
def task(make_task, tmp_path):
    return make_task(tmp_path, "[folds]\ncount = 3\nrepeats = 2\n")


def items(count, group=None):
    rows, entries = [], []
    for at in range(count):
        name = f"p{at:03}"
        value = int(np.random.default_rng(at).integers(2**63))
        label = None if at % 10 == 9 else "destroyed" if at % 3 == 0 else "intact"
        rows.append(Row(name, name, label, None, group(at) if group else None))
        seen = Observation("ok", phash=f"{value:016x}")
        entries.append(Entry(name, name, digest(name.encode()), seen))
    return rows, entries


def folds_of(table):
    return {id_: placed.folds for id_, placed in table.placed.items()}


def test_groups_come_together_and_folds_stay_balanced(task):
    rows, entries = items(40)
    before = ensure_folds(task, rows, entries)
    assert regroup(task, rows, entries, [at // 2 for at in range(40)])
    after = ensure_folds(task, rows, entries)
    now = folds_of(after)
    assert all(now[f"p{at:03}"] == now[f"p{at + 1:03}"] for at in range(0, 38, 2) if at % 10 != 8)
    assert folds_of(before) != now
    for repeat in range(2):
        counts = np.bincount([folds[repeat] for folds in now.values()], minlength=3)
        assert np.ptp(counts) <= 3


def test_a_row_to_predict_joins_the_labelled_ones_it_resembles(task):
    rows, entries = items(40)
    ensure_folds(task, rows, entries)
    numbers = [*range(40)]
    numbers[0] = numbers[20] = numbers[9]
    assert regroup(task, rows, entries, numbers)
    now = folds_of(ensure_folds(task, rows, entries))
    assert now["p000"] == now["p020"]
    assert "p009" not in now


def test_the_groups_of_the_file_are_left_alone(task):
    rows, entries = items(40)
    ensure_folds(task, rows, entries)
    content = folds_file(task).read_bytes()
    assert not regroup(task, rows, entries, [*range(100, 140)])
    assert folds_file(task).read_bytes() == content


def test_what_looks_alike_to_the_hash_stays_together(task):
    rows, entries = items(40)
    entries[5] = Entry("p005", "p005", entries[4].digest, entries[4].observed)
    assert regroup(task, rows, entries, [at if at > 1 else 0 for at in range(40)])
    now = folds_of(ensure_folds(task, rows, entries))
    assert now["p004"] == now["p005"]
    assert now["p000"] == now["p001"]


def test_groups_of_a_column_stay_together(make_task, tmp_path):
    task = make_task(tmp_path, '[folds]\ncount = 3\nrepeats = 2\ngroup = "place"\n')
    rows, entries = items(60, group=lambda at: f"place {at % 20}")
    ensure_folds(task, rows, entries)
    assert regroup(task, rows, entries, [at if at > 1 else 0 for at in range(60)])
    now = folds_of(ensure_folds(task, rows, entries))
    assert len({now[f"p{at:03}"] for at in (0, 20, 40, 1, 21, 41)}) == 1


def test_rows_that_left_move_with_their_group(task):
    rows, entries = items(40)
    entries[31] = Entry("p031", "p031", entries[30].digest, entries[30].observed)
    before = ensure_folds(task, rows, entries)
    kept = [at for at in range(40) if at not in (31, 7)]
    assert regroup(
        task,
        [rows[at] for at in kept],
        [entries[at] for at in kept],
        [at // 2 for at in kept],
    )
    after = ensure_folds(task, rows, entries)
    assert after.placed["p031"].folds == after.placed["p030"].folds
    assert after.placed["p007"] == before.placed["p007"]


def test_too_few_groups_are_refused_and_nothing_is_written(task, fault_of):
    rows, entries = items(40)
    ensure_folds(task, rows, entries)
    content = folds_file(task).read_bytes()
    fault_of(lambda: regroup(task, rows, entries, [at % 2 for at in range(40)]), "2 groups")
    assert folds_file(task).read_bytes() == content
