"""Which files are answers of the task's own systems, so that nobody learns from them as labels."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import wait_for_lock
from archiveprobe.base.reading import TABLE_BYTES, digest_of
from archiveprobe.base.sealed import read_sealed, write_sealed

_FILE = "answers.json"
_MOST = 1000


def remember_answers(work: Path, file: Path) -> None:
    """Record a file that `submit` or `predict` has written, by its digest.

    What cannot be recorded is left out: it only helps a later `init`.
    """
    with suppress(OSError, InputError), wait_for_lock(work):
        digest = digest_of(file, TABLE_BYTES)
        known = [other for other in _digests(work) if other != digest]
        write_sealed(work / _FILE, {"digests": [*known, digest][-_MOST:]})


def is_own_answer(work: Path, file: Path) -> bool:
    """Return whether a file is one that `submit` or `predict` has written, unchanged."""
    known = _digests(work)
    try:
        return bool(known) and digest_of(file, TABLE_BYTES) in known
    except OSError:
        return False


def is_prediction(columns: Collection[str]) -> bool:
    """Return whether a table has the columns that `predict` writes, whoever saved it again."""
    return {"digest", "status", "label"} <= {*columns} and any(c.startswith("p_") for c in columns)


def _digests(work: Path) -> list[str]:
    try:
        record = read_sealed(work / _FILE) or {}
    except InputError:
        return []
    return [str(digest) for digest in record.get("digests", ())]
