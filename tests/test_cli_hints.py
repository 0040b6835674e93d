"""Commands that messages tell can be copied as they are, whatever folders are called."""

import re
import shlex
from pathlib import Path

import pytest
from stripes import done, draw_stripes, quick, run, write_csv

FOLDER = "my archive (1)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Draw 24 labelled images and two to predict, in a folder whose name a shell would cut."""
    folder = tmp_path / FOLDER
    rows = [["image", "label"]]
    for number in range(26):
        label = draw_stripes(folder / "images" / f"{number}.png", number)
        rows.append([f"{number}.png", label if number < 24 else ""])
    write_csv(folder / "labels.csv", rows)
    return folder


def told(text: str) -> list[list[str]]:
    """Return the words of every command that messages tell."""
    commands = re.findall(r"`(archiveprobe [^`]*)`|then: (archiveprobe .*)", text)
    return [shlex.split(quoted or plain) for quoted, plain in commands]


def test_a_path_with_blanks_is_quoted(folder: Path) -> None:
    said = quick(folder)[1] + run("probe", folder).stderr
    done("embed", folder)
    said += run("submit", folder, "--system", "none", "-o", "answers.csv").stderr
    said += done("probe", folder, "--probe", "ridge").stderr
    commands = told(said)
    assert [words[1] for words in commands] == ["embed", "embed", "list", "submit"]
    for words in commands:
        [place] = [word for word in words if FOLDER in word]
        assert Path(place).exists()
