import json
import zlib
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archiveprobe.cache import log
from archiveprobe.cache.log import Commit, Failure

COMMITS = st.builds(
    lambda number, rows, size, sha: Commit(log.shard_name(number, sha), rows, rows + size, sha),
    st.integers(0, 10**9 - 1),
    st.integers(1, 10**6),
    st.integers(0, 10**9),
    st.text("0123456789abcdef", min_size=64, max_size=64),
)
COMMIT = Commit("000000-aaaaaaaa.h5", 3, 100, "a" * 64)


def line_of(**fields):
    text = json.dumps(COMMIT._asdict() | fields, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


@given(st.lists(COMMITS, unique_by=lambda commit: commit.file))
def test_round_trip(commits):
    data = b"".join(map(log.format_commit, commits))
    assert log.parse_log(data) == (commits, False, [])


@given(st.binary())
@example(b"\n")
@example(b"00000000 {}\n")
@example(b"\xff\n" * 3)
def test_any_bytes_are_parsed_and_none_is_believed(data):
    parsed = log.parse_log(data)
    assert parsed.entries == []
    assert parsed.damaged == bool(data)


@given(st.lists(COMMITS, min_size=1, unique_by=lambda commit: commit.file), st.data())
def test_only_lines_with_a_true_crc_are_accepted(commits, draw):
    lines = [log.format_commit(commit) for commit in commits]
    data = bytearray(b"".join(lines))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= 1 << draw.draw(st.integers(0, 7))
    parsed = log.parse_log(bytes(data))
    assert parsed.damaged
    assert set(parsed.entries) < set(commits)
    assert len(parsed.entries) >= len(commits) - 2  # a flipped newline joins two lines


@given(st.lists(COMMITS, min_size=1, unique_by=lambda commit: commit.file), st.data())
def test_torn_last_line_is_cut(commits, draw):
    *lines, last = [log.format_commit(commit) for commit in commits]
    torn = last[: draw.draw(st.integers(1, len(last) - 1))]
    assert log.parse_log(b"".join(lines) + torn) == (commits[:-1], True, [])


def test_garbage_in_the_middle_costs_its_line_only():
    other = Commit("000001-bbbbbbbb.h5", 1, 9, "b" * 64)
    first, second = log.format_commit(COMMIT), log.format_commit(other)
    parsed = log.parse_log(first + b"garbage\n" + second)
    assert parsed == ([COMMIT, other], True, [2])


def test_a_repeated_line_counts_once():
    line = log.format_commit(COMMIT)
    assert log.parse_log(line * 2) == ([COMMIT], False, [])


def test_two_stories_about_one_file():
    parsed = log.parse_log(line_of() + line_of(rows=4))
    assert (parsed.entries, parsed.bad_lines) == ([COMMIT], [2])


def test_the_line_maker_of_this_test_makes_good_lines():
    assert log.parse_log(line_of()).entries == [COMMIT]


@pytest.mark.proves("hostile")
@pytest.mark.parametrize(
    "fields",
    [
        {"file": "../x"},
        {"file": "../000000-aaaaaaaa.h5"},
        {"file": "/etc/passwd"},
        {"file": "000000-aaaaaaaa.h5\n"},
        {"file": "٠٠٠٠٠٠-aaaaaaaa.h5"},
        {"file": "000000-bbbbbbbb.h5"},
        {"file": ["000000-aaaaaaaa.h5"]},
        {"rows": 0},
        {"rows": -1},
        {"rows": True},
        {"rows": 3.0},
        {"rows": 101},
        {"bytes": "100"},
        {"sha256": "a" * 63},
        {"sha256": "A" * 64},
        {"sha256": None},
        {"more": 1},
    ],
)
def test_hostile_lines_with_a_true_crc(fields):
    parsed = log.parse_log(line_of(**fields))
    assert parsed.entries == []
    assert parsed.damaged


@pytest.mark.parametrize(
    "text", [b"{" + b"[" * 100_000 + b"}", b'{"rows":' + b"9" * 5000 + b"}", b"{}"]
)
def test_hostile_json_with_a_true_crc(text):
    assert log.parse_log(b"%08x %s\n" % (zlib.crc32(text), text)).bad_lines == [1]


def test_missing_files_are_empty(tmp_path):
    assert log.read_log(tmp_path / log.COMMITS) == ([], False, [])
    assert log.read_failures(tmp_path / log.FAILURES) == {}


def test_last_failure_wins_and_bad_lines_are_skipped(tmp_path):
    key, path = bytes(range(32)), tmp_path / log.FAILURES
    first = log.format_failures(
        {key: Failure("decode", "one\ntwo"), b"x" * 32: Failure("zero", "")}
    )
    second = log.format_failures({key: Failure("missing", "\udce9\x00")})
    path.write_bytes(first + b'{"image": "zz"}\n[]\n\xff\n{"image": 3}\n' + second + b'{"ima')
    assert log.read_failures(path) == {
        key: Failure("missing", "\udce9\x00"), b"x" * 32: Failure("zero", ""),
    }  # fmt: skip


@given(st.binary())
def test_any_bytes_as_failures(data):
    with mock.patch.object(log, "_read", lambda _: data):
        assert log.read_failures(Path("any")) == {}
