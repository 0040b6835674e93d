"""The index of the server: a `Collection` in one SQLite file, of which only what is asked is read.

Columns lie in pieces, as the page reads them; the words of a row are ready JSON. For the search
through a million rows, ids, paths and captions lie folded and one after the other in large blocks:
finding bytes in them takes a third of the time of SQLite's own `instr` and `LIKE`, and an index of
trigrams would take longer to write than all the rest.

Beside it a sealed record, written last, says of what state the index is, and proves it.
"""

import json
import sqlite3
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import (
    discard,
    drop_temporaries,
    explained,
    make_folder,
    replacing,
)
from archiveprobe.base.reading import digest_of
from archiveprobe.base.sealed import read_sealed, write_sealed
from archiveprobe.look.collect.collection import Collection, little_endian

FORM = 3
RECORD = "index.json"
_LARGEST = 1 << 40
_PIECE = 4 * 1024 * 1024
_ROWS_IN_BLOCK = 10_000
# No text holds this byte in UTF-8: a match never reaches from one cell into the next.
_END = b"\xff"
_SEARCHED = ("id", "path", "text")
_TABLES = """
CREATE TABLE meta (record TEXT NOT NULL);
CREATE TABLE pieces (name TEXT NOT NULL, data BLOB NOT NULL);
CREATE TABLE rows (position INTEGER PRIMARY KEY, id BLOB NOT NULL, record TEXT NOT NULL);
CREATE TABLE blocks (first INTEGER PRIMARY KEY, starts BLOB NOT NULL, folded BLOB NOT NULL);
"""
_INDEXES = """
CREATE INDEX pieces_by_name ON pieces (name);
CREATE INDEX rows_by_id ON rows (id);
"""


def find_index(folder: Path, key: str) -> Path | None:
    """Find the index of state `key` in `folder`; None where there is none, or a damaged one."""
    try:
        record = read_sealed(folder / RECORD) or {}
        file = folder / _file_name(key)
        if record.get("form") == FORM and record.get("key") == key:
            return file if digest_of(file, _LARGEST) == record.get("digest") else None
    except (InputError, OSError):
        pass
    return None


def write_index(folder: Path, key: str, collection: Collection) -> Path:
    """Write the index of state `key` whole, remove all others, and return its path.

    One process at a time: see `wait_for_lock`.

    Raises:
        InputError: the disk is full or read-only; no half an index stays.
    """
    file = folder / _file_name(key)
    with explained(f"write {file}"):
        make_folder(folder)
        drop_temporaries(folder)
        with replacing(file) as temporary:
            _write(temporary, collection)
        record = {"form": FORM, "key": key, "digest": digest_of(file, _LARGEST)}
        write_sealed(folder / RECORD, record)
    for other in set(folder.glob("index-*.sqlite*")) - {file}:
        discard(other)
    return file


def _file_name(key: str) -> str:
    return f"index-{key[:16]}.sqlite"


def _write(file: Path, collection: Collection) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        # The file is made durable as a whole, or thrown away.
        connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLES}")
        connection.execute("BEGIN")
        meta = json.dumps({**collection.meta, "shell": "server"}, allow_nan=False)
        connection.execute("INSERT INTO meta VALUES (?)", [meta])
        for name, column in collection.columns.items():
            pieces = ((name, piece) for piece in _pieces(little_endian(column)))
            connection.executemany("INSERT INTO pieces VALUES (?, ?)", pieces)
        records = (
            (at, _utf8(row["id"]), json.dumps(dict(row), allow_nan=False))
            for at, row in enumerate(collection.rows)
        )
        connection.executemany("INSERT INTO rows VALUES (?, ?, ?)", records)
        connection.executemany("INSERT INTO blocks VALUES (?, ?, ?)", _blocks(collection.rows))
        connection.execute("COMMIT")
        connection.executescript(_INDEXES)
    except sqlite3.Error as error:
        raise InputError(
            f"cannot write {file.parent}: {error}; free some space there, then run the same "
            "command again"
        ) from None
    finally:
        connection.close()


def _pieces(content: bytes) -> Iterator[memoryview]:
    view = memoryview(content)
    for start in range(0, len(view), _PIECE):
        yield view[start : start + _PIECE]


def _blocks(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the place of the first row, where every row starts (n) i4, and the folded words."""
    first, folded = 0, bytearray()
    starts: list[int] = []
    for at, row in enumerate(rows):
        if len(starts) == _ROWS_IN_BLOCK or len(folded) > _PIECE:
            yield first, np.array(starts, "<i4").tobytes(), bytes(folded)
            first, starts, folded = at, [], bytearray()
        starts.append(len(folded))
        for name in _SEARCHED:
            folded += fold(row[name]) + _END
    if starts:
        yield first, np.array(starts, "<i4").tobytes(), bytes(folded)


def fold(text: str) -> bytes:
    """Return text as it is compared, in UTF-8: cases and forms of Unicode are alike."""
    return _utf8(normalize("NFC", normalize("NFC", text).casefold()))


def _utf8(text: str) -> bytes:
    # Names that are not UTF-8 hold halves of characters.
    return text.encode("utf-8", "surrogatepass")


class Index:
    """Reads an index that `find_index` or `write_index` has given; several threads may do so.

    `meta` is that of the collection. The file stays readable until `close`, also after another
    process has removed it and written a newer one.
    """

    def __init__(self, file: Path) -> None:
        # SQLite lets one thread after the other take its steps, none of which takes long.
        address = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
        self._connection = sqlite3.connect(address, uri=True, check_same_thread=False)
        [record] = self._connection.execute("SELECT record FROM meta").fetchone()
        self.meta: dict[str, Any] = json.loads(record)
        [self._count] = self._connection.execute("SELECT count(*) FROM rows").fetchone()

    def __len__(self) -> int:
        return int(self._count)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a column, some megabytes at a time; none where there is no such."""
        query = "SELECT data FROM pieces WHERE name = ? ORDER BY rowid"
        return (data for (data,) in self._connection.execute(query, [name]))

    def size(self, name: str) -> int:
        """Return the bytes of a column."""
        query = "SELECT coalesce(sum(length(data)), 0) FROM pieces WHERE name = ?"
        return int(self._connection.execute(query, [name]).fetchone()[0])

    def records(self, positions: Sequence[int]) -> list[str]:
        """Return the words of rows as JSON objects, in the order asked. Raises KeyError."""
        marks = ",".join("?" * len(positions))
        query = f"SELECT position, record FROM rows WHERE position IN ({marks})"  # noqa: S608
        found = dict(self._connection.execute(query, list(positions)))
        return [found[position] for position in positions]

    def row(self, position: int) -> dict[str, Any]:
        """Return the words of one row. Raises KeyError."""
        return dict(json.loads(self.records([position])[0]))

    def positions(self, ids: Iterable[str]) -> dict[str, int]:
        """Find the rows with these ids; what no row has is left out."""
        query = "SELECT position FROM rows WHERE id = ?"
        found = ((id_, self._connection.execute(query, [_utf8(id_)]).fetchone()) for id_ in ids)
        return {id_: row[0] for id_, row in found if row is not None}

    def find(self, text: str) -> np.ndarray:
        """Find rows whose id, path or caption holds `text`, (n,) uint8: 1 where it does."""
        wanted = fold(text)
        if not wanted:
            return np.ones(len(self), np.uint8)
        mask = np.zeros(len(self), np.uint8)
        for first, starts, folded in self._connection.execute("SELECT * FROM blocks"):
            mask[_rows_with(wanted, first, starts, folded)] = 1
        return mask


def _rows_with(wanted: bytes, first: int, starts: bytes, folded: bytes) -> list[int]:
    at = folded.find(wanted)
    if at < 0:
        return []
    ends = [*np.frombuffer(starts, "<i4").tolist()[1:], len(folded)]
    rows, row = [], 0
    while at >= 0:
        row = bisect_right(ends, at, row)
        rows.append(first + row)
        # One match in a row is enough: the search goes on in the next.
        at = folded.find(wanted, ends[row])
    return rows
