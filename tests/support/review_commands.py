"""`review` as people run it, and its tables."""

import csv
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from archiveprobe.cli import main
from archiveprobe.task.config import Task


def run(task: Task, *words: Any) -> Result:
    return CliRunner().invoke(main, ["review", str(task.folder), *map(str, words)])


def fault(task: Task, *words: Any) -> str:
    done = run(task, *words)
    assert (done.exit_code, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write(file: Path, rows: list[dict[str, str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return file


def exported(task: Task, file: Path, *words: Any) -> list[dict[str, str]]:
    done = run(task, "--export", file, "--reviewer", "Ann", *words)
    assert done.exit_code == 0, done.output
    return read(file)


def read_for(task: Task, file: Path, reviewer: str) -> list[dict[str, str]]:
    done = run(task, "--export", file, "--reviewer", reviewer)
    assert done.exit_code == 0, done.output
    return read(file)
