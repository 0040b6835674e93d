"""JSON and JSON lines: which rows they hold, and what no table is."""

import json

import pytest

from archiveprobe.task.tables import cells
from archiveprobe.task.tables.table import read_table


@pytest.fixture
def read(tmp_path):
    def read(content, name="labels.json"):
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return read_table(tmp_path / name)

    return read


def rows(table):
    return [tuple(row.values()) for row in table.rows]


FORMS = {
    "a list of objects": [{"id": "a", "n": 1}, {"id": "b", "n": None}],
    "pandas' orient 'columns'": {"id": {"0": "a", "1": "b"}, "n": {"0": 1, "1": None}},
    "pandas' orient 'index'": {"0": {"id": "a", "n": 1}, "1": {"id": "b", "n": None}},
    "pandas' orient 'split'": {
        "columns": ["id", "n"],
        "index": [0, 1],
        "data": [["a", 1], ["b", None]],
    },
    "pandas' orient 'table'": {
        "schema": {"fields": [], "primaryKey": ["index"]},
        "data": [{"index": 0, "id": "a", "n": 1}, {"index": 1, "id": "b", "n": None}],
    },
    "a list for each column": {"id": ["a", "b"], "n": [1, None]},
}


@pytest.mark.proves("tables")
@pytest.mark.parametrize("form", FORMS)
def test_forms(read, form):
    table = read(FORMS[form])
    assert (table.columns, rows(table)) == (("id", "n"), [("a", "1"), ("b", "")])
    assert (table.form, table.remarks, table.place(1)) == (f"JSON, {form}", (), "row 2")


@pytest.mark.proves("tables")
def test_metadata_of_hugging_face(read):
    lines = ['{"file_name": "a.png", "label": 0}', "", '{"file_name": "b.png", "text": "x\u2028y"}']
    table = read("\r\n".join(lines) + "\r\n", "metadata.jsonl")
    assert table.columns == ("file_name", "label", "text")
    assert rows(table) == [("a.png", "0", ""), ("b.png", "", "x\u2028y")]
    assert (table.form, table.lines, table.place(1)) == ("JSON lines", (1, 3), "line 3")
    assert rows(read('{"file_name": "a.png", "label": 0}\n', "metadata.jsonl")) == [("a.png", "0")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings(read, encoding):
    assert rows(read('[{"id": "بيت"}]'.encode(encoding))) == [("بيت",)]


def test_values(read):
    text = '[{"a": NaN, "b": -Infinity, "c": 12345678901234567890, "d": 1e5, "e": "1e5"}, {}]'
    assert rows(read(text))[0] == ("", "-inf", "12345678901234567890", "100000", "1e5")
    assert rows(read([{"a": 1.0}, {"a": 2.5}, {"a": True}])) == [("1.0",), ("2.5",), ("True",)]


REFUSED = {
    "nested list": ([{"id": "a", "boxes": [1, 2]}], "the column 'boxes' holds lists"),
    "nested object": ([{"id": "a", "size": {"w": 1}}, {}], "the column 'size' holds objects"),
    "list of lists": ([["id"], ["a"]], "row 1 is no object"),
    "numbers": ([1, 2], "row 1 is no object"),
    "empty": ([], "is empty"),
    "empty object": ({}, "is empty"),
    "twice": ('[{"id": "a", "id": "b"}]', "the key 'id' stands twice"),
    "twice in lines": ('{"id": 1}\n{"id": "a", "id": "b"}\n', "line 2 is not valid JSON"),
    "damaged": ('[{"id": "a"}', "not valid JSON"),
    "damaged line": ('{"id": "a"}\n{"id": \n', "line 2 is not valid JSON"),
    "line of numbers": ('{"id": "a"}\n[1]\n', "line 2 is no object"),
    "rows or columns": ({"a.jpg": {"label": "x"}}, "do not tell rows from columns"),
    "rows and columns": ({"0": {"0": 1, "1": 2}, "1": {"0": 3, "1": 4}}, "do not tell rows from"),
    "ragged": ({"id": ["a"], "label": []}, "columns of different lengths"),
    "ragged split": ({"columns": ["id"], "data": [["a", 1]]}, "row 1: 2 cells under 1"),
    "odd split": ({"columns": "id", "data": []}, "where a list belongs"),
    "index": ({"columns": ["n"], "index": ["a"], "data": [[1]]}, "index without a name"),
    "odd table": ({"schema": 5, "data": 6}, "where a list belongs"),
    "no name": ([{"": "a", "label": "x"}], "has no name in the header, but holds 'a'"),
    "surrogate": ('[{"id": "\\ud800"}]', "surrogate pair"),
    "surrogate name": ('[{"\\ud800": "a"}]', "surrogate pair"),
    "digits": ('[{"id": ' + "9" * 5000 + "}]", "not valid JSON"),
}


@pytest.mark.proves("tables")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_told(read, fault_of, name):
    content, words = REFUSED[name]
    message = fault_of(lambda: read(content), "labels.json", words)
    assert len(message) < 500


@pytest.mark.proves("hostile")
@pytest.mark.parametrize("text", ["[" * 10_000, '{"a":' * 10_000, "[" * 10_000 + "]" * 10_000])
def test_deep_nesting(read, fault_of, text):
    fault_of(lambda: read(text), "nested too deeply")


@pytest.mark.proves("hostile")
def test_many_keys(read, fault_of, monkeypatch):
    monkeypatch.setattr(cells, "CELL_LIMIT", 1000)
    fault_of(lambda: read([{f"k{at}": at} for at in range(100)]), "100 rows and 100 columns")


def test_a_csv_whose_first_column_begins_like_json(read):
    table = read("{id},[label]\na,x\n", "labels.csv")
    assert (table.columns, table.remarks) == (("{id}", "[label]"), ())


def test_json_under_another_ending_is_read_aloud(read):
    table = read([{"id": "a"}], "labels.csv")
    assert table.remarks == (
        "labels.csv: read as JSON, a list of objects, which it is, though its name ends in .csv",
    )
    assert read("id\na\n", "labels.json").remarks[0].startswith("labels.json: read as CSV, UTF-8")
