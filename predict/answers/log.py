"""The logs of a folder of answers: a line for every finished part, one log for every writer.

    <crc32> {"unit":5,"units":1,"file":"00000005.parquet","rows":64,"bytes":9120,"sha256":"..."}

Any bytes may stand in a log after a fault; no line is believed that does not prove itself.
"""

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from archiveprobe.archive.units import Receipt, Share
from archiveprobe.base import files
from archiveprobe.predict.answers.layout import PARTS
from archiveprobe.predict.answers.part import part_name

# Tools that read a folder of Parquet files pass over names that begin so.
_NAME = re.compile(r"_commits(-[1-9][0-9]{0,5}of[1-9][0-9]{0,5})?\.jsonl", re.ASCII)
_NUMBER = rb"(0|[1-9][0-9]{0,17})"
_LINE = re.compile(
    rb'([0-9a-f]{8}) (\{"unit":%b,"units":%b,"file":"([0-9-]{8,40}\.parquet)","rows":%b,'
    rb'"bytes":%b,"sha256":"([0-9a-f]{64})"\})' % ((_NUMBER,) * 4)
)


class Part(NamedTuple):
    """A committed part: the answers of `units` units, from number `unit` on."""

    unit: int
    units: int
    file: str
    rows: int
    bytes: int
    sha256: str

    @classmethod
    def of(cls, receipt: Receipt) -> "Part":
        """Return the part that a receipt is about."""
        sizes = receipt.rows, receipt.bytes
        return cls(receipt.unit, 1, receipt.file, *sizes, receipt.sha256)

    @property
    def numbers(self) -> range:
        """Return the numbers of its units."""
        return range(self.unit, self.unit + self.units)


class Log(NamedTuple):
    """What a log holds: the parts whose lines proved themselves, and whether others stand there."""

    parts: list[Part]
    damaged: bool


def log_name(share: Share | None) -> str:
    """Return the name of the log of a share, or of whoever answers all of it."""
    return "_commits.jsonl" if share is None else f"_commits-{share}.jsonl"


def log_files(parts: Path) -> list[Path]:
    """Return the logs in a folder of parts, in the order in which they count. Raises OSError."""
    found = (path for path in parts.iterdir() if _NAME.fullmatch(path.name))
    # The log of all comes first: "_commits." sorts after "_commits-".
    return sorted(found, key=lambda path: (len(path.name), path.name))


def format_part(part: Part) -> bytes:
    """Return the line of a part, with its newline."""
    text = json.dumps(part._asdict(), separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def append_part(log: Path, part: Part) -> None:
    """Add a part to a log; it is done when this returns. Raises OSError."""
    files.append_durable(log, format_part(part))


def read_log(log: Path) -> Log:
    """Read a log; a missing one is empty. Raises OSError only when it cannot be read."""
    try:
        return parse_log(log.read_bytes())
    except FileNotFoundError:
        return Log([], False)


def parse_log(data: bytes) -> Log:
    """Parse any bytes as a log; never raises."""
    *lines, rest = data.split(b"\n")
    parts, damaged = [], bool(rest)
    for line in lines:
        part = _parse(line)
        if part is None:
            damaged = True
        else:
            parts.append(part)
    return Log(parts, damaged)


def _parse(line: bytes) -> Part | None:
    match = _LINE.fullmatch(line)
    if match is None or int(match[1], 16) != zlib.crc32(match[2]):
        return None
    unit, units, rows, size = (int(match[at]) for at in (3, 4, 6, 7))
    part = Part(unit, units, match[5].decode(), rows, size, match[8].decode())
    # The name may lead nowhere but to the part of these units.
    return part if units and rows and part.file == part_name(unit, units) else None


def read_logs(parts: Path) -> Iterator[tuple[Path, Log]]:
    """Read all logs of a folder of parts. Raises OSError."""
    for path in log_files(parts):
        yield path, read_log(path)


def first_of_each(logs: list[Log]) -> list[Part]:
    """Return the parts of all logs in the order of their units, the first where a unit has two."""
    done: dict[int, Part] = {}
    for log in logs:
        for part in log.parts:
            done.setdefault(part.unit, part)
    return [done[unit] for unit in sorted(done)]


def finished_parts(folder: Path) -> list[Part]:
    """List the parts of a folder of answers that are done, in the order of their units.

    Raises:
        InputError: its logs cannot be read.
    """
    with files.explained(f"read {folder / PARTS}"):
        try:
            return first_of_each([read for _, read in read_logs(folder / PARTS)])
        except FileNotFoundError:
            return []
