"""Tables fit a terminal: they wrap there, cut nothing, and are short where they go to a pipe."""

import json
import re
from pathlib import Path

import click.testing
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli
from archiveprobe.commands.tables import table
from archiveprobe.embed.dry_run import Estimate, JobEstimate

LINES = [
    {"name": "first-of-a-long-name", "rows": 1200, "state": "out of date: the labels, the folds"},
    {"name": "second", "rows": 7, "state": "ok"},
]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streets")
    rng = np.random.default_rng(0)
    for label, stripes in (("intact", 1), ("ruin", 6)):
        (folder / label).mkdir()
        for number in range(12):
            lines = np.arange(48) // stripes % 2 * 99
            pixels = np.tile(lines, (48, 1))[..., None] + rng.integers(0, 90, (48, 48, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number}.png")
    (folder / "ruin" / "broken.jpg").write_bytes(b"<html>not found</html>")
    assert run("init", folder).exit_code == 0
    settings = (folder / "task.toml").read_text("utf-8")
    (folder / "task.toml").write_text(settings.replace("repeats = 5", "repeats = 1"), "utf-8")
    assert run("embed", folder, "--workers", "0").exit_code == 0
    assert run("probe", folder, "--probe", "ridge").exit_code == 0
    return folder


def test_a_pipe_gets_every_line_in_one_piece() -> None:
    assert list(table(LINES, None)) == [
        "name                  rows  state",
        "first-of-a-long-name  1200  out of date: the labels, the folds",
        "second                7     ok",
    ]


def test_a_narrow_terminal_wraps_the_text_and_cuts_no_name() -> None:
    assert list(table(LINES, 48)) == [
        "name                  rows  state",
        "first-of-a-long-name  1200  out of date: the",
        "                            labels, the folds",
        "second                7     ok",
    ]
    # Nothing is left to wrap: what cannot be narrower is whole.
    narrow = list(table(LINES, 10))
    assert "first-of-a-long-name" in " ".join(narrow)
    words = " ".join(narrow).split()
    assert [word for word in words if word in LINES[0]["state"].split()] == (
        LINES[0]["state"].split()
    )


def test_text_wraps_before_figures_do() -> None:
    lines = [{"score": "0.82 [0.77, 0.87]", "state": "ok but old"}]
    assert list(table(lines, 24)) == [
        "score              state",
        "0.82 [0.77, 0.87]  ok",
        "                   but",
        "                   old",
    ]


def test_lines_of_other_keys_and_names_with_line_ends_stay_in_their_columns() -> None:
    assert list(table([{"a": 1}, {"a": "x\ny", "b": True}, {"b": None}], None)) == [
        "a    b",
        "1    -",
        "x y  yes",
        "-    -",
    ]
    assert list(table([], 80)) == []


@pytest.mark.parametrize(
    "words",
    [
        *(["list", name] for name in ("backbones", "views", "probes", "recipes", "metrics")),
        ["list", "systems", "{task}"],
        ["cache", "show", "{task}"],
        ["cache", "verify", "{task}"],
        ["embed", "{task}", "--workers", "0"],
        ["embed", "{task}", "--dry-run"],
        ["embed", "{task}", "--dry-run", "--views", "center"],
        ["audit", "{task}"],
        ["threshold", "{task}", "--system", "ridge-hog", "--set", "0.5"],
    ],
    ids=lambda words: " ".join(words),
)
def test_tables_have_at_most_80_columns(task: Path, words: list[str]) -> None:
    result = run(*(word.format(task=task) for word in words))
    assert result.exit_code == 0
    for line in result.stdout.splitlines():
        # A sentence goes to a pipe in one piece.
        assert len(line) <= 80 or "  " not in line, line


def test_a_terminal_of_40_columns_gets_nothing_wider(
    task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = run("list", "probes").stdout
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(click.testing._NamedTextIOWrapper, "isatty", lambda _: True)
    shown = run("list", "probes").stdout
    assert max(map(len, shown.splitlines())) <= 40
    assert sorted(shown.split()) == sorted(wide.split())
    spoken = run("embed", task / "absent").stderr
    assert len(spoken.splitlines()) > 1
    assert all(len(line) <= 40 or " " not in line for line in spoken.splitlines())


def test_a_dry_run_adds_up_what_it_shows(task: Path) -> None:
    estimate = Estimate(
        images=400,
        to_decode=394,
        backbones=[
            JobEstimate("clip-vit-b32", 394, "MISSING: to be downloaded", 2_451_468, 344.4),
            JobEstimate("hog", 0, "not needed", 0, 0.0),
            JobEstimate("clip-vit-b32-text", 12, "MISSING: to be downloaded", 12_924, 9.4),
        ],
        thumbnail_bytes=6_000_000,
        decoding_seconds=21.4,
        bytes=8_464_392,
        free_bytes=67 * 10**9,
        seconds=375.2,
    )
    shown = [(line["step"], line["disk"], line["time"]) for line in estimate.lines()]
    assert shown == [
        ("decoding", "6.0 MB", "21 s"),
        ("clip-vit-b32", "2.5 MB", "5 min 44 s"),
        ("hog", "0 B", "0.0 s"),
        ("clip-vit-b32-text", "13 kB", "9.0 s"),
        ("in all", "8.5 MB", "6 min 14 s"),
    ]
    assert not re.search(r"\d{5,}", run("embed", task, "--dry-run", "--views", "center").stdout)
    record = json.loads(run("embed", task, "--dry-run", "--views", "flip", "--json").stdout)
    parts = [record["decoding_seconds"], *(job["seconds"] for job in record["backbones"])]
    assert record["seconds"] == pytest.approx(sum(parts))
    sizes = [record["thumbnail_bytes"], *(job["bytes"] for job in record["backbones"])]
    assert record["bytes"] == sum(sizes)


def test_an_export_tells_other_programs_what_it_wrote(task: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.h5"
    result = run("cache", "export", task, "-o", file, "--json")
    [line] = result.stdout.splitlines()
    assert json.loads(line) == {"file": str(file), "rows": 25, "remarks": [], "partial": None}


def test_random_weights_are_said(task: Path) -> None:
    own = '\n[backbone.tiny]\nlibrary = "timm"\nname = "test_resnet"\nweights = "random"\n'
    settings = (task / "task.toml").read_text("utf-8")
    try:
        (task / "task.toml").write_text(settings + own, "utf-8")
        embedded = run("embed", task, "--backbone", "hog", "--backbone", "tiny", "--workers", "0")
        for result in (embedded, run("cache", "show", task)):
            lines = {line.split("-")[0].split("/")[-1]: line for line in result.stdout.splitlines()}
            assert lines["tiny"].endswith("random")
            assert lines["hog"].endswith("-")
    finally:
        (task / "task.toml").write_text(settings, "utf-8")
