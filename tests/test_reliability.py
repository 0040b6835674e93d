"""RELIABILITY.md is what the marks on the tests say, and every promise has proofs."""

import pytest
from promises import PAGE, PROMISES, marked_tests, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make reliability`"


@pytest.mark.parametrize("group", PROMISES)
def test_a_promise_has_proofs(group: str) -> None:
    assert sum(marked == group for marked, _ in marked_tests()) >= 2


def test_marks_name_promises() -> None:
    assert {group for group, _ in marked_tests()} == set(PROMISES)
