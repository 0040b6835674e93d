import csv
import io

import pytest

from archiveprobe.task.tables.table import read_table


@pytest.fixture
def read(tmp_path):
    def read(content):
        file = tmp_path / "labels.csv"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_table(file)

    return read


ODD = [
    "001",
    "1",
    "1234567890123456789",
    "1e5",
    "NA",
    "null",
    " spaced  ",
    "بيت مهدّم.jpg",
    'say "hi", twice',
    "two\nlines",
    "two\r\nlines",
    "a;b\tc",
    "=cmd|calc",
    "\U0001f3da\u202e.png",
    "-5",
]


@pytest.mark.proves("tables")
def test_cells_stay_as_written(read):
    out = io.StringIO()
    csv.writer(out).writerows([["id", "label"], *([odd, ""] for odd in ODD)])
    table = read(out.getvalue())
    assert [row["id"] for row in table.rows] == ODD
    assert {row["label"] for row in table.rows} == {""}
    assert table.columns == ("id", "label")


PLAIN = "id,label\nبيت,yes\n"


@pytest.mark.proves("tables")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(read, encoding):
    table = read(PLAIN.encode(encoding))
    assert table.columns == ("id", "label")
    assert table.rows == ({"id": "بيت", "label": "yes"},)


def test_big_endian_utf16(read):
    assert read(b"\xfe\xff" + PLAIN.encode("utf-16-be")).rows[0]["id"] == "بيت"


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends(read, ends):
    table = read(ends.join(["id,label", "a,yes", "b,no", ""]))
    assert [row["id"] for row in table.rows] == ["a", "b"]
    assert table.lines == (2, 3)


@pytest.mark.parametrize(("mark", "word"), [(",", "comma"), (";", "semicolon"), ("\t", "tab")])
def test_separators(read, fault_of, mark, word):
    others = "".join({",", ";", "\t"} - {mark})
    content = mark.join(["id", "note"]) + "\n" + mark.join(["a", f"x{others}y"]) + "\n"
    table = read(content)
    assert (table.columns, table.separator) == (("id", "note"), word)
    assert table.rows == ({"id": "a", "note": f"x{others}y"},)
    quoted = mark.join(["id", f'"no{mark}te"']) + "\n" + mark.join(["a", "b"])
    assert read(quoted).columns == ("id", f"no{mark}te")
    fault_of(lambda: read(content + mark.join("abc")), "line 3", "3 cells under 2", f"a {word}")


def test_a_header_of_one_name_is_cut_by_commas(read):
    assert read("id\na;b\n").rows == ({"id": "a;b"},)
    assert read('"id;x"\na\n').columns == ("id;x",)


def test_the_separator_of_most_columns_wins(read):
    assert read("id;size;text, note\na;1,5;b\n").columns == ("id", "size", "text, note")
    assert read("id;x,y\na;b,c\n").columns == ("id;x", "y")


def test_european_spreadsheet(read):
    table = read("image;Schaden;Größe\r\na.jpg;ja;1,5\r\n".encode("utf-8-sig"))
    assert table.rows == ({"image": "a.jpg", "Schaden": "ja", "Größe": "1,5"},)


def test_not_utf8_names_the_byte(read, fault_of):
    undefined = b"id,label\n\x81,x"
    fault_of(lambda: read(undefined), "labels.csv is not UTF-8 nor cp1252 text", "byte 9")
    fault_of(lambda: read(b"id,label\n\xe9\0,x"), "labels.csv is not UTF-8 text", "byte 9")
    fault_of(lambda: read(b"\xff\xfea"), "labels.csv is not UTF-16 text")


@pytest.mark.parametrize("content", ["", "\n\n", "﻿"])
def test_empty_file(read, fault_of, content):
    fault_of(lambda: read(content), "labels.csv", "empty")


def test_header_only(read):
    assert read("id,label\n").rows == ()


@pytest.mark.parametrize("header", ["id,,x", "id, ", ",id"])
def test_column_without_name(read, fault_of, header):
    fault_of(lambda: read(header + "\n"), "labels.csv", "no name")


def test_repeated_column(read, fault_of):
    fault_of(lambda: read("id,label,id\n"), "labels.csv", "twice")


def test_ragged_row_names_its_line(read, fault_of):
    fault_of(lambda: read('id,label\n"a\nb",yes\n\nc,no,maybe\n'), "line 5", "3 cells under 2")
    fault_of(lambda: read("id,label\na\n"), "line 2", "1 cells under 2")


@pytest.mark.parametrize("content", ['id,label\na,"x"y\n', 'id,label\na,"x\n', 'id\n"a'])
def test_broken_quotes_name_the_line(read, fault_of, content):
    fault_of(lambda: read(content), "labels.csv line ")


def test_blank_lines_are_ignored_and_counted(read):
    table = read('\nid,label\n\n"a\nb",yes\n\n\nc,no\n\n')
    assert [row["id"] for row in table.rows] == ["a\nb", "c"]
    assert table.lines == (4, 8)


def test_require(read, fault_of):
    table = read("image,label\na,yes\n")
    table.require("image", "label")
    fault_of(lambda: table.require("image", "lable"), "'lable'", "did you mean 'label'?", "image")
    table = read('"im\nage",label\n')
    fault_of(lambda: table.require("image"), "'image'", "labels.csv")


def test_missing_table(tmp_path, fault_of):
    fault_of(lambda: read_table(tmp_path / "no.csv"), "no.csv", "correct its path")
    fault_of(lambda: read_table(tmp_path), "cannot read")


def test_long_cells_and_the_limit_for_others(read):
    before = csv.field_size_limit()
    caption = "x" * 300_000
    assert read(f"id,caption\na,{caption}\n").rows[0]["caption"] == caption
    assert csv.field_size_limit() == before


@pytest.mark.proves("tables")
def test_cp1252_is_said_with_an_example(read):
    table = read("id;label\r\na;Größe\r\nb;“x”\r\nc;y\r\n".encode("cp1252"))
    assert [row["label"] for row in table.rows] == ["Größe", "“x”", "y"]
    assert table.form == "CSV, cp1252, semicolon-separated"
    (remark,) = table.remarks
    assert "labels.csv: not UTF-8, so read as cp1252" in remark
    assert "2 cells are not ASCII, for example 'Größe'" in remark


def test_form(read):
    assert read(PLAIN).form == "CSV, UTF-8, comma-separated"
    assert read(PLAIN.encode("utf-16")).form == "CSV, UTF-16, comma-separated"
    assert read(PLAIN).remarks == ()


@pytest.mark.proves("tables")
@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_the_index_of_pandas_is_left_out_aloud(read, name):
    table = read(f"{name},id,label\n0,a,x\n1,b,y\n")
    assert [tuple(row.values()) for row in table.rows] == [("a", "x"), ("b", "y")]
    shown = repr(name) if name else "which has no name"
    assert table.remarks == (
        f"labels.csv: the first column, {shown}, counts from 0: taken for pandas' index and left "
        "out",
    )


def test_an_index_that_was_written_twice(read):
    table = read(",Unnamed: 0,id\n0,0,a\n1,1,b\n")
    assert (table.columns, len(table.remarks)) == (("id",), 2)


def test_what_does_not_count_is_no_index(read, fault_of):
    fault_of(lambda: read(",id\n5,a\n7,b\n"), "has no name in the header, but holds '5'")
    assert read("Unnamed: 0,id\n5,a\n7,b\n").columns == ("Unnamed: 0", "id")
    assert read("Unnamed: 0\n0\n1\n").columns == ("Unnamed: 0",)


def test_empty_rows_and_columns_of_a_spreadsheet(read):
    table = read("id;label;;\na;x;;\n;;;\nb;y;;\n;;;\n")
    assert [tuple(row.values()) for row in table.rows] == [("a", "x"), ("b", "y")]
    assert table.lines == (2, 4)
    assert table.remarks == (
        "labels.csv: left out 2 rows without any cell",
        "labels.csv: 2 columns without a name and without any cell are left out",
    )


def test_a_title_above_the_header(read, fault_of):
    content = "Liste der Bilder;;\nid;label;x\na;b;c\n"
    fault_of(lambda: read(content), "but holds 'label'", "remove what stands above the header")


def test_a_missing_column_among_very_many(read, fault_of):
    table = read(",".join(f"c{at}" for at in range(5000)) + "\n")
    assert len(fault_of(lambda: table.require("id"), "and 4980 more")) < 500


def test_wide_text_without_a_mark(read, fault_of):
    fault_of(lambda: read("id,label\na,x\n".encode("utf-16-le")), "NUL", "save it as CSV in UTF-8")
    fault_of(lambda: read("id,label\na,x\n".encode("utf-32")), "NUL", "save it as CSV in UTF-8")


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"'])
def test_the_separator_that_excel_names(read, line):
    """Also where another one would split the header into more names."""
    table = read(f"{line}\r\nid;a,b,c\r\n7;x\r\n")
    assert (table.columns, table.rows) == (("id", "a,b,c"), ({"id": "7", "a,b,c": "x"},))
    assert table.lines == (3,)
