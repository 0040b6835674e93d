"""The documents: links lead somewhere, named files hold what is said of them, commands exist."""

import re
import shlex
from collections.abc import Iterator
from itertools import dropwhile, takewhile
from pathlib import Path

import click
import pytest

from archiveprobe.cli import main

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#([^)\s]+))?\)")
SOURCE = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.py)`")
DEFINED = re.compile(r"`([A-Z_]{4,})`[^|]{0,60}? in `([a-z_/]+\.py)`")
NAME = "archiveprobe"


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the words of every command that a line of a document begins with."""
    for file in DOCUMENTS:
        for line in map(str.strip, file.read_text().splitlines()):
            if line.startswith(f"{NAME} ") and not line.startswith(f"{NAME} COMMAND"):
                words = shlex.shlex(line, posix=True, punctuation_chars=True)
                words.whitespace_split = True
                ended = takewhile(lambda word: not re.fullmatch("[|&;<>()]+", word), words)
                yield f"{file.name}: {line}", list(ended)[1:]


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    for name, anchor in LINK.findall(file.read_text()):
        target = file.parent / name
        assert target.exists(), name
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{name}#{anchor}"


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_files_that_are_named_are_there(file: Path) -> None:
    for name in SOURCE.findall(file.read_text()):
        assert (ROOT / name).is_file(), name


def test_the_tables_that_the_readme_names_are_defined_there() -> None:
    named = DEFINED.findall((ROOT / "README.md").read_text())
    assert len(named) >= 6
    for name, file in named:
        assert re.search(rf"^{name}\b.*=", (ROOT / file).read_text(), re.MULTILINE), (name, file)


def test_commands_have_the_options_that_the_documents_give_them() -> None:
    seen = 0
    for place, words in commands():
        words = list(dropwhile(lambda word: word in ("-q", "-v"), words))
        command: click.Command = main
        while isinstance(command, click.Group):
            assert words and words[0] in command.commands, place
            command, words = command.commands[words[0]], words[1:]
        with click.Context(command, **command.context_settings) as context:
            try:
                command.make_parser(context).parse_args(words)
            except click.UsageError as error:
                pytest.fail(f"{place}: {error.format_message()}")
        seen += 1
    assert seen > 90
