"""Carrying the rows of a cache over to another fingerprint, once they are known to agree."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archiveprobe.base import files
from archiveprobe.base.lock import Lock
from archiveprobe.cache import log, spec
from archiveprobe.cache.log import SHARDS
from archiveprobe.cache.store import Writer


def carry_over(
    folder: Path,
    backbone: str,
    fingerprint: Mapping[str, Any],
    request: Mapping[str, Any],
    root: Path | None = None,
) -> Path:
    """Copy the rows of the cache in `folder` into the cache of `fingerprint`, and give its folder.

    It lies beside the old one, or in `root`. The old cache stays as it is. Killed halfway, the new
    one holds whole shards, and embed goes on from there.

    Raises InputError: another writer, a damaged cache, a full disk.
    """
    target = (root or folder.parent) / spec.folder_name(backbone, fingerprint)
    with Lock(folder), files.explained(f"carry {folder} over to {target}"):
        record = spec.CacheRecord.read(folder)
        files.make_folder(target / SHARDS)
        if not (target / spec.FILE).exists():
            spec.CacheRecord(target, fingerprint, request, record.row_shape).write()
        for share in log.find_shares(folder):
            for commit in log.read_log(folder / log.commits_name(share)).entries:
                content = (folder / SHARDS / commit.file).read_bytes()
                files.write_whole(target / SHARDS / commit.file, content)
    # Opening a cache adopts whole shards that its log does not name, after reading them fully.
    with Writer.open(target, fingerprint, request):
        return target
