"""Check a cache without trusting it: sizes and the log's CRC, or down to the last number."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.base.wording import number_of
from archiveprobe.cache import log, shard
from archiveprobe.cache.key_index import KeyIndex
from archiveprobe.cache.key_piece import key_array
from archiveprobe.cache.log import SET_ASIDE, SHARDS, Commit
from archiveprobe.cache.resume import read_index, set_aside
from archiveprobe.cache.shard import ShardError
from archiveprobe.cache.spec import CacheRecord


@dataclass
class Report:
    """What `verify` found: shards and rows according to the log, and what is wrong, a line each.

    `bad_shards` names the files to compute again.
    """

    shards: int = 0
    rows: int = 0
    bad: list[str] = field(default_factory=list)
    bad_shards: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.bad


def verify(folder: Path, deep: bool) -> Report:
    """Check the cache in `folder`, changing nothing.

    Always: the record's digest, the logs' CRC, the shards' sizes. `deep` also: their SHA-256,
    every checksum, finite and non-zero rows, norms, no key twice. A damaged cache is reported,
    never raised.
    """
    report = Report()
    try:
        record = CacheRecord.read(folder)
        for share in log.find_shares(folder):
            _verify_log(folder, share, record if deep else None, report)
    except InputError as error:
        report.bad.append(str(error))
    return report


def _verify_log(
    folder: Path, share: str | None, record: CacheRecord | None, report: Report
) -> None:
    """Check one writer's log; with a `record` the content of its shards as well."""
    name = log.commits_name(share)
    written = log.read_log(folder / name)
    report.shards += len(written.entries)
    report.rows += sum(commit.rows for commit in written.entries)
    report.bad += [f"{name}: line {number} is damaged" for number in written.bad_lines]
    shape = record.row_shape if record else None
    index = read_index(folder, share, written.entries, shape) if record else None
    for commit in written.entries:
        try:
            _check_size(folder, commit)
            if index is not None:
                _check_content(folder / SHARDS / commit.file, commit, shape, index)
        except ShardError as error:
            report.bad.append(f"{commit.file}: {error.reason}")
            report.bad_shards.append(commit.file)
        except InputError as error:
            report.bad.append(f"{commit.file}: {error}")


def repair(folder: Path, report: Report) -> list[str]:
    """Set aside the shards that `report` names, so that embed computes their rows again.

    Takes the lock; returns the names moved. Raises InputError.
    """
    moved = []
    # The log keeps its lines, so that readers refuse until embed has made up for the rows.
    with Lock(folder), files.explained(f"set damaged shards of {folder} aside"):
        for name in report.bad_shards:
            if (folder / SHARDS / name).exists():
                set_aside(folder, name)
                moved.append(name)
    return moved


def _check_size(folder: Path, commit: Commit) -> None:
    size = shard.size_of(folder / SHARDS / commit.file)
    if size is None:
        aside = (folder / SET_ASIDE / commit.file).exists()
        rows = number_of(commit.rows, "row")
        reason = f"set aside before; embed computes again what was in it: {rows}"
        raise ShardError(commit.file, reason if aside else "missing")
    if size != commit.bytes:
        raise ShardError(commit.file, f"{size} bytes instead of {commit.bytes}")


def _check_content(
    path: Path, commit: Commit, row_shape: tuple[int, ...] | None, index: KeyIndex
) -> None:
    if row_shape is None:
        raise InputError("the fingerprint file declares no row shape")
    data = shard.read_proved(path, commit.sha256)
    rows = shard.read(data, row_shape, commit.rows, path)
    reason = shard.fault(rows)
    if reason is None:
        keys = [key.tobytes() for key in rows.key]
        found = index.find(keys, key_array(keys))
        if not all(at >= 0 and index.commits[at] == commit for at in np.unique(found)):
            reason = "a key is in another shard too"
    if reason is not None:
        raise ShardError(str(path), reason)
