"""The chained log of a review: what it proves, and what it survives."""

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiveprobe.base.errors import InputError
from archiveprobe.review.decisions import FILE, WITHDRAWAL, Decision, DecisionFile
from archiveprobe.review.log import FIRST, ReviewLog, format_line


def show(log: ReviewLog, *numbers: int) -> None:
    images = [f"{number:064x}" for number in numbers]
    log.append("unblurred", [{"reviewer": "Ann", "image": image} for image in images])


@pytest.fixture
def log(tmp_path: Path) -> ReviewLog:
    log = ReviewLog(tmp_path / "review")
    for number in range(21):
        show(log, number)
    return log


def edit(log: ReviewLog, number: int, old: bytes, new: bytes) -> None:
    lines = log.file.read_bytes().split(b"\n")
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new)
    log.file.write_bytes(b"\n".join(lines))


def test_lines_are_chained_by_the_digest_that_sha256sum_gives(log: ReviewLog) -> None:
    lines = log.file.read_bytes().splitlines()
    previous = [json.loads(line)["previous"] for line in lines]
    assert previous == [FIRST, *(hashlib.sha256(line).hexdigest() for line in lines[:-1])]
    again = ReviewLog(log.folder)
    assert again.refresh() == log.lines
    assert again.head == hashlib.sha256(lines[-1]).hexdigest()


@pytest.mark.proves("review")
@pytest.mark.parametrize("number", [1, 17, 21])
def test_a_changed_line_is_named(log: ReviewLog, number: int) -> None:
    edit(log, number, b'"kind"', b'"kinD"')
    with pytest.raises(InputError, match=rf"log.jsonl: line {number} was changed"):
        ReviewLog(log.folder).refresh()


@pytest.mark.proves("review")
def test_a_line_changed_with_its_digest_is_named_by_the_chain(log: ReviewLog) -> None:
    lines = log.file.read_bytes().split(b"\n")
    rest = lines[16].split(b'", ', 1)[1].replace(b'0010"', b'0099"')
    lines[16] = b'{"sha256": "%b", %b' % (hashlib.sha256(rest).hexdigest().encode(), rest)
    log.file.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match="line 17 was changed"):
        ReviewLog(log.folder).refresh()


@pytest.mark.proves("review")
@pytest.mark.parametrize("gone", [0, 5, 19])
def test_a_line_taken_out_is_noticed(log: ReviewLog, gone: int) -> None:
    lines = log.file.read_bytes().split(b"\n")
    del lines[gone]
    log.file.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match="first lines are gone" if gone == 0 else f"line {gone} "):
        ReviewLog(log.folder).refresh()


@pytest.mark.proves("review")
def test_every_flipped_bit_is_found(log: ReviewLog) -> None:
    content = log.file.read_bytes()
    for at in range(0, len(content), 41):
        flipped = bytearray(content)
        flipped[at] ^= 1
        log.file.write_bytes(flipped)
        with pytest.raises(InputError, match="was changed"):
            found = ReviewLog(log.folder).refresh()
            # Without its newline the last line is one that a killed writer left: it does not count.
            assert len(found) == 20
            raise InputError("line 21 was changed")


@pytest.mark.proves("review")
def test_a_line_cut_short_by_a_kill_never_counted(log: ReviewLog) -> None:
    content = log.file.read_bytes()
    log.file.write_bytes(content[:-30])
    again = ReviewLog(log.folder)
    assert len(again.refresh()) == 20
    show(again, 21)
    kinds = [line.kind for line in ReviewLog(log.folder).refresh()]
    assert kinds[-2:] == ["mended", "unblurred"]
    assert len(kinds) == 22


def appended(folder: Path, sizes: list[int]) -> list[bytes]:
    """Add batches of these sizes to a new log; return the file as it is after each."""
    log, number, after = ReviewLog(folder), 0, [b""]
    for size in sizes:
        show(log, *range(number, number + size))
        number += size
        after.append(log.file.read_bytes())
    return after


@pytest.mark.proves("review")
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5), data=st.data())
def test_a_batch_cut_anywhere_counts_whole_or_not_at_all(
    sizes: list[int], data: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        after = appended(Path(folder), sizes)
        cut = data.draw(st.integers(0, len(after[-1])))
        log = ReviewLog(Path(folder))
        log.file.write_bytes(after[-1][:cut])
        whole = [content for content in after if len(content) <= cut]
        kept = sum(sizes[: len(whole) - 1])
        assert len(log.refresh()) == kept
        show(log, 99)
        left = log.file.read_bytes()
        assert left.startswith(whole[-1])
        again = ReviewLog(Path(folder)).refresh()
        torn = cut - len(whole[-1])
        kinds = ["mended"] * (torn > 0) + ["unblurred"]
        assert [line.kind for line in again[kept:]] == kinds
        if torn:
            lines = len(after[-1][len(whole[-1]) : cut].splitlines())
            assert again[kept].content == {"bytes": torn, "lines": lines}


@pytest.mark.proves("review")
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_batch_that_lacks_lines_in_the_middle_is_none_of_ours(log: ReviewLog, at: int) -> None:
    """A batch of three without one of its lines, chained anew, and a line after it."""
    show(log, 30, 31, 32)
    show(log, 33)
    *before, one, two, three, last = log.lines
    batch = [one, two, three]
    del batch[at]
    text = log.file.read_bytes().split(b"\n")[: len(before)]
    previous = before[-1].digest
    for line in (*batch, last):
        content = dict(line.content)
        if line is not last:
            content["batch"] = list(line.batch)
        text.append(format_line(previous, line.kind, line.time, content))
        previous = hashlib.sha256(text[-1]).hexdigest()
    log.file.write_bytes(b"\n".join([*text, b""]))
    with pytest.raises(InputError, match=r"line 2[234] is none that .* cannot be line"):
        ReviewLog(log.folder).refresh()


def test_an_edit_while_it_is_open_is_noticed(log: ReviewLog) -> None:
    log.file.write_bytes(log.file.read_bytes()[:-30])
    with pytest.raises(InputError, match="was changed since"):
        show(log, 21)


def test_writers_side_by_side_lose_nothing(tmp_path: Path) -> None:
    logs = [ReviewLog(tmp_path / "review") for _ in range(3)]

    def write(log: ReviewLog) -> None:
        for n in range(10):
            show(log, n, n)

    threads = [Thread(target=write, args=[log]) for log in (*logs, logs[0])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ReviewLog(tmp_path / "review").refresh()) == 80


def decision(number: int, answer: str = "yes") -> Decision:
    return Decision(f"{number:064x}", answer, "=Ann", score=0.5, group=f"{number:064x}", position=1)


def test_decisions_stand_in_the_csv_at_once(log: ReviewLog) -> None:
    file = DecisionFile(log)
    file.append([decision(1), decision(2)])
    file.append([decision(1, "")], WITHDRAWAL)
    header, *rows = file.file.read_text().splitlines()
    assert header == "image,answer,reviewer,time,part,score,group,position,shown,id"
    assert [row.split(",")[:3] for row in rows] == [
        [f"{1:064x}", "yes", "'=Ann"],
        [f"{2:064x}", "yes", "'=Ann"],
        [f"{1:064x}", "", "'=Ann"],
    ]


@pytest.mark.parametrize("left", [0, 20, 200])
def test_a_csv_that_a_kill_left_short_is_completed(log: ReviewLog, left: int) -> None:
    DecisionFile(log).append([decision(1), decision(2)])
    whole = (log.folder / FILE).read_bytes()
    (log.folder / FILE).write_bytes(whole[:left])
    again = ReviewLog(log.folder)
    DecisionFile(again).append([decision(3)])
    found = (log.folder / FILE).read_bytes()
    assert found.startswith(whole)
    assert found.count(b"\n") == 4


def test_a_csv_that_was_edited_is_named(log: ReviewLog) -> None:
    file = DecisionFile(log)
    file.append([decision(1), decision(2)])
    file.file.write_text(file.file.read_text().replace("yes", "no", 1))
    for attempt in (file.check, lambda: file.append([decision(3)])):
        with pytest.raises(InputError, match=r"decisions.csv: line 2 is not what the log says"):
            attempt()
    assert len(ReviewLog(log.folder).refresh()) == 23


@pytest.mark.proves("review")
@pytest.mark.parametrize("left", [0, 21, 23])
def test_a_log_that_holds_less_than_the_csv_has_lost_lines(log: ReviewLog, left: int) -> None:
    file = DecisionFile(log)
    for number in range(4):
        file.append([decision(number)])
    before = file.file.read_bytes()
    log.file.write_bytes(b"".join(log.file.read_bytes().splitlines(keepends=True)[:left]))
    again = ReviewLog(log.folder)
    again.refresh()
    lacking = 4 - max(left - 21, 0)
    for attempt in (
        DecisionFile(again).check,
        lambda: DecisionFile(again).append([decision(5)]),
    ):
        with pytest.raises(InputError, match=f"log lacks {lacking} decisions that dec") as refused:
            attempt()
        assert "away" not in str(refused.value)
    assert file.file.read_bytes() == before


def test_a_csv_edited_as_well_is_still_the_only_witness_of_lost_lines(log: ReviewLog) -> None:
    file = DecisionFile(log)
    for number in range(3):
        file.append([decision(number)])
    file.file.write_text(file.file.read_text().replace("yes", "no", 1))
    log.file.write_bytes(b"".join(log.file.read_bytes().splitlines(keepends=True)[:-1]))
    again = ReviewLog(log.folder)
    again.refresh()
    with pytest.raises(InputError, match=r"the log lacks 1 decision that decisions\.csv has"):
        DecisionFile(again).check()
