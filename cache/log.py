"""The two line files of a cache: commits.jsonl (what is done) and failures.jsonl (what cannot be).

Both are read tolerantly: any bytes may stand in them after a fault, and no line is believed that
does not prove itself.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from archiveprobe.base import files

COMMITS = "commits.jsonl"
FAILURES = "failures.jsonl"
_SHARD_NAME = re.compile(r"([0-9]{6,9})-([0-9a-f]{8})\.h5", re.ASCII)
_LINE = re.compile(rb"([0-9a-f]{8}) (\{.*\})")
_DETAIL_CHARACTERS = 500
_FAILURE_FIELDS = ("image", "status", "detail")


class Commit(NamedTuple):
    """One finished shard: its name, its rows, its size in bytes, its SHA-256."""

    file: str
    rows: int
    bytes: int
    sha256: str


class Failure(NamedTuple):
    """Why an image has no embedding: a status word and a sentence."""

    status: str
    detail: str


class Log(NamedTuple):
    """What a commit log holds.

    `entries` are the lines that proved themselves, in order, one per file; `good_length` is the
    length in bytes of the good lines before the first bad one; `bad_lines` counts from 1 and
    leaves out a torn last line, which `damaged` alone reports.
    """

    entries: list[Commit]
    good_length: int
    damaged: bool
    bad_lines: list[int]


def shard_name(sequence: int, sha256: str) -> str:
    """Return the file name of a shard: six digits of sequence, eight of digest."""
    return f"{sequence:06d}-{sha256[:8]}.h5"


def shard_sequence(name: str) -> int | None:
    """Return the sequence number in a shard's file name; None for any other name."""
    match = _SHARD_NAME.fullmatch(name)
    return int(match[1]) if match else None


def format_commit(commit: Commit) -> bytes:
    """Return the line of `commit`, with its newline."""
    text = json.dumps(commit._asdict(), separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read_log(path: Path) -> Log:
    """Read a commit log; a missing one is empty. Raises InputError only when it cannot be read."""
    with files.explained(f"read {path}"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
    return parse_log(data)


def parse_log(data: bytes) -> Log:
    """Parse any bytes as a commit log; never raises.

    A repeated line counts once; a second, different line for one file is bad.
    """
    entries: dict[str, Commit] = {}
    bad_lines: list[int] = []
    good_length = 0
    *lines, rest = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        commit = _parse_commit(line)
        if commit is None or entries.setdefault(commit.file, commit) != commit:
            bad_lines.append(number)
        elif not bad_lines:
            good_length += len(line) + 1
    return Log(list(entries.values()), good_length, bool(rest or bad_lines), bad_lines)


def _parse_commit(line: bytes) -> Commit | None:
    match = _LINE.fullmatch(line)
    if not match or int(match[1], 16) != zlib.crc32(match[2]):
        return None
    # A true CRC proves that the line is whole, not that we wrote it.
    fields = _json_object(match[2])
    return Commit(**fields) if fields is not None and _is_sound(fields) else None


def _is_sound(fields: dict[str, Any]) -> bool:
    if fields.keys() != set(Commit._fields):
        return False
    file, rows, size, sha256 = (fields[name] for name in Commit._fields)
    name = _SHARD_NAME.fullmatch(file) if isinstance(file, str) else None
    if name is None or not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        return False
    counts = type(rows) is int and type(size) is int
    return counts and 0 < rows <= size and sha256.startswith(name[2])


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def format_failures(failures: Mapping[bytes, Failure]) -> bytes:
    """Return the lines of `failures`, each with its newline and a CRC of what it says."""
    lines = []
    for key, failure in failures.items():
        values = [key.hex(), failure.status, failure.detail[:_DETAIL_CHARACTERS]]
        fields = dict(zip(_FAILURE_FIELDS, values, strict=True))
        lines.append(json.dumps({**fields, "crc32": _failure_crc(values)}).encode() + b"\n")
    return b"".join(lines)


def _failure_crc(values: list[Any]) -> str:
    return f"{zlib.crc32(json.dumps(values).encode()):08x}"


def read_failures(path: Path) -> dict[bytes, Failure]:
    """Read the failures on file; a malformed line is skipped, the last one of an image wins.

    Raises InputError only when the file cannot be read.
    """
    with files.explained(f"read {path}"):
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            lines = []
    return dict(_parse_failures(lines))


def _parse_failures(lines: Iterable[bytes]) -> Iterable[tuple[bytes, Failure]]:
    for line in lines:
        fields = _json_object(line) or {}
        values = [fields.get(name) for name in _FAILURE_FIELDS]
        if not all(isinstance(text, str) for text in values):
            continue
        image, status, detail = map(str, values)
        whole = "crc32" not in fields or fields["crc32"] == _failure_crc(values)
        if whole and re.fullmatch(r"[0-9a-f]{64}", image):
            yield bytes.fromhex(image), Failure(status, detail)
