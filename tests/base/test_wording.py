import os
import pwd

import pytest

from archiveprobe.base.wording import (
    duration,
    file_size,
    first_few,
    number_of,
    one_line,
    quote_few,
    user_name,
)


def test_long_lists_are_shortened_with_a_count() -> None:
    assert first_few([]) == ""
    assert first_few("abc") == "a, b, c"
    assert first_few(iter("abcde"), 2) == "a, b and 3 more"
    assert quote_few("abcd") == "'a', 'b', 'c' and 1 more"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (260, "4 min 20 s"),
        (11_520, "3 h 12 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1234, "1.2 kB"),
        (35_400_000, "35 MB"),
        (999_600, "1.0 MB"),
        (2e15, "2000 TB"),
    ],
)
def test_a_file_size_has_one_unit(count: int, text: str) -> None:
    assert file_size(count) == text


def test_what_a_library_says_is_one_short_line() -> None:
    assert one_line(ValueError("no\n  such\tlayer ")) == "no such layer"
    assert one_line("word " * 100, 9) == "word word"


def test_counted():
    assert [number_of(n, "row") for n in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]


def test_a_user_whom_the_system_does_not_know_has_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert user_name() == f"user {os.getuid()}"
