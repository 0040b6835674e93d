from archiveprobe.base.wording import first_few, quote_few


def test_long_lists_are_shortened_with_a_count() -> None:
    assert first_few([]) == ""
    assert first_few("abc") == "a, b, c"
    assert first_few(iter("abcde"), 2) == "a, b and 3 more"
    assert quote_few("abcd") == "'a', 'b', 'c' and 1 more"
