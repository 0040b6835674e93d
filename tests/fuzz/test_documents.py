"""Documents drawn from the schema: good ones are read cell by cell, one fault is named."""

import csv
import io
from dataclasses import replace

import documents
import pytest
import task_targets
from documents import NEEDED, ODD, VALID, WRONG, toml
from hypothesis import given, settings
from hypothesis import strategies as st
from law import STEADY, one_line

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import load_task
from archiveprobe.task.manifest import read_manifest, write_manifest
from archiveprobe.task.rows import read_rows
from archiveprobe.task.scan import scan
from archiveprobe.task.tables.table import read_table


def fault_of(action, *arguments):
    with pytest.raises(InputError) as caught:
        action(*arguments)
    one_line(str(caught.value))
    return str(caught.value)


def load(content, folder):
    (folder / "task.toml").write_bytes(content)
    return load_task(folder)


def test_every_key_of_the_schema_is_drawn():
    """A new key needs a valid value in documents.VALID."""
    own = {".own.": ".*.", "s.rate": "s.*", "s.destroyed": "s.*"}
    own["submission.labels"] = "submission.labels.*"
    drawn = set()
    for key in VALID:
        for name, star in own.items():
            key = key.replace(name, star)
        drawn.add(key)
    assert drawn == documents.task_keys()


@STEADY
@given(documents.task_values(), st.sampled_from(sorted(VALID)), st.sampled_from(WRONG))
def test_a_value_of_the_wrong_type_names_its_key(tmp_path, values, key, wrong):
    message = fault_of(load, toml(values | {key: wrong}), tmp_path)
    assert f"'{key}" in message or message.startswith(f"{key}: ")


@pytest.mark.parametrize("key", VALID)
def test_odd_values_are_read_or_told(tmp_path, key):
    least = {name: VALID[name] for name in NEEDED}
    # Another third of them for every key.
    for odd in ODD[sorted(VALID).index(key) % 3 :: 3]:
        task_targets.task_file(toml(VALID | {key: odd}), tmp_path)
        task_targets.task_file(toml(least | {key: odd}), tmp_path)


@pytest.mark.proves("tables")
@STEADY
@given(
    documents.task_values(),
    st.dictionaries(st.sampled_from(sorted(VALID)), st.sampled_from(ODD), min_size=2, max_size=4),
)
def test_many_odd_values_are_read_or_told(tmp_path, values, odd):
    task_targets.task_file(toml(values | odd), tmp_path)


@settings(STEADY, max_examples=60)
@given(documents.tables())
def test_a_good_table_is_read_cell_by_cell(tmp_path, drawn):
    task = task_targets.house(tmp_path)
    content = drawn.bytes()
    (tmp_path / "labels.csv").write_bytes(content)
    table = read_table(tmp_path / "labels.csv")
    text = io.StringIO(task_targets.decoded(content), newline="")
    lines = list(csv.reader(text, delimiter=drawn.separator, strict=True))
    assert [list(table.columns), *(list(row.values()) for row in table.rows)] == lines
    assert lines == drawn.lines
    rows = read_rows(task, test_labels=True)
    for field, column in (("id", "image"), ("path", "image"), ("text", "caption")):
        assert [getattr(row, field) for row in rows] == drawn.cells(column)
    for field in ("label", "split"):
        given_ = [cell if cell.strip() else None for cell in drawn.cells(field)]
        assert [getattr(row, field) for row in rows] == given_
    entries = scan(task, rows)
    write_manifest(task, entries)
    assert [entry.id for entry in read_manifest(task)] == drawn.cells("image")


FAULTS = {
    "repeated id": ("image", None, "repeated id"),
    "empty id": ("image", " ", "1 row without an id"),
    "unknown label": ("label", "distroyed", "did you mean 'destroyed'?"),
    "label NaN": ("label", "NaN", "unknown labels in 1 row: 'NaN'"),
    "unknown split": ("split", "tset", "did you mean 'test'?"),
}


@pytest.mark.proves("tables")
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_in_a_table_is_told(tmp_path, fault):
    column, value, words = FAULTS[fault]

    @settings(STEADY, max_examples=10)
    @given(documents.tables())
    def check(drawn):
        at = drawn.lines[0].index(column)
        bad = list(drawn.lines[-1])
        bad[at] = drawn.lines[1][at] if value is None else value
        bad[drawn.lines[0].index("split")] = bad[drawn.lines[0].index("split")].strip() and "train"
        if column != "image":
            bad[drawn.lines[0].index("image")] = "the last one"
        if fault == "unknown split":
            bad[at] = value
        task = task_targets.house(tmp_path)
        (tmp_path / "labels.csv").write_bytes(replace(drawn, lines=[*drawn.lines, bad]).bytes())
        message = fault_of(read_rows, task)
        assert words in message
        assert "labels.csv: " in message
        assert "line " in message

    check()
