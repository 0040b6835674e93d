"""`thumbnails` of [embed]: none are written where none are asked for, and nothing else changes."""

import json
from pathlib import Path

from click.testing import CliRunner

from archiveprobe.cli import main
from archiveprobe.task.config import load_task
from archiveprobe.task.decoding import Observation
from archiveprobe.task.manifest import read_manifest


def answer(*words: str) -> str:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, result.stderr
    return result.stdout


def observed(folder: Path) -> list[Observation | None]:
    entries = read_manifest(load_task(folder / "task.toml"))
    return [entry.observed for entry in entries]


def test_without_thumbnails_all_else_is_as_with_them(tmp_path, draw) -> None:
    for number in range(6):
        file = tmp_path / "images" / ("no", "yes")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(number, 300, 280).save(file)
    settings = 'name = "few"\nlabels = ["no", "yes"]\npositive = "yes"\n[embed]\nviews = "center"\n'
    (tmp_path / "task.toml").write_text(settings + "thumbnails = false\n")
    embed = ("embed", str(tmp_path), "--workers", "0", "--json")
    assert json.loads(answer(*embed))["embedded"] == 6
    assert not (tmp_path / "work" / "thumbs").exists()
    before = observed(tmp_path)
    assert json.loads(answer(*embed, "--dry-run"))["to_decode"] == 0
    page = tmp_path / "page.html"
    answer("look", str(tmp_path), "-o", str(page))
    assert page.read_text().count("UklGR") == 6

    # Asked for later, they are made, and no row is computed again.
    (tmp_path / "task.toml").write_text(settings)
    assert json.loads(answer(*embed))["reused"] == 6
    assert len(list((tmp_path / "work" / "thumbs").glob("??/*.jpg"))) == 6
    assert observed(tmp_path) == before
