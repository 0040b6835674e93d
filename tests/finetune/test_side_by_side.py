"""Folds side by side: equal to the bit to one after the other; faults in one line."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from archiveprobe.finetune import side_by_side as module

Command = Callable[..., Result]


def side_by_side(run: Command, folder: Path, *words: str) -> Result:
    fixed = ("--recipe", folder / "quick.toml", "--workers", "0", "--fold", "all")
    return run("finetune", folder, *fixed, *(words or ("--devices", "cpu,cpu")))


def results(folder: Path) -> dict[str, Any]:
    found = {}
    for file in sorted((folder / "work/finetune/quick").glob("*/part.json")):
        record = json.loads(file.read_text())
        found[file.parent.name] = record["digests"], record["epoch"], record["history"]
    return found


@pytest.mark.proves("killed")
def test_folds_side_by_side_equal_those_one_after_the_other(
    embedded: Path, tuned: Path, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt loses a process in the middle, by a signal, and says so in one line."""
    folder = tmp_path / "archive"
    shutil.copytree(embedded, folder)
    real = module._start

    def doomed(share: module.Share) -> Any:
        receiver, process = real(share)
        if "fold-1" in share.names:
            os.kill(process.pid, signal.SIGKILL)
        return receiver, process

    with monkeypatch.context() as patched:
        patched.setattr(module, "_start", doomed)
        lost = side_by_side(run, folder)
    errors = [line for line in lost.stderr.splitlines() if line.startswith("error: ")]
    assert lost.exit_code == 1 and len(errors) == 1, lost.stderr
    assert "trains fold-1 on cpu has ended (-9)" in errors[0] and "Traceback" not in lost.stderr
    done = side_by_side(run, folder)
    assert done.exit_code == 0, done.stderr
    assert "folds side by side on cpu, cpu" in done.stderr
    assert "fold-1: trained before" in done.stderr
    assert results(folder) == results(tuned)
    again = side_by_side(run, folder)
    assert again.exit_code == 0 and "side by side" not in again.stderr
    # A fault of a child, as it said it.
    other = folder / "quick.toml"
    other.write_text(other.read_text() + "[optimizer]\nlr = 2e-3\n")
    refused = side_by_side(run, folder)
    assert refused.exit_code == 1 and "error: on cpu:" in refused.stderr
    assert "was trained otherwise" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--devices", "cpu,tpu"), "unknown device 'tpu'"),
        (("--devices", ""), "unknown device ''"),
        (("--devices", "cpu,"), "unknown device ''"),
        (("--devices", "cpu,cpu", "--device", "cpu"), "neither --device nor --from-cache"),
        (("--devices", "cpu,cpu", "--from-cache"), "neither --device nor --from-cache"),
    ],
)
def test_devices_that_do_not_go_together_are_one_line(
    embedded: Path, run: Command, words: tuple[str, ...], why: str
) -> None:
    done = side_by_side(run, embedded, *words)
    assert done.exit_code == 1 and why in done.stderr and done.stderr.count("error: ") == 1


@pytest.mark.proves("killed")
def test_an_interrupt_ends_all_folds_and_the_run_goes_on(
    embedded: Path,
    tuned: Path,
    run: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The whole group is sent it, as a terminal does, when both processes train."""
    folder = tmp_path / "archive"
    shutil.copytree(embedded, folder)
    real, group, number = module._follow, [], signal.SIGINT

    def follow(processes: Any, notify: Any, advance: Callable[[], None]) -> None:
        group.extend(process for process, _ in processes.values())

        def interrupt() -> None:
            advance()
            for process in group:
                os.kill(process.pid, number)
            signal.raise_signal(number)

        real(processes, notify, interrupt)

    with monkeypatch.context() as patched:
        patched.setattr(module, "_follow", follow)
        stopped = side_by_side(run, folder)
    assert stopped.exit_code == 128 + number
    lines = stopped.stderr.splitlines()
    assert lines[-1] == "interrupted: what was finished is kept, run the same command again"
    assert not [line for line in lines if line.startswith("error: ")]
    assert len(group) == 2 and not any(process.is_alive() for process in group)
    # What the processes themselves wrote would stand here.
    assert "Traceback" not in capfd.readouterr().err
    done = side_by_side(run, folder)
    assert done.exit_code == 0, done.stderr
    assert results(folder) == results(tuned)
