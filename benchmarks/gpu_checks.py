"""Everything that needs a GPU to be known, as one command: rates, agreement, faults, training.

    .venv/bin/python benchmarks/gpu_checks.py [--part N]... [--check NAME]... [--seconds S]
    .venv/bin/python benchmarks/gpu_checks.py --device cpu --tiny      walks through on a CPU

Every check is a process of its own with a limit of time, so a fault of CUDA that sticks costs that
check only. A check that no longer fits into --seconds is left out, and the report says so. Random
weights: no network is asked. Figures go to a JSON file, and as a table with date, card and versions
to a Markdown file beside it, in the form of docs/gpu.md. Each part takes up to ten minutes.
"""

import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import arguments, cores
from gpu.checks import CHECKS, Check
from gpu.work import attempt

BENCHMARKS = Path(__file__).resolve().parent
_VERSIONS = ("torch", "torchvision", "timm", "open_clip_torch", "pillow", "simplejpeg")
_LEAST_SECONDS = 20.0


@dataclass(frozen=True)
class Outcome:
    """What became of a check: "ended", "failed", "too long" or "left out", and its figures."""

    check: str
    outcome: str
    seconds: float = 0.0
    detail: str = ""
    figures: list[dict[str, Any]] = field(default_factory=list)


def main(words: list[str] | None = None) -> None:
    """Run the checks that are asked for; the exit status is 1 if one of them did not end."""
    parser = arguments(__doc__, "gpu_checks")
    parts = sorted({check.part for check in CHECKS})
    parser.add_argument("--part", type=int, action="append", choices=parts)
    parser.add_argument("--check", action="append", choices=[check.name for check in CHECKS])
    parser.add_argument("--seconds", type=float, default=math.inf, help="for all checks together")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(words)
    chosen = [
        check
        for check in CHECKS
        if (not options.part or check.part in options.part)
        and (not options.check or check.name in options.check)
    ]
    record: dict[str, Any] = {"benchmark": "gpu_checks", "machine": machine(), "checks": []}
    until = time.monotonic() + options.seconds
    for outcome in outcomes(chosen, options.device, until, tiny=options.tiny):
        met = [figure["met"] for figure in outcome.figures if figure["met"] is not None]
        print(
            f"{outcome.check}: {outcome.outcome}, {outcome.seconds:.0f} s, "
            f"{sum(met)} of {len(met)} targets met {outcome.detail}".rstrip(),
            flush=True,
        )
        record["checks"].append(asdict(outcome))
        # Written after every check: this command may be stopped at any time itself.
        write(options.json, record)
    sys.exit(any(each["outcome"] in ("failed", "too long") for each in record["checks"]))


def outcomes(
    checks: Sequence[Check], device: str, until: float, *, tiny: bool
) -> Iterator[Outcome]:
    """Run checks one after the other until the time is over."""
    for check in checks:
        left = until - time.monotonic()
        if left < _LEAST_SECONDS:
            yield Outcome(check.name, "left out", detail="no time was left")
        else:
            yield outcome_of(check, device, min(check.limit, left), tiny=tiny)


def outcome_of(check: Check, device: str, limit: float, *, tiny: bool) -> Outcome:
    """Run one check in a process of its own."""
    module, *words = check.command(device, tiny=tiny)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        environment = {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *filter(None, sys.path)])}
        done = attempt(
            *words, "--json", file, limit=limit, program=("-m", module),
            prefix=("env", *(f"{name}={value}" for name, value in environment.items())),
        )  # fmt: skip
        figures = json.loads(file.read_text())["figures"] if file.exists() else []
    kind = {0: "ended", None: "too long"}.get(done.status, "failed")
    detail = "" if kind == "ended" else f"(limit {limit:.0f} s) {done.last_line}"
    return Outcome(check.name, kind, round(done.seconds, 1), detail, figures)


def machine() -> dict[str, Any]:
    """Return date, card, driver, cores and versions."""
    import torch

    asked = "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"
    try:
        told = subprocess.run(("nvidia-smi", *asked), capture_output=True, text=True, check=True)
        cards = told.stdout.strip().splitlines()
    except (OSError, subprocess.CalledProcessError):
        cards = []
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cards": cards,
        "cores": cores(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        **{name: version(name) for name in _VERSIONS},
    }


def write(file: Path, record: Mapping[str, Any]) -> None:
    """Write the record as JSON, and as a table beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=2) + "\n")
    file.with_suffix(".md").write_text("\n".join(markdown(record)) + "\n")


def markdown(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the report, in the form of docs/gpu.md."""
    about = dict(record["machine"])
    cards = ", ".join(about.pop("cards")) or "no GPU"
    versions = ", ".join(f"{name} {value}" for name, value in about.items() if name != "date")
    yield f"{about['date']}: {cards}; {versions}."
    yield ""
    yield "| check | figure | value | target | |"
    yield "|---|---|---|---|---|"
    for check in record["checks"]:
        if check["outcome"] != "ended":
            yield f"| {check['check']} | {check['outcome']} | {escaped(check['detail'])} | | |"
        for figure in check["figures"]:
            met = {True: "met", False: "**missed**", None: ""}[figure["met"]]
            value = escaped(f"{figure['value']} {figure['unit']}".strip())
            name, target = escaped(figure["name"]), escaped(figure["target"])
            yield f"| {check['check']} | {name} | {value} | {target} | {met} |"


def escaped(text: str) -> str:
    """Return text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
