"""Messages parted into what is missing and the command that brings it."""

import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.look.collect.missing import in_order, missing_of
from archiveprobe.look.collect.parts import Missing


@pytest.mark.parametrize(
    ("message", "what", "command"),
    [
        (
            "ridge-hog is out of date (labels changed since): run `archiveprobe probe t.toml`",
            "ridge-hog is out of date (labels changed since)",
            "archiveprobe probe t.toml",
        ),
        (
            "the cache c, which the last embed used, is gone: bring it back, or run "
            "`archiveprobe embed t.toml`",
            "the cache c, which the last embed used, is gone",
            "archiveprobe embed t.toml",
        ),
        ("r is damaged\n(no JSON): run that system again", "r is damaged (no JSON)", "otherwise"),
        ("", "", "otherwise"),
    ],
)
def test_a_message_is_parted(message: str, what: str, command: str) -> None:
    assert missing_of(InputError(message), "otherwise") == Missing(what, command)


def test_what_goes_before() -> None:
    assert missing_of(InputError("x"), what="no audit") == Missing("no audit: x", "")


def test_each_command_stands_once_and_first_what_others_need() -> None:
    gaps = [
        Missing("no cause", ""),
        Missing("greedy is out of date", "archiveprobe ensemble TASK --method greedy"),
        Missing("knn is out of date", "archiveprobe probe TASK"),
        Missing("lda is out of date", "archiveprobe probe 'a b.toml'"),
        Missing("lda is out of date", "archiveprobe probe TASK"),
        Missing("no cache", "archiveprobe embed TASK"),
        Missing("no figures", "archiveprobe look TASK"),
    ]
    assert in_order(gaps, "a b.toml") == [
        Missing("no cache", "archiveprobe embed 'a b.toml'"),
        Missing("knn is out of date; lda is out of date", "archiveprobe probe 'a b.toml'"),
        Missing("greedy is out of date", "archiveprobe ensemble 'a b.toml' --method greedy"),
        Missing("no figures", "archiveprobe look 'a b.toml'"),
        Missing("no cause", ""),
    ]
