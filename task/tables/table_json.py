"""Tables in JSON: a list of objects, the forms that pandas writes, and JSON lines."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import clipped, first_few
from archiveprobe.task.tables.cells import Cells, check_size, from_columns

_RECORDS = "write it as a list of objects (pandas: orient='records')"


def read_json(file: Path, text: str) -> Cells:
    """Read JSON or JSON lines.

    Raises:
        InputError: damaged, nested, of no known form, or a key stands twice in an object.
    """
    try:
        parts, form = _parse(file, text)
        cells = _cells(file, parts, form)
        for row in (cells.columns, *cells.rows):
            "".join(row).encode()
        return cells
    except RecursionError:
        raise InputError(f"{file} is nested too deeply: it is no table") from None
    except UnicodeEncodeError:
        raise InputError(
            f"{file} holds half of a surrogate pair (\\ud800 to \\udfff), which is no character: "
            "take it out"
        ) from None
    except ValueError as error:
        # A JSONDecodeError, or Python's own limit on the digits of a whole number.
        raise InputError(f"{file} is not valid JSON: {error}: correct it") from None


def _parse(file: Path, text: str) -> tuple[Any, str]:
    """Return what the JSON holds (of JSON lines: objects by line), and its form."""
    try:
        return _loads(text), "JSON"
    except json.JSONDecodeError:
        lines = {at: line for at, line in enumerate(text.split("\n"), 1) if line.strip()}
        if not _is_object(next(iter(lines.values()))):
            raise
    parts = {}
    for at, line in lines.items():
        try:
            parts[at] = _loads(line)
        except ValueError as error:
            raise InputError(f"{file} line {at} is not valid JSON: {error}: correct it") from None
    return parts, "JSON lines"


def _is_object(line: str) -> bool:
    try:
        return isinstance(_loads(line), dict)
    except json.JSONDecodeError:
        return False


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_constant=float)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {clipped(twice)} stands twice in an object")
    return found


def _cells(file: Path, parts: Any, form: str) -> Cells:
    if form == "JSON lines":
        return _records(file, list(parts.values()), form, lines=list(parts))
    if isinstance(parts, list):
        return _records(file, parts, "JSON, a list of objects")
    if set(parts) >= {"schema", "data"}:
        return _table(file, parts)
    if set(parts) in ({"columns", "index", "data"}, {"columns", "data"}):
        return _split(file, parts)
    values = list(parts.values())
    if values and all(isinstance(value, list) for value in values):
        return _of_columns(file, parts, "JSON, a list for each column")
    if values and all(isinstance(value, dict) for value in values):
        return _nested(file, parts)
    return _records(file, [parts] if parts else [], "JSON, one object")


def _records(
    file: Path, records: Sequence[Any], form: str, lines: list[int] | None = None
) -> Cells:
    for at, record in enumerate(records):
        if not isinstance(record, dict):
            place = f"line {lines[at]}" if lines else f"row {at + 1}"
            raise InputError(f"{file} {place} is no object, {clipped(repr(record))}: {_RECORDS}")
    names = list(dict.fromkeys(name for record in records for name in record))
    check_size(file, len(records), len(names))
    columns = [[record.get(name) for record in records] for name in names]
    rows = from_columns(file, names, columns)
    if lines:
        return Cells(names, rows, lines, form, unit="line")
    return Cells(names, rows, list(range(1, len(rows) + 1)), form)


def _table(file: Path, parts: Mapping[str, Any]) -> Cells:
    """Read pandas' orient "table", without an index that only counts."""
    cells = _records(file, _list(file, parts["data"]), "JSON, pandas' orient 'table'")
    schema = parts["schema"]
    keys = schema.get("primaryKey") if isinstance(schema, dict) else None
    if keys == ["index"] and cells.columns[:1] == keys and _counts(row[0] for row in cells.rows):
        cells.columns = cells.columns[1:]
        cells.rows = [row[1:] for row in cells.rows]
    return cells


def _split(file: Path, parts: Mapping[str, Any]) -> Cells:
    names = [str(name) for name in _list(file, parts["columns"])]
    rows = [_list(file, row) for row in _list(file, parts["data"])]
    _check_index(file, _list(file, parts.get("index", list(range(len(rows))))))
    check_size(file, len(rows), len(names))
    for at, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise InputError(
                f"{file} row {at}: {len(row)} cells under {len(names)} column names: correct it"
            )
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    texts = from_columns(file, names, columns)
    return Cells(names, texts, list(range(1, len(rows) + 1)), "JSON, pandas' orient 'split'")


def _nested(file: Path, parts: Mapping[str, Mapping[str, Any]]) -> Cells:
    """Read an object of objects: by column and row, or by row and column, whichever counts."""
    inner = list(next(iter(parts.values())))
    by_column = _counts(inner) and all(list(part) == inner for part in parts.values())
    by_row = _counts(parts) and bool(inner)
    if by_column and not by_row:
        columns = {name: list(part.values()) for name, part in parts.items()}
        return _of_columns(file, columns, "JSON, pandas' orient 'columns'")
    if by_row and not by_column:
        return _records(file, list(parts.values()), "JSON, pandas' orient 'index'")
    raise InputError(
        f"{file} is an object of objects in which the keys that count from 0 do not tell rows from "
        f"columns ({first_few(map(clipped, parts))}): {_RECORDS}"
    )


def _of_columns(file: Path, columns: Mapping[str, Sequence[Any]], form: str) -> Cells:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = first_few(f"{clipped(name)} {count}" for name, count in lengths.items())
        raise InputError(f"{file}: columns of different lengths ({listed}): {_RECORDS}")
    rows = from_columns(file, list(columns), list(columns.values()))
    return Cells(list(columns), rows, list(range(1, len(rows) + 1)), form)


def _check_index(file: Path, index: Iterable[Any]) -> None:
    if not _counts(map(str, index)):
        raise InputError(
            f"{file} has an index without a name that does not count from 0: write it with "
            "reset_index() in pandas, or, if it means nothing, with reset_index(drop=True)"
        )


def _counts(keys: Iterable[str]) -> bool:
    return all(key == str(at) for at, key in enumerate(keys))


def _list(file: Path, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{file} holds {clipped(repr(value))} where a list belongs: {_RECORDS}")
    return value
