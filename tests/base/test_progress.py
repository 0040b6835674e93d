"""A count says what is done, how fast, and how long the rest takes."""

import pytest

from archiveprobe.base.progress import Count


def test_a_line_gives_done_total_share_rate_and_time_left() -> None:
    count = Count("embedding", total=400, start=10.0, done=100)
    assert count.line(now=60.0) == "embedding: 100 of 400 (25%), 2.0/s, 2 min 30 s left"


def test_slow_work_is_counted_per_minute() -> None:
    count = Count("demo-tiny", total=4, start=0.0, done=1)
    assert count.line(now=120.0) == "demo-tiny: 1 of 4 (25%), 0.5/min, 6 min left"


@pytest.mark.parametrize("total", [0, 7])
def test_nothing_is_known_before_the_first_one_is_done(total: int) -> None:
    assert "unknown time left" in Count("reading", total, start=0.0).line(now=60.0)


def test_the_last_line_gives_the_whole_time() -> None:
    count = Count("reading", total=9000, start=0.0, done=9000)
    assert count.last_line(now=75.0) == "reading: 9000 of 9000 in 1 min 15 s, 120/s"


def test_a_count_without_a_known_total_says_what_is_done() -> None:
    count = Count("images listed", total=0, start=0.0, done=9000)
    assert count.line(now=75.0) == "images listed: 9000, 120/s, unknown time left"
    assert count.last_line(now=75.0) == "images listed: 9000 in 1 min 15 s, 120/s"
