"""Parts: what they hold, that a unit never has two, and what their logs are believed."""

import hashlib
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from archiveprobe.archive.references import Reference
from archiveprobe.archive.units import Receipt, Share, Unit
from archiveprobe.base import files
from archiveprobe.predict.answers.log import (
    Part,
    first_of_each,
    format_part,
    log_files,
    log_name,
    parse_log,
)
from archiveprobe.predict.answers.part import UnitAnswers, read_part, write_part

CLASSES = ("intact", "destroyed")
UNIT = Unit(3, (Reference("a.jpg", "a.jpg"), Reference("صورة.jpg", "x"), Reference("c\udcff", "c")))
ANSWERS = UnitAnswers(
    digests=["aa" * 32, "bb" * 32, ""],
    status=["ok", "truncated", "missing_file"],
    labels=["intact", None, None],
    classes=CLASSES,
    proba=np.array([[0.75, 0.25], [np.nan, np.nan], [np.nan, np.nan]]),
    spread=np.array([0.125, np.nan, np.nan]),
    backbone="0123456789abcdef",
    system="fedcba9876543210",
)


def test_a_row_for_every_image_of_a_unit(tmp_path) -> None:
    receipt = write_part(tmp_path, UNIT, ANSWERS)
    path = tmp_path / receipt.file
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    assert receipt == Receipt(3, "00000003.parquet", 3, len(data), sha256)
    rows = pq.read_table(path).to_pylist()
    assert [row["id"] for row in rows] == ["a.jpg", "صورة.jpg", r"c\udcff"]
    first, second, third = rows
    assert first == {
        "id": "a.jpg",
        "digest": "aa" * 32,
        "status": "ok",
        "label": "intact",
        "p_intact": 0.75,
        "p_destroyed": 0.25,
        "spread": 0.125,
        "backbone": "0123456789abcdef",
        "system": "fedcba9876543210",
    }
    nothing = {"label": None, "p_intact": None, "p_destroyed": None, "spread": None}
    assert second.items() >= nothing.items() and third.items() >= nothing.items()
    assert (second["digest"], third["digest"]) == ("bb" * 32, None)
    found = duckdb.read_parquet(f"{tmp_path}/*.parquet").project("status, p_destroyed").fetchall()
    assert found == [("ok", 0.25), ("truncated", None), ("missing_file", None)]


def test_a_unit_never_has_two_parts(tmp_path) -> None:
    first = write_part(tmp_path, UNIT, ANSWERS)
    other = replace(ANSWERS, spread=np.array([0.5, np.nan, np.nan]))
    assert write_part(tmp_path, UNIT, other) == first
    assert [path.name for path in tmp_path.iterdir()] == [first.file]


@pytest.mark.parametrize("fault", ["cut", "other system", "other images", "no table"])
def test_a_part_that_is_not_sound_is_replaced(tmp_path, fault) -> None:
    path = tmp_path / write_part(tmp_path, UNIT, ANSWERS).file
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif fault == "no table":
        path.write_bytes(b"nothing")
    elif fault == "other system":
        path.unlink()
        write_part(tmp_path, UNIT, replace(ANSWERS, system="0" * 16))
    else:
        path.unlink()
        write_part(tmp_path, replace(UNIT, references=UNIT.references[::-1]), ANSWERS)
    assert read_part(path, UNIT, CLASSES, ANSWERS.system) is None
    again = write_part(tmp_path, UNIT, ANSWERS)
    assert read_part(path, UNIT, CLASSES, ANSWERS.system) == again


def test_answers_that_are_not_one_for_each_image(tmp_path) -> None:
    with pytest.raises(ValueError, match="one answer for each"):
        write_part(tmp_path, UNIT, replace(ANSWERS, status=["ok", "ok"]))
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_hard_links(tmp_path, monkeypatch) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", no_link)
    first = write_part(tmp_path, UNIT, ANSWERS)
    assert write_part(tmp_path, UNIT, ANSWERS) == first
    assert [path.name for path in tmp_path.iterdir()] == [first.file]


PARTS = [
    Part(0, 1, "00000000.parquet", 64, 9000, "a" * 64),
    Part(1, 3, "00000001-00000003.parquet", 192, 9000, "b" * 64),
]


def test_a_log_is_read_as_it_was_written() -> None:
    data = b"".join(map(format_part, PARTS))
    assert parse_log(data) == (PARTS, False)
    assert parse_log(data[:-1]) == (PARTS[:1], True)
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        parts, damaged = parse_log(flipped)
        assert damaged and set(parts) < set(PARTS)


@pytest.mark.parametrize("file", ["../secret.parquet", "00000001.parquet", "00000000-.parquet"])
def test_a_line_may_name_no_other_file(file: str) -> None:
    line = format_part(PARTS[0]._replace(file=file))
    assert parse_log(line) == ([], True)


def test_the_log_of_all_counts_before_those_of_shares(tmp_path) -> None:
    names = [log_name(None), log_name(Share(1, 2)), log_name(Share(2, 2)), log_name(Share(10, 12))]
    for name in [*names, "_commits-of2.jsonl", "other.jsonl"]:
        (tmp_path / name).touch()
    assert [path.name for path in log_files(tmp_path)] == names
    later = PARTS[0]._replace(sha256="c" * 64)
    logs = [parse_log(format_part(part)) for part in (PARTS[1], PARTS[0], later)]
    assert first_of_each(logs) == PARTS
