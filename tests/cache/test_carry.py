"""Carrying rows over to another fingerprint: all of them, or a cache that can be gone on with."""

from pathlib import Path

import numpy as np
import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.cache.carry import carry_over
from archiveprobe.cache.spec import folder_name
from archiveprobe.cache.store import Reader, Writer

NEW = {"backbone": "tiny", "views": ["center", "flip"], "precision": "fp32", "versions": "2"}


def test_all_rows_and_failures_of_rows_move(folder: Path, write, rows) -> None:
    write(folder, rows)
    target = carry_over(folder, "tiny", NEW, {"new": True})
    assert target.name == folder_name("tiny", NEW)
    old, new = Reader(folder), Reader(target)
    assert new.keys == old.keys
    assert np.array_equal(new.read(list(rows))[1], old.read(list(rows))[1])
    assert dict(new.record.request) == {"new": True}


def test_a_second_time_changes_nothing(folder: Path, write, rows) -> None:
    write(folder, rows)
    carry_over(folder, "tiny", NEW, {})
    assert Reader(carry_over(folder, "tiny", NEW, {})).rows == len(rows)


def test_stopped_halfway_the_rest_can_still_be_computed(
    folder: Path, write, rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, rows)
    from archiveprobe.base import files

    real, calls = files.write_whole, []

    def stops(path: Path, data: bytes) -> None:
        calls.append(path)
        if path.suffix == ".h5" and sum(one.suffix == ".h5" for one in calls) == 2:
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(files, "write_whole", stops)
    with pytest.raises(InputError, match="No space"):
        carry_over(folder, "tiny", NEW, {})
    monkeypatch.setattr(files, "write_whole", real)
    target = folder.parent / folder_name("tiny", NEW)
    with Writer.open(target, NEW, {}) as writer:
        assert len(writer.keys) == 3
        for key, row in rows.items():
            writer.add(key, row)
    assert Reader(target).keys == set(rows)
    assert Reader(folder).rows == len(rows)


def test_a_cache_that_somebody_writes_to_is_left_alone(folder: Path, write, rows) -> None:
    write(folder, rows)
    with Lock(folder), pytest.raises(InputError, match="pid"):
        carry_over(folder, "tiny", NEW, {})
