"""Words that every message shares."""

from collections.abc import Iterable


def first_few(names: Iterable[str], shown: int = 3) -> str:
    """List the first few of some names, and how many more there are: "a, b, c and 4 more"."""
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return ", ".join(listed[:shown]) + more


def quote_few(names: Iterable[str]) -> str:
    """List the first few of some names, quoted."""
    return first_few(map(repr, names))


def clipped(text: str, most: int = 60) -> str:
    """Quote a text of any length, shortened to `most` characters."""
    return repr(text if len(text) <= most else text[: most - 3] + "...")
