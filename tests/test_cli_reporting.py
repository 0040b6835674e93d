"""The options that every command takes: --quiet, --verbose, --log-file, --debug."""

import re
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture
def task(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in ("intact", "ruin"):
        (tmp_path / label).mkdir()
        for number in range(4):
            pixels = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    (tmp_path / "ruin" / "broken.jpg").write_bytes(b"<html>not found</html>")
    assert run("init", tmp_path).exit_code == 0
    return tmp_path


def every_command(
    group: click.Group = cli.main, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*prefix, name)
        if isinstance(command, click.Group):
            yield from every_command(command, (*prefix, name))


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_every_command_takes_the_shared_options_before_and_after_its_name(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    shared = ("-q", "-v", "--quiet", "--verbose", "--debug", "--log-file", tmp_path / "run.log")
    assert run(*words, *shared, "-h").exit_code == 0
    assert run(*shared, *words, "-h").exit_code == 0


def test_the_help_of_the_whole_names_them() -> None:
    shown = run("-h").stdout
    for option in ("-q, --quiet", "-v, --verbose", "--log-file FILE", "--debug"):
        assert option in shown


def test_quiet_leaves_the_result_and_the_errors(task: Path) -> None:
    loud = run("embed", task, "--workers", "0")
    assert "html_not_image" in loud.stderr
    quiet = run("embed", task, "--workers", "0", "-q")
    assert quiet.stderr == ""
    assert quiet.stdout == loud.stdout.replace("8 embedded, 0 reused", "0 embedded, 8 reused")
    assert run("-q", "embed", task / "absent").stderr.startswith("error: no task file")


def test_verbose_shows_the_stages(task: Path) -> None:
    assert "reading: 9 of 9 in" not in run("embed", task, "--workers", "0").stderr
    shown = run("embed", task, "--workers", "0", "-v").stderr
    assert "reading: 9 of 9 in" in shown
    assert shown.splitlines()[-1].startswith("embed: done in ")


def test_a_log_file_holds_messages_faults_and_wrong_usage(task: Path, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    run("embed", task, "--workers", "0", "--log-file", log)
    run("--log-file", log, "embed", task, "--views", "crop6")
    wrong = run("embed", task, "--log-file", log, "--batch-size", "0")
    assert wrong.exit_code == 2
    assert wrong.stderr.count("--batch-size") == 1
    lines = [line[20:] for line in log.read_text("utf-8").splitlines()]
    assert any("html_not_image" in line for line in lines)
    assert any(line.startswith("error: unknown views 'crop6'") for line in lines)
    assert lines[-1].startswith("error: Invalid value for '--batch-size'")


def test_a_log_is_never_appended_to_the_table(task: Path) -> None:
    before = (task / "task.toml").read_bytes()
    result = run("embed", task, "--log-file", task / "task.toml")
    assert result.exit_code == 1
    assert "is no log file" in result.stderr
    assert (task / "task.toml").read_bytes() == before


def test_the_guide_names_every_shared_option_and_exit_status() -> None:
    guide = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text("utf-8")
    shared = {option for words in every_command() for option in shared_options(words)}
    assert {"--quiet", "-v", "--log-file", "--debug"} <= shared
    for option in shared:
        assert f"`{option}" in guide
    for status in (0, 1, 2, *(128 + number for number in (SIGINT, SIGTERM, SIGHUP))):
        assert re.search(rf"^\|.*\b{status}\b", guide, re.MULTILINE), status


def shared_options(words: tuple[str, ...]) -> set[str]:
    command: click.Command = cli.main
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    shown = command.get_params(click.Context(command))
    return {name for option in shown if option not in command.params for name in option.opts} - {
        "-h",
        "--help",
    }
