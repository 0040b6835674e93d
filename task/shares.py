"""work/shares/: the manifests of runs that each look at a share of the rows, until one takes over.

A share ("2of4") writes what it has seen of its own rows; the run without a share reads all of them,
so that no file is hashed or decoded again, and removes them when its own manifest holds it.
"""

from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import discard
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import Entry, read_manifest_with_digest

ROWS_PER_UNIT = 64


def shares_folder(task: Task) -> Path:
    """Return where the manifests of shares lie, and their locks."""
    return task.work / "shares"


def share_manifest(task: Task, share: str) -> Path:
    """Return where the manifest of a share lies."""
    return shares_folder(task) / f"manifest-{share}.csv"


def read_shares(task: Task, decoder: str) -> list[Entry]:
    """Read what shares have seen; a damaged manifest counts as nothing seen."""
    entries: list[Entry] = []
    for file in _manifests(task):
        try:
            entries += read_manifest_with_digest(task, decoder=decoder, file=file)[0]
        except InputError:
            continue
    return entries


def drop_shares(task: Task) -> None:
    """Remove the manifests of shares, which another one holds by now."""
    for file in _manifests(task):
        discard(file)


def _manifests(task: Task) -> list[Path]:
    return sorted(shares_folder(task).glob("manifest-*.csv"))
