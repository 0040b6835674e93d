"""The walks of docs/walks print what they say they print."""

from pathlib import Path

import pytest
import walks


@pytest.mark.parametrize(
    "file", [pytest.param(file, id=file.stem) for file in sorted(walks.FOLDER.glob("*.md"))]
)
def test_a_walk_prints_what_it_records(file: Path, tmp_path: Path) -> None:
    text = file.read_text("utf-8")
    assert walks.commands(text)
    walks.prepare(text, tmp_path)
    now = walks.rewritten(text, walks.run(text, tmp_path))
    assert walks.comparable(now) == walks.comparable(text)
