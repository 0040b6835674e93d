"""What the benchmarks share: figures with their targets, a table, a JSON file, and commands."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from archiveprobe.base.cores import usable_cores
from archiveprobe.commands.terminal import print_result

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "from archiveprobe.cli import main; main()"
Result = TypeVar("Result")


@dataclass(frozen=True)
class Figure:
    """One measured value, in `unit`; `met` is None where no target is set."""

    name: str
    value: Any
    unit: str = ""
    target: str = ""
    met: bool | None = None


def at_most(name: str, value: float, limit: float, unit: str = "") -> Figure:
    """Return a figure that should not exceed `limit`."""
    return Figure(name, value, unit, f"<= {limit:g}", value <= limit)


def at_least(name: str, value: float, limit: float, unit: str = "") -> Figure:
    """Return a figure that should not fall below `limit`."""
    return Figure(name, value, unit, f">= {limit:g}", value >= limit)


def exactly(name: str, value: Any, wanted: Any, unit: str = "") -> Figure:
    """Return a figure that should be `wanted`."""
    return Figure(name, value, unit, f"{wanted}", value == wanted)


def arguments(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser that knows where the benchmark `name` leaves its figures."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, default=ROOT / "bench-results" / f"{name}.json")
    return parser


def report(file: Path, figures: Sequence[Figure], load_before: float) -> None:
    """Print the figures as a table, and write them to `file` with what the machine was."""
    lines = [asdict(figure) for figure in figures]
    machine = {"cores": cores(), "load_before": load_before, "load_after": load()}
    shown = [{**line, "met": "" if line["met"] is None else line["met"]} for line in lines]
    print_result({}, shown, as_json=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    record = {"benchmark": file.stem, "machine": machine, "figures": lines}
    file.write_text(json.dumps(record, indent=2) + "\n")


def cores() -> int:
    """Return the cores that this process may use."""
    return usable_cores()


def load() -> float:
    """Return how many processes wanted a core in the last minute, on average."""
    return round(os.getloadavg()[0], 2)


def timed(action: Callable[[], Result]) -> tuple[Result, float]:
    """Return a result and the seconds it took."""
    started = time.perf_counter()
    result = action()
    return result, time.perf_counter() - started


def run(*words: str | Path, program: Sequence[str] = ("-c", COMMAND)) -> tuple[Any, float]:
    """Run a command: the JSON on its stdout (None where there is none), its wall seconds.

    The time includes the start of the process. Ends the benchmark when the command fails.
    """
    command = [sys.executable, *program, *map(str, words)]
    done, seconds = timed(
        lambda: subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))} failed: {done.stderr}")
    return json.loads(done.stdout) if done.stdout.startswith("{") else None, seconds
