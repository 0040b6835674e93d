"""Lines whose digests are right, and that archiveprobe has not written: each is named."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from reviewed import begin, review_all

from archiveprobe.base.errors import InputError
from archiveprobe.cli import main
from archiveprobe.review import decisions, drawing, lines, state
from archiveprobe.review.decisions import Decision
from archiveprobe.review.log import FIRST, ReviewLog, format_line, now
from archiveprobe.review.queue import Queue
from archiveprobe.review.reviewing import Reviewing
from archiveprobe.review.store import Review
from archiveprobe.task.config import Task


@pytest.fixture
def review(task: Task) -> Review:
    """A review with three looks, and one that was shown unblurred."""
    review = begin(task)
    shown = Queue(review).next("Ann", 1)[0].image
    Reviewing(Queue(review), "Ann").show([shown])
    review_all(Queue(review), "Ann", most=3)
    return review


def add(log: ReviewLog, line: bytes) -> None:
    with log.file.open("ab") as stream:
        stream.write(line + b"\n")


def raw(rest: bytes) -> bytes:
    return b'{"sha256": "%b", %b' % (hashlib.sha256(rest).hexdigest().encode(), rest)


def refused(task: Task, number: int) -> str:
    """Return the only line that the command says of a log with such a line."""
    done = CliRunner().invoke(main, ["review", str(task.folder), "--status"])
    assert (done.exit_code, done.stdout) == (1, ""), done.output
    [said] = done.stderr.splitlines()
    assert f"log.jsonl: line {number} is none that archiveprobe has written: " in said
    return said


NO_JSON = [
    b"garbage",
    b"",
    b"\xff\xfe}",
    b'"previous": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'"previous": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    b'"n": ' + b"9" * 10_000 + b"}",
    b'"kind": "decision"} 5',
    b"}",
]


@pytest.mark.proves("review")
def test_a_line_that_is_no_json_is_named(task: Task, review: Review) -> None:
    number, before = len(review.log.lines) + 1, review.log.file.read_bytes()
    for rest in NO_JSON:
        review.log.file.write_bytes(before + raw(rest) + b"\n")
        refused(task, number)


# Kind of the line that is changed -> what is changed in it; None takes a field out.
STRANGE: list[tuple[str, dict[str, Any]]] = [
    *(("decision", {name: None}) for name in ("kind", "time", "image", "answer", "reviewer")),
    *(("decision", {name: None}) for name in ("part", "previous")),
    ("decision", {"kind": "decisions"}),
    ("decision", {"kind": ["decision"]}),
    ("decision", {"kind": "stop"}),
    ("decision", {"time": "yesterday"}),
    ("decision", {"time": 5}),
    ("decision", {"part": "zzz"}),
    ("decision", {"part": ["queue"]}),
    ("decision", {"image": "zz"}),
    ("decision", {"image": 5}),
    ("decision", {"image": "0" * 64}),
    ("decision", {"reviewer": ["x"]}),
    ("decision", {"answer": "perhaps"}),
    ("decision", {"answer": ""}),
    ("decision", {"score": "high"}),
    ("decision", {"score": True}),
    ("decision", {"position": 1.5}),
    ("decision", {"shown": "from behind"}),
    ("decision", {"id": {}}),
    ("decision", {"batch": 1}),
    ("decision", {"batch": [0, 0]}),
    ("decision", {"batch": [2, 2]}),
    ("decision", {"batch": [1, 1, 1]}),
    ("unblurred", {"image": "0" * 64}),
    ("unblurred", {"image": None}),
    ("unblurred", {"reviewer": {"x": 1}}),
    ("opened", {}),
]


@pytest.mark.proves("review")
def test_a_strange_field_is_named(task: Task, review: Review) -> None:
    number, before = len(review.log.lines) + 1, review.log.file.read_bytes()
    for kind, changes in STRANGE:
        like = next(line for line in review.log.lines if line.kind == kind)
        record = {"previous": review.log.head, "kind": kind, "time": now(), **like.content}
        record |= changes
        kept = {name: value for name, value in record.items() if value is not None}
        review.log.file.write_bytes(before + raw(json.dumps(kept)[1:].encode()) + b"\n")
        refused(task, number)


DRAW = {
    "stop": 1,
    "seed": "1",
    "wish": {"size": 1},
    "expected_share": None,
    "strata": [{"size": 36, "drawn": 1, "lowest_score": 0.5}],
}


STRANGE_DRAWS: list[dict[str, Any]] = [
    {"images": []},
    {"images": "all"},
    {"images": ["zz"]},
    {"images": ["0" * 64]},
    {"strata": []},
    {"strata": [{"size": 36}]},
    {"strata": [{"size": 36, "drawn": 2, "lowest_score": None}]},
    {"strata": [{"size": 0, "drawn": 1, "lowest_score": None}]},
    {"strata": [{"size": 36, "drawn": 10**12, "lowest_score": None}]},
    {"wish": {}},
    {"wish": {"size": 1, "luck": 1.0}},
]


@pytest.mark.proves("review")
def test_a_strange_draw_is_named(task: Task, review: Review) -> None:
    Reviewing(Queue(review), "Ann").stop()
    number, before = len(review.log.lines) + 1, review.log.file.read_bytes()
    for changes in STRANGE_DRAWS:
        content = {**DRAW, "images": [review.population.digest(0)], **changes}
        line = format_line(review.log.head, "draw", now(), content)
        review.log.file.write_bytes(before + line + b"\n")
        refused(task, number)


@pytest.mark.proves("review")
def test_a_draw_from_strata_that_nobody_has_is_no_certificate(task: Task, review: Review) -> None:
    Reviewing(Queue(review), "Ann").stop()
    image = review.population.digest(0)
    nobody = [{"size": 10**6, "drawn": 0, "lowest_score": None}]
    strata = [*nobody, {"size": 10**6, "drawn": 1, "lowest_score": None}]
    review.log.append("draw", [{**DRAW, "strata": strata, "images": [image]}])
    done = CliRunner().invoke(main, ["certify", str(task.folder)])
    assert (done.exit_code, done.stdout) == (1, ""), done.output
    [said] = done.stderr.splitlines()
    assert "is not what its seed gives" in said


@pytest.mark.proves("review")
def test_a_draw_before_reviewing_has_stopped_is_named(task: Task, review: Review) -> None:
    content = {**DRAW, "images": [review.population.digest(0)]}
    number = len(review.log.lines) + 1
    add(review.log, format_line(review.log.head, "draw", now(), content))
    assert "only after reviewing has stopped" in refused(task, number)


@pytest.mark.proves("review")
def test_a_review_that_is_open_names_strange_lines_again_and_again(review: Review) -> None:
    queue = Queue(review)
    content = Decision("0" * 64, "dark", "Ann").content()
    add(review.log, format_line(review.log.head, "decision", now(), content))
    for _ in range(2):
        with pytest.raises(InputError, match="is no image of the review"):
            queue.next("Ann")
    assert "0" * 64 not in review.state.reviewed


def test_a_decision_before_the_review_is_opened_is_named(task: Task, review: Review) -> None:
    content = Decision(review.population.digest(0), "dark", "Ann").content()
    review.log.file.write_bytes(format_line(FIRST, "decision", now(), content) + b"\n")
    assert "opened once, before all else" in refused(task, 1)


def test_the_table_knows_every_kind_and_word() -> None:
    kinds = "OPENED SHOWN REFIT IMPORT STOP DRAWN RESUME CERTIFICATE ESTIMATE".split()
    known = {getattr(state, name) for name in kinds}
    assert known | {decisions.DECISION, decisions.WITHDRAWAL, "mended"} == lines.KINDS.keys()
    content = Decision("0" * 64, "dark", "Ann").content()
    frame = {"previous": FIRST, "kind": "decision", "time": now()}
    for part in (decisions.QUEUE, decisions.TWICE, decisions.SETTLE, decisions.DRAW):
        assert lines.fault_of({**frame, **content, "part": part}) is None
    for shown in ("BLURRED", "UNBLURRED", "BY_GROUP", "BY_FILE"):
        record = {**frame, **content, "shown": getattr(decisions, shown)}
        assert lines.fault_of(record) is None


def test_the_table_knows_every_wish_of_a_draw() -> None:
    wish = drawing.DrawWish(1)
    record = {"previous": FIRST, "kind": "draw", "time": now(), **DRAW, "images": ["0" * 64]}
    assert lines.fault_of({**record, "wish": vars(wish)}) is None


def test_nothing_is_written_that_nobody_could_read(tmp_path: Path) -> None:
    log = ReviewLog(tmp_path / "review")
    with pytest.raises(ValueError, match="nobody could read this line"):
        log.append("decision", [{"image": "zz"}])
    assert not log.file.exists()
