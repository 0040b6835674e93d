"""A second reader of CSV, written from the format's rules, to compare the real one with."""


class NotCsvError(Exception):
    """A quote that is never closed, or text behind a closing quote."""


def parse(text: str, separator: str) -> list[list[str]]:
    """The cells of every line that is not blank; line ends are \\n, \\r\\n and \\r."""
    lines: list[list[str]] = []
    at = 0
    while at < len(text):
        if text[at] in "\r\n":
            at += 1
            continue
        cells, at = _line(text, at, separator)
        lines.append(cells)
    return lines


def _line(text: str, at: int, separator: str) -> tuple[list[str], int]:
    cells = []
    while True:
        cell, at = _quoted(text, at) if text[at : at + 1] == '"' else _plain(text, at, separator)
        cells.append(cell)
        end = text[at : at + 1]
        if end == separator:
            at += 1
            continue
        if end not in ("", "\r", "\n"):
            raise NotCsvError(f"{end!r} behind a quoted cell")
        return cells, at + (2 if text.startswith("\r\n", at) else 1)


def _plain(text: str, at: int, separator: str) -> tuple[str, int]:
    end = at
    while end < len(text) and text[end] not in f"{separator}\r\n":
        end += 1
    return text[at:end], end


def _quoted(text: str, at: int) -> tuple[str, int]:
    cell = ""
    while True:
        end = text.find('"', at + 1)
        if end < 0:
            raise NotCsvError("a quote is never closed")
        cell += text[at + 1 : end]
        if not text.startswith('""', end):
            return cell, end + 1
        cell += '"'
        at = end + 1
