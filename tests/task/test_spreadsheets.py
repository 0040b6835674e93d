"""Sheets as spreadsheet programs save them: values, dates, formulas, sheets; and hostile files."""

import io
import zipfile

import openpyxl
import pytest

from archiveprobe.task.tables import table_forms
from archiveprobe.task.tables.table import read_table

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml"
PARTS = {
    "[Content_Types].xml": f"""<Types xmlns="{PACKAGE}/content-types">
<Default Extension="xml" ContentType="application/xml"/>
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Override PartName="/xl/workbook.xml" ContentType="{KIND}.sheet.main+xml"/>
<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{KIND}.worksheet+xml"/>
<Override PartName="/xl/styles.xml" ContentType="{KIND}.styles+xml"/>
<Override PartName="/xl/sharedStrings.xml" ContentType="{KIND}.sharedStrings+xml"/></Types>""",
    "_rels/.rels": f"""<Relationships xmlns="{PACKAGE}/relationships">
<Relationship Id="rId1" Type="{RELATIONS}/officeDocument" Target="xl/workbook.xml"/>
</Relationships>""",
    "xl/_rels/workbook.xml.rels": f"""<Relationships xmlns="{PACKAGE}/relationships">
<Relationship Id="rId1" Type="{RELATIONS}/styles" Target="styles.xml"/>
<Relationship Id="rId2" Type="{RELATIONS}/worksheet" Target="worksheets/sheet1.xml"/>
<Relationship Id="rId3" Type="{RELATIONS}/sharedStrings" Target="sharedStrings.xml"/>
</Relationships>""",
    "xl/workbook.xml": f"""<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}">
<sheets><sheet name="Tabelle1" sheetId="1" state="visible" r:id="rId2"/></sheets></workbook>""",
    "xl/styles.xml": f"""<styleSheet xmlns="{MAIN}"><numFmts count="2">
<numFmt numFmtId="164" formatCode="General"/><numFmt numFmtId="165" formatCode="yyyy\\-mm\\-dd"/>
<numFmt numFmtId="166" formatCode="0000"/></numFmts>
<fonts count="1"><font><sz val="10"/><name val="Arial"/></font></fonts>
<fills count="1"><fill><patternFill patternType="none"/></fill></fills>
<borders count="1"><border><left/><right/><top/><bottom/></border></borders>
<cellStyleXfs count="1"><xf numFmtId="164"/></cellStyleXfs>
<cellXfs count="3"><xf numFmtId="164" xfId="0"/><xf numFmtId="165" xfId="0"/>
<xf numFmtId="166" xfId="0"/></cellXfs></styleSheet>""",
    "xl/sharedStrings.xml": f"""<sst xmlns="{MAIN}" count="5" uniqueCount="5">
<si><t xml:space="preserve">Bild</t></si><si><t xml:space="preserve">Schaden</t></si>
<si><t xml:space="preserve">Zerstörung</t></si><si><r><t>kein </t></r><r><t>Schaden</t></r></si>
<si><t xml:space="preserve"> a.jpg</t></si></sst>""",
}
ROWS = """<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c>
<c r="C1" t="inlineStr"><is><t>Datum</t></is></c><c r="D1" t="str"><v>Nummer</v></c>
<c r="E1" t="str"><v>geprüft</v></c><c r="F1" t="str"><v>Größe</v></c></row>
<row r="2"><c r="A2" t="s"><v>4</v></c><c r="B2" t="s"><v>2</v></c><c r="C2" s="1" t="n">
<v>43831</v></c><c r="D2" s="2"><v>7</v></c><c r="E2" t="b"><v>1</v></c>
<c r="F2"><v>1.5</v></c></row>
<row r="4"><c r="A4" t="inlineStr"><is><t>b.jpg</t></is></c><c r="B4" t="s"><v>3</v></c>
<c r="D4" s="2"><v>12345</v></c><c r="E4" t="b"><f>NOT(E2)</f><v>0</v></c>
<c r="F4"><f aca="false">F2*2</f><v>3</v></c></row><row r="5"><c r="A5" s="1"/></row>"""


def sheet(rows, dimension="A1:F5"):
    return f"""<worksheet xmlns="{MAIN}"><dimension ref="{dimension}"/><sheetData>{rows}</sheetData>
</worksheet>"""


def xlsx(rows=ROWS, **parts):
    """The bytes of an xlsx file as LibreOffice saves it, with these rows."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (PARTS | {"xl/worksheets/sheet1.xml": sheet(rows)} | parts).items():
            archive.writestr(name, text if isinstance(text, bytes) else HEAD + text)
    return out.getvalue()


@pytest.fixture
def read(tmp_path):
    def read(content, name="labels.xlsx"):
        (tmp_path / name).write_bytes(content)
        return read_table(tmp_path / name)

    return read


def saved(**sheets):
    """The bytes of an xlsx file by openpyxl, rows by the name of the sheet."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        made = book.create_sheet(name)
        for row in rows:
            made.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


LABELS = [["id", "label"], ["a", "x"]]


@pytest.mark.proves("tables")
def test_a_sheet_saved_by_libreoffice(read):
    table = read(xlsx())
    assert table.columns == ("Bild", "Schaden", "Datum", "Nummer", "geprüft", "Größe")
    assert [tuple(row.values()) for row in table.rows] == [
        (" a.jpg", "Zerstörung", "2020-01-01", "0007", "True", "1.5"),
        ("b.jpg", "kein Schaden", "", "12345", "False", "3"),
    ]
    assert table.form == "xlsx, sheet 'Tabelle1'"
    assert table.remarks == ()
    assert [table.place(at) for at in (0, 1)] == ["line 2", "line 4"]


@pytest.mark.proves("tables")
def test_csv_saved_by_a_western_spreadsheet(read):
    text = "Bild;Schaden;Größe\r\na.jpg;Zerstörung;1,5\r\nb.jpg;kein Schaden;–\r\n;;\r\n"
    table = read(text.encode("cp1252"), "labels.csv")
    assert table.columns == ("Bild", "Schaden", "Größe")
    assert [tuple(row.values()) for row in table.rows] == [
        ("a.jpg", "Zerstörung", "1,5"),
        ("b.jpg", "kein Schaden", "–"),
    ]
    assert table.form == "CSV, cp1252, semicolon-separated"
    assert table.remarks == (
        "labels.csv: not UTF-8, so read as cp1252, which Excel writes: 3 cells are not ASCII, for "
        "example 'Größe'",
        "labels.csv: left out 1 row without any cell",
    )


def test_which_sheet_is_said(read):
    assert read(saved(one=LABELS)).remarks == ()
    table = read(saved(notes=[], data=LABELS))
    assert table.rows == ({"id": "a", "label": "x"},)
    assert table.remarks == (
        "labels.xlsx: read from the sheet 'data', the only one with cells; not read: 'notes'",
    )
    table = read(saved(first=LABELS, second=[["x"], ["y"]]))
    assert "the sheet 'first', the only one with a table; not read: 'second'" in table.remarks[0]
    cover = [["Stand: 3. März"], [], ["Fotos"]]
    table = read(saved(cover=cover, data=LABELS, more=LABELS))
    assert "the sheet 'data', the first with a table; not read: 'cover', 'm" in table.remarks[0]
    assert (
        read(saved(cover=cover, notes=[["x"]]))
        .remarks[0]
        .startswith("labels.xlsx: read from the sheet 'cover', the first; not read")
    )


def test_hidden_sheets_are_not_read(read):
    state = PARTS["xl/workbook.xml"].replace('"visible"', '"hidden"')
    with pytest.raises(Exception, match="is empty: it needs a sheet"):
        read(xlsx(**{"xl/workbook.xml": state}))


def test_a_table_that_begins_further_down_and_right(read):
    table = read(saved(one=[[], [], [None, "id", "label"], [None, "a", "x"], [], [None, "b"]]))
    assert table.rows == ({"id": "a", "label": "x"}, {"id": "b", "label": ""})
    assert table.lines == (4, 6)
    assert table.remarks == (
        "labels.xlsx: 1 columns without a name and without any cell are left out",
    )


def test_an_attached_table_is_not_read_instead(read):
    other = saved(other=[["x"], ["y"]])
    table = read(xlsx(**{"xl/embeddings/Other.xlsx": other, "customXml/data.json": "[]"}))
    assert table.columns[:2] == ("Bild", "Schaden")


def test_cells_beside_the_table(read, fault_of):
    content = saved(one=[["id", "label"], ["a", "x", None, "a note"]])
    fault_of(lambda: read(content), "a column has no name in the header, but holds 'a note'")


@pytest.mark.proves("tables")
def test_formulas_that_nothing_has_computed_stay_text_aloud(read):
    table = read(saved(one=[["id", "label"], ["=cmd|calc", "x"], ["b", "=1+1"]]))
    assert [tuple(row.values()) for row in table.rows] == [("=cmd|calc", "x"), ("b", "=1+1")]
    assert table.remarks == (
        "labels.xlsx: 2 cells hold formulas without a value, taken as text: '=cmd|calc', '=1+1'",
    )


HOSTILE = {
    "cut": xlsx()[:-60],
    "half": xlsx()[: len(xlsx()) // 2],
    "empty": b"PK\5\6" + bytes(18),
    "no sheet": xlsx(**{"xl/worksheets/sheet1.xml": ""}),
    "no xml": xlsx("<row><c>"),
    "odd string": xlsx('<row r="1"><c r="A1" t="s"><v>99</v></c></row>'),
    "odd style": xlsx('<row r="1"><c r="A1" s="99999999999"><v>1</v></c></row>'),
    "odd cell": xlsx('<row r="1"><c r="ZZZZZZ1"><v>1</v></c></row>'),
    "long number": xlsx(f'<row r="1"><c r="A1"><v>{"9" * 5000}</v></c></row>'),
    "laughs": xlsx(
        **{
            "xl/sharedStrings.xml": '<!DOCTYPE s [<!ENTITY a "aaaaaaaaaa">'
            + "".join(
                f'<!ENTITY {name} "{f"&{before};" * 10}">'
                for before, name in zip("abcdefghi", "bcdefghij", strict=True)
            )
            + f']><sst xmlns="{MAIN}"><si><t>&j;</t></si></sst>'
        }
    ),
}


@pytest.mark.proves("hostile")
@pytest.mark.parametrize("name", HOSTILE)
def test_damaged_and_hostile_sheets_are_told(read, fault_of, name):
    message = fault_of(lambda: read(HOSTILE[name]), "labels.xlsx")
    assert len(message) < 400


@pytest.mark.proves("hostile")
def test_a_sheet_that_claims_a_gigabyte_is_not_unpacked(read, fault_of):
    content = bytearray(xlsx(bytes(1_000_000).decode()))
    at = content.rindex(b"xl/worksheets/sheet1.xml") - 22
    assert int.from_bytes(content[at : at + 4], "little") > 1_000_000
    content[at : at + 4] = (2**30).to_bytes(4, "little")
    fault_of(lambda: read(bytes(content)), "would take", "unpacked, limit 536870912")


@pytest.mark.proves("hostile")
def test_absurd_dimensions_are_not_believed(read, fault_of):
    row = '<row r="1"><c r="A1" t="str"><v>id</v></c></row>'
    wide = sheet(row, "A1:XFD1048576")
    assert read(xlsx(**{"xl/worksheets/sheet1.xml": wide})).columns == ("id",)
    far = row + '<row r="2000000000"><c r="A2000000000"><v>1</v></c></row>'
    fault_of(lambda: read(xlsx(far)), "has more than 1048576 rows")


@pytest.mark.proves("hostile")
def test_many_empty_rows_and_columns(read, fault_of, monkeypatch):
    row = '<row r="1"><c r="A1" t="str"><v>id</v></c></row>'
    blank = "".join(f'<row r="{at}"><c r="A{at}" s="1"/></row>' for at in range(2, 20_000))
    table = read(xlsx(row + blank + '<row r="20000"><c r="A20000"><v>5</v></c></row>'))
    assert (table.rows, table.lines) == (({"id": "5"},), (20_000,))
    wide = "".join(f'<row r="{at}"><c r="XFD{at}" s="1"/></row>' for at in range(2, 40))
    assert read(xlsx(row + wide)).columns == ("id",)
    monkeypatch.setattr(table_forms, "CELL_LIMIT", 100_000)
    fault_of(lambda: read(xlsx(row + wide)), "or 100000 cells")


def zipped(*names):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return out.getvalue()


OLE = bytes.fromhex("d0cf11e0a1b11ae1")
FOREIGN = {
    "old.xls": (OLE + bytes(600), "is an old Excel file (.xls)"),
    "locked.xlsx": (OLE + bytes(9) + "EncryptedPackage".encode("utf-16-le"), "by a password"),
    "table.ods": (zipped("mimetype", "content.xml"), "OpenDocument file (.ods): open it"),
    "table.numbers": (zipped("Index/Document.iwa"), "Numbers file: export it"),
    "table.xlsb": (zipped("xl/workbook.bin"), "binary Excel file (.xlsb)"),
    "images.zip": (zipped("a.jpg"), "no table: unpack it"),
    "table.csv.gz": (b"\x1f\x8b\x08" + bytes(20), "unpack it"),
    "table.xls": (b"<html><table><tr><td>id</td></tr></table>", "holds HTML or XML"),
}


@pytest.mark.proves("tables")
@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_named_with_what_to_do(read, fault_of, name):
    content, words = FOREIGN[name]
    fault_of(lambda: read(content, name), name, words)


def test_without_openpyxl(read, fault_of, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    fault_of(lambda: read(xlsx()), "needs openpyxl", "pip install 'archiveprobe[tables]'")
