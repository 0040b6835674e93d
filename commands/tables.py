"""Results as aligned tables; on a terminal that is too narrow the longest text columns wrap."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

_GAP = "  "


def table(lines: Iterable[Mapping[str, Any]], width: int | None) -> Iterator[str]:
    """Lay out lines under their keys, "-" where a line has none; nothing for no lines.

    Where the table is wider than `width` characters, cells wrap at words. No word is cut, so that
    an identifier or a number is never lost: a table of long ones stays wider. None: never wrapped,
    as for another program.
    """
    given = list(lines)
    keys = list(dict.fromkeys(key for line in given for key in line))
    if not keys:
        return
    cells = [{key: _cell(line.get(key)) for key in keys} for line in given]
    rows = [{key: key for key in keys}, *cells]
    widths = {key: max(len(row[key]) for row in rows) for key in keys}
    if width is not None:
        _narrow(widths, rows, width)
    for row in rows:
        wrapped = (_wrap(row[key], widths[key]) for key in widths)
        for parts in zip_longest(*wrapped, fillvalue=""):
            padded = (part.ljust(size) for part, size in zip(parts, widths.values(), strict=True))
            yield _GAP.join(padded).rstrip()


def _narrow(widths: dict[str, int], rows: list[dict[str, str]], width: int) -> None:
    """Narrow the widest columns, to their longest word at most, until all fit; figures last."""
    longest = {
        key: max((len(word) for row in rows for word in row[key].split()), default=0)
        for key in widths
    }
    figures = {key: all(row[key][:1].isdigit() for row in rows[1:]) for key in widths}
    for key in sorted(widths, key=lambda key: (figures[key], -widths[key])):
        excess = sum(widths.values()) + len(_GAP) * (len(widths) - 1) - width
        if excess > 0:
            widths[key] = max(longest[key], widths[key] - excess)


def _wrap(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # A label or a path may hold a line end.
    return "-" if value is None else " ".join(str(value).splitlines())
