"""Parquet: values as pandas would write them in a CSV, its index, and columns that are no text."""

import datetime
import decimal
import io
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from archiveprobe.task.tables import cells
from archiveprobe.task.tables.table import read_table


@pytest.fixture
def read(tmp_path):
    def read(content, name="labels.parquet"):
        if not isinstance(content, bytes):
            out = io.BytesIO()
            parquet.write_table(pa.table(content), out)
            content = out.getvalue()
        (tmp_path / name).write_bytes(content)
        return read_table(tmp_path / name)

    return read


def column(table, name):
    return [row[name] for row in table.rows]


DAY = datetime.datetime(2020, 1, 1)
NOON = datetime.datetime(2020, 1, 1, 12)
COLUMNS = {
    "whole": ([1.0, None, 3.0], ["1", "", "3"]),
    "nan": ([1.0, float("nan"), 3.0], ["1", "", "3"]),
    "float": ([1.0, 2.0, 3.0], ["1.0", "2.0", "3.0"]),
    "mixed": ([0.1, None, 3.0], ["0.1", "", "3.0"]),
    "huge": ([1e300, None, float("inf")], ["1e+300", "", "inf"]),
    "single": (pa.array([0.1, None, 1e10], pa.float32()), ["0.1", "", "10000000000.0"]),
    "half": (pa.array(np.array([0.5, 1.5, 2.5], np.float16)), ["0.5", "1.5", "2.5"]),
    "long": (pa.array([2**64 - 1, None, 0], pa.uint64()), [str(2**64 - 1), "", "0"]),
    "truth": ([True, None, False], ["True", "", "False"]),
    "words": (pa.array(["NA", None, "NA"]).dictionary_encode(), ["NA", "", "NA"]),
    "classes": (pa.array([7, None, 7]).dictionary_encode(), ["7", "", "7"]),
    "dates": ([DAY.date(), None, DAY.date()], ["2020-01-01", "", "2020-01-01"]),
    "days": ([DAY, None, DAY], ["2020-01-01", "", "2020-01-01"]),
    "times": ([DAY, None, NOON], ["2020-01-01 00:00:00", "", "2020-01-01 12:00:00"]),
    "price": ([decimal.Decimal("1.50"), None, decimal.Decimal(2)], ["1.50", "", "2.00"]),
    "nothing": ([None] * 3, [""] * 3),
}


@pytest.mark.proves("tables")
@pytest.mark.parametrize("kind", COLUMNS)
def test_values_as_text(read, kind):
    values, texts = COLUMNS[kind]
    table = read({"id": ["a", "b", "c"], kind: values})
    assert column(table, kind) == texts
    assert (table.form, table.remarks, table.place(2)) == ("Parquet", (), "row 3")


def frame_bytes(frame, **how):
    out = io.BytesIO()
    frame.to_parquet(out, **how)
    return out.getvalue()


FRAME = pd.DataFrame({"id": ["a", "b", "c"], "label": ["x", "y", "x"]})


def test_the_index_of_a_dataframe(read, fault_of):
    assert read(frame_bytes(FRAME.set_index("id"))).columns == ("id", "label")
    assert read(frame_bytes(FRAME)).columns == ("id", "label")
    table = read(frame_bytes(FRAME, index=True))
    assert table.columns == ("id", "label")
    assert "counts from 0: taken for pandas' index and left out" in table.remarks[0]
    mixed = frame_bytes(FRAME.sample(frac=1, random_state=1))
    fault_of(lambda: read(mixed), "has no name in the header, but holds", "index=False")


def test_row_groups_and_repeated_words(read):
    out = io.BytesIO()
    table = pa.table({"id": [str(at) for at in range(1000)], "label": ["x", "y"] * 500})
    parquet.write_table(table, out, row_group_size=64)
    got = read(out.getvalue())
    assert column(got, "id") == [str(at) for at in range(1000)]
    assert column(got, "label") == ["x", "y"] * 500
    assert read({"id": pa.array([], pa.string())}).rows == ()


NO_TEXT = {
    "list": [["x"], ["y"]],
    "struct": [{"bytes": b"x", "path": "a"}, None],
    "binary": [b"x", b"y"],
    "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
}


@pytest.mark.proves("hostile")
@pytest.mark.parametrize("kind", NO_TEXT)
def test_nested_and_binary_columns_are_refused_by_name(read, fault_of, kind):
    values = {"id": ["a", "b"], kind: NO_TEXT[kind]}
    fault_of(lambda: read(values), f"the column {kind!r} holds ", "keep only text and numbers")


@pytest.mark.proves("hostile")
def test_damaged_and_large(read, fault_of, monkeypatch):
    content = frame_bytes(FRAME)
    for cut in (len(content) - 20, len(content) // 2, 6):
        fault_of(lambda cut=cut: read(content[:cut]), "labels.parquet cannot be read as Parquet")
    for at in range(8, len(content), 37):
        flipped = bytearray(content)
        flipped[at] ^= 0x55
        try:
            read(bytes(flipped))
        except Exception as error:
            assert type(error).__name__ == "InputError"
    monkeypatch.setattr(cells, "CELL_LIMIT", 5)
    fault_of(lambda: read(content), "3 rows and 2 columns, limit 5 cells")


def test_parquet_under_another_ending_is_read_aloud(read):
    table = read(frame_bytes(FRAME), "labels.csv")
    assert len(table.rows) == 3
    said = "labels.csv: read as Parquet, which it is, though its name ends in .csv"
    assert table.remarks == (said,)


def test_without_pyarrow(read, fault_of, monkeypatch):
    content = frame_bytes(FRAME)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    fault_of(lambda: read(content), "needs pyarrow", "pip install 'archiveprobe[tables]'")
