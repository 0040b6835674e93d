"""The two line files of a cache: commits.jsonl (what is done) and failures.jsonl (what cannot be).

Both are read tolerantly: any bytes may stand in them after a fault, and no line is believed that
does not prove itself.
"""

import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from archiveprobe.base import files

COMMITS = "commits.jsonl"
FAILURES = "failures.jsonl"
_SHARD_NAME = re.compile(r"([0-9]{6,9})-([0-9a-f]{8})\.h5", re.ASCII)
# A true CRC proves that a line is whole, not that we wrote it: the name may lead nowhere else, the
# counts are positive, and the digest begins as the name says.
_COMMIT = re.compile(
    rb'([0-9a-f]{8}) (\{"file":"([0-9]{6,9}-([0-9a-f]{8})\.h5)","rows":([1-9][0-9]{0,17}),'
    rb'"bytes":([1-9][0-9]{0,17}),"sha256":"(\4[0-9a-f]{56})"\})'
)
_DETAIL_CHARACTERS = 500


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

    `entries` are the lines that proved themselves, in order, one per file; `damaged` says whether
    anything else stands there; `bad_lines` counts from 1 and leaves out a torn last line.
    """

    entries: list[Commit]
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
    return parse_log(_read(path))


def _read(path: Path) -> bytes:
    with files.explained(f"read {path}"):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""


def parse_log(data: bytes) -> Log:
    """Parse any bytes as a commit log; never raises.

    A repeated line counts once; a second, different line for one file is bad.
    """
    entries: dict[str, Commit] = {}
    bad_lines: list[int] = []
    *lines, rest = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        match = _COMMIT.fullmatch(line)
        if match and int(match[1], 16) == zlib.crc32(match[2]):
            commit = Commit(match[3].decode(), int(match[5]), int(match[6]), match[7].decode())
            if commit.rows <= commit.bytes and entries.setdefault(commit.file, commit) == commit:
                continue
        bad_lines.append(number)
    return Log(list(entries.values()), bool(rest or bad_lines), bad_lines)


def format_failures(failures: Mapping[bytes, Failure]) -> bytes:
    """Return the lines of `failures`, each with its newline and a CRC of what it says."""
    lines = []
    for key, (status, detail) in failures.items():
        values = [key.hex(), status, detail[:_DETAIL_CHARACTERS]]
        fields = {"image": values[0], "status": values[1], "detail": values[2]}
        lines.append(json.dumps({**fields, "crc32": _failure_crc(values)}).encode() + b"\n")
    return b"".join(lines)


def _failure_crc(values: list[Any]) -> str:
    return f"{zlib.crc32(json.dumps(values).encode()):08x}"


def read_failures(path: Path) -> dict[bytes, Failure]:
    """Read the failures on file; a malformed line is skipped, the last one of an image wins.

    Raises InputError only when the file cannot be read.
    """
    failures = {}
    for line in _read(path).split(b"\n"):
        try:
            fields = json.loads(line)
            values = [fields["image"], fields["status"], fields["detail"]]
            image, status, detail = values
            whole = fields.get("crc32") in (None, _failure_crc(values))
            texts = isinstance(status, str) and isinstance(detail, str)
            if whole and texts and re.fullmatch("[0-9a-f]{64}", image):
                failures[bytes.fromhex(image)] = Failure(status, detail)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
    return failures
