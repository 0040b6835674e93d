"""Whatever pandas writes in any form reads back to the same rows, and so do real spreadsheets."""

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from law import STEADY

from archiveprobe.task.tables.table import read_table

# What is left out no xlsx keeps: control characters, lone carriage returns.
PLAIN = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff\ufffe\uffff")
WESTERN = st.characters(codec="cp1252", exclude_categories=["Cc"])
ODD = ["007", "1e5", "NA", "null", "nan", "True", "2020-01-01", "=1+1", "#N/A", " x ", "a;b\tc,d"]
ODD += ['"q" ""', "1.0", "-5", "zwei\nZeilen", "بيت", "_x0041_", "{", "[", "\U0001f3da", "'a"]
EXACT = st.integers(-(2**53), 2**53)


def columns(count, texts):
    kinds = (EXACT, st.booleans(), texts, texts | st.just(""), texts | st.none(), EXACT | st.none())
    return st.one_of(*(st.lists(kind, min_size=count, max_size=count) for kind in kinds))


@st.composite
def frames(draw, letters=PLAIN):
    """A DataFrame whose first column has text in every row, as ids have."""
    odd = [text for text in ODD if letters is PLAIN or text.isascii()]
    texts = st.sampled_from(odd) | st.text(letters, min_size=1, max_size=8)
    names = st.text(letters, min_size=1, max_size=5).filter(lambda name: not name.isdecimal())
    count = draw(st.integers(1, 5))
    header = draw(st.lists(names.filter(str.strip), min_size=1, max_size=4, unique=True))
    first = draw(st.lists(texts, min_size=count, max_size=count))
    return pd.DataFrame(
        dict(zip(header, [first, *(draw(columns(count, texts)) for _ in header[1:])], strict=True))
    )


def as_written(frame):
    """The cells of a DataFrame as text: whole numbers without ".0", what is missing as ""."""

    def text(value):
        if pd.isna(value):
            return ""
        return str(int(value)) if isinstance(value, float) else str(value)

    return [tuple(map(text, row)) for row in frame.itertuples(index=False, name=None)]


def csv_by(**how):
    """A writer of CSV; pandas writes whole numbers beside missing ones as 3.0, unless told so."""
    return lambda frame, file: frame.convert_dtypes().to_csv(file, **how)


def json_by(**how):
    return lambda frame, file: frame.to_json(file, **how)


WRITERS = {
    "plain.csv": csv_by(index=False),
    "index.csv": csv_by(),
    "semicolon.csv": csv_by(index=False, sep=";"),
    "tab.tsv": csv_by(sep="\t"),
    "mark.csv": csv_by(index=False, encoding="utf-8-sig"),
    "wide.csv": csv_by(encoding="utf-16"),
    "windows.csv": csv_by(index=False, sep=";", encoding="cp1252"),
    "sheet.xlsx": lambda frame, file: frame.to_excel(file, index=False),
    "index.xlsx": lambda frame, file: frame.to_excel(file),
    "plain.parquet": lambda frame, file: frame.to_parquet(file, index=False),
    "index.parquet": lambda frame, file: frame.to_parquet(file, index=True),
    "named.parquet": lambda frame, file: frame.set_index(frame.columns[0]).to_parquet(file),
    **{
        f"{orient}.json": json_by(orient=orient)
        for orient in ("records", "columns", "split", "index", "table")
    },
    "lines.jsonl": json_by(orient="records", lines=True),
    "unescaped.jsonl": json_by(orient="records", lines=True, force_ascii=False),
}


@pytest.mark.proves("tables")
@pytest.mark.parametrize("name", WRITERS)
def test_what_pandas_writes_reads_back(tmp_path, name):
    file = tmp_path / name

    @settings(STEADY, max_examples=25)
    @given(frames(WESTERN if name == "windows.csv" else PLAIN))
    def check(frame):
        # openpyxl takes this out of every text that it reads.
        assume(name[-5:] != ".xlsx" or "x005F_" not in frame.to_csv())
        WRITERS[name](frame, file)
        table = read_table(file)
        assert list(table.columns) == list(frame.columns)
        assert [tuple(row.values()) for row in table.rows] == as_written(frame)

    check()
