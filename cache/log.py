"""The two line files of a cache: commits.jsonl (what is done) and failures.jsonl (what cannot be).

A writer that has a share of the work, such as the second of four, has a pair of its own:
commits-2of4.jsonl and failures-2of4.jsonl, with shards in shards/2of4/. Readers take all of them;
a key in several logs counts once, in the first by name, the plain one before all others.

All are read tolerantly: any bytes may stand in them after a fault, and no line is believed that
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
SHARDS = "shards"
SET_ASIDE = "set-aside"
_SHARE = r"[1-9][0-9]{0,5}of[1-9][0-9]{0,5}"
_LOG_NAME = re.compile(rf"(?:commits|failures)(?:-({_SHARE}))?\.jsonl", re.ASCII)
_SHARD_NAME = re.compile(r"([0-9]{6,9})-([0-9a-f]{8})\.h5", re.ASCII)
# A true CRC proves that a line is whole, not that we wrote it: the name may lead nowhere else, the
# counts are positive, and the digest begins as the name says.
_COMMIT = re.compile(
    rb'(?P<crc>[0-9a-f]{8}) (?P<text>\{"file":"(?P<file>(?:(?P<share>'
    + _SHARE.encode()
    + rb')/)?[0-9]{6,9}-(?P<begin>[0-9a-f]{8})\.h5)","rows":(?P<rows>[1-9][0-9]{0,17}),'
    rb'"bytes":(?P<bytes>[1-9][0-9]{0,17}),"sha256":"(?P<sha256>(?P=begin)[0-9a-f]{56})"\})'
)
_DETAIL_CHARACTERS = 500


class Commit(NamedTuple):
    """One finished shard: its name below shards/, its rows, its size in bytes, its SHA-256."""

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


def commits_name(share: str | None) -> str:
    """Return the name of a writer's log; `share` is None for the one that has no share."""
    return COMMITS if share is None else f"commits-{share}.jsonl"


def failures_name(share: str | None) -> str:
    """Return the name of a writer's failures."""
    return FAILURES if share is None else f"failures-{share}.jsonl"


def is_share(name: str) -> bool:
    """Return whether a name is that of a share, such as "2of4"."""
    return re.fullmatch(_SHARE, name, re.ASCII) is not None


def is_log(name: str) -> bool:
    """Return whether a file name is that of a commit log or of failures."""
    return _LOG_NAME.fullmatch(name) is not None


def find_shares(folder: Path) -> list[str | None]:
    """Return the shares that have a log, or shards, in `folder`, sorted by name, after None.

    Raises InputError when the folder cannot be read.
    """
    with files.explained(f"read {folder}"):
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        shards = folder / SHARDS
        places = [path.name for path in shards.iterdir()] if shards.is_dir() else []
    matches = (_LOG_NAME.fullmatch(name) for name in names)
    shares = {match[1] for match in matches if match} | set(filter(is_share, places))
    return [None, *sorted(shares - {None})]


def shard_name(sequence: int, sha256: str, share: str | None = None) -> str:
    """Return the name of a shard below shards/: six digits of sequence, eight of digest."""
    place = "" if share is None else f"{share}/"
    return f"{place}{sequence:06d}-{sha256[:8]}.h5"


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
    match = _LOG_NAME.fullmatch(path.name)
    return parse_log(_read(path), match[1] if match else None)


def _read(path: Path) -> bytes:
    with files.explained(f"read {path}"):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""


def parse_log(data: bytes, share: str | None = None) -> Log:
    """Parse any bytes as the commit log of `share`; never raises.

    A repeated line counts once; a second, different line for one file is bad, and so is a shard
    of another log.
    """
    place = None if share is None else share.encode()
    entries: dict[str, Commit] = {}
    bad_lines: list[int] = []
    *lines, rest = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        match = _COMMIT.fullmatch(line)
        if match and int(match["crc"], 16) == zlib.crc32(match["text"]) and match["share"] == place:
            commit = Commit(
                match["file"].decode(),
                int(match["rows"]),
                int(match["bytes"]),
                match["sha256"].decode(),
            )
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


def read_all_failures(folder: Path) -> dict[bytes, Failure]:
    """Read the failures of all writers. Raises InputError only when a file cannot be read."""
    failures: dict[bytes, Failure] = {}
    for share in find_shares(folder):
        failures |= read_failures(folder / failures_name(share))
    return failures


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
