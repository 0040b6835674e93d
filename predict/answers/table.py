"""A folder of answers as one table, in the form that `predict` has always written.

Text, JSON lines and Parquet are written piece by piece, so that millions of rows need the memory of
some thousands; the other forms, made for people, are built whole.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.predict.answers.read import iterate_parts, open_record
from archiveprobe.predict.columns import STATUS, probability, probability_columns
from archiveprobe.predict.file_forms import Cells, FileForm, are_integers
from archiveprobe.predict.tables import Target, draft_of, for_spreadsheets, write_answers
from archiveprobe.task.output import OutputFile, writing
from archiveprobe.task.own_answers import remember_answers

Kinds = Mapping[str, Callable[[str], Any]]
"""What the cells of every column are: str, int or float."""


def write_table(folder: Path, target: Target) -> Target:
    """Write a folder of answers as one table: id, digest, status, label and `p_<label>`.

    Returns the target with its form.

    Raises:
        InputError: a part is damaged, the form cannot hold a cell, or the disk refuses.
    """
    numbers = probability_columns(open_record(folder).classes)
    columns = ["id", "digest", STATUS, "label", *numbers]
    target = target.in_form(None, None, numbers)
    if not target.form.is_text and target.form.ending not in _WRITERS:
        write_answers(target, columns, [line for some in _cells(folder, columns) for line in some])
        return target
    _write(target.file, target.form, folder, _kinds(folder, columns, target.form))
    remember_answers(target.work, target.file)
    if target.copy is not None:
        kinds: Kinds = dict.fromkeys(columns, str)
        _write(target.copy, target.form_of_copy(), folder, kinds, safe=True)
        remember_answers(target.work, target.copy)
    return target


def _cells(folder: Path, columns: list[str]) -> Iterator[Cells]:
    """Yield the lines of a table, those of a part or of a piece of one at once."""
    for table in iterate_parts(folder, columns):
        texts = [[cell or "" for cell in table[name].to_pylist()] for name in columns[:4]]
        proba = [table[name].to_numpy() for name in columns[4:]]
        cells = [[probability(value) for value in column] for column in proba]
        yield [list(line) for line in zip(*texts, *cells, strict=True)]


def _kinds(folder: Path, columns: list[str], form: FileForm) -> Kinds:
    """Find which columns hold integers only, for the forms that know numbers."""
    texts, numbers = columns[:4], columns[4:]
    whole = set() if form.is_text else {"id", "label"}
    if whole:
        for table in iterate_parts(folder, sorted(whole)):
            whole -= {n for n in whole if not are_integers(table[n].drop_null().to_pylist())}
    kinds: dict[str, Callable[[str], Any]] = {n: int if n in whole else str for n in texts}
    return {**kinds, **dict.fromkeys(numbers, float)}


def _write(
    file: OutputFile, form: FileForm, folder: Path, kinds: Kinds, *, safe: bool = False
) -> None:
    columns = list(kinds)
    with writing(file), draft_of(file) as draft:
        with files.HashedFile(draft) as out:
            write = _WRITERS.get(form.ending, _write_text)
            lines = _cells(folder, columns)
            if safe:
                lines = ([for_spreadsheets(line) for line in some] for some in lines)
            write(out, form, kinds, lines)
        files.fsync(draft)
        files.move_durable(draft, file)


def _write_text(out: io.RawIOBase, form: FileForm, kinds: Kinds, lines: Iterator[Cells]) -> None:
    out.write(_text_of(form, [list(kinds)]))
    for some in lines:
        out.write(_text_of(form, some))


def _text_of(form: FileForm, lines: Cells) -> bytes:
    """Write lines of text, and read them back. Raises InputError: a cell would be another one."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=form.mark, lineterminator="\n", quoting=form.quoting).writerows(
        lines
    )
    text.seek(0)
    for line, found in zip(lines, csv.reader(text, delimiter=form.mark, strict=True), strict=True):
        if found != line:
            raise InputError(
                f"{form.ending} cannot hold {line!r}, it comes back as {found!r}: nothing was "
                "written, write a .parquet"
            )
    return text.getvalue().encode()


def _write_json_lines(out: io.RawIOBase, _: FileForm, kinds: Kinds, lines: Iterator[Cells]) -> None:
    for some in lines:
        for line in some:
            values = {
                name: kind(cell) if cell else None
                for (name, kind), cell in zip(kinds.items(), line, strict=True)
            }
            out.write(f"{json.dumps(values, ensure_ascii=False)}\n".encode())


def _write_parquet(out: io.RawIOBase, _: FileForm, kinds: Kinds, lines: Iterator[Cells]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types: Any = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in kinds.items()])
    with pq.ParquetWriter(out, schema) as writer:
        for some in lines:
            columns = zip(*some, strict=True)
            values = [
                pa.array([kind(cell) if cell else None for cell in column], types[kind])
                for kind, column in zip(kinds.values(), columns, strict=True)
            ]
            writer.write_table(pa.Table.from_arrays(values, schema=schema))


_WRITERS = {".jsonl": _write_json_lines, ".parquet": _write_parquet}
