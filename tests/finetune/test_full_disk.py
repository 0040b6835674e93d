"""A real small disk: training fills it up at every step, and goes on when there is room again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json, os, shutil, subprocess, sys
from pathlib import Path
import torch
from click.testing import CliRunner
from archiveprobe import cli
from archiveprobe.finetune import data

torch.set_num_threads(1)
disk, archive = Path(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
subprocess.run(["cp", "-r", *archive.iterdir(), disk], check=True)
words = ["finetune", disk, "--recipe", disk / "quick.toml", "--fold", "all"]
words = [str(word) for word in [*words, "--device", "cpu", "--workers", "0"]]

def run():
    done = CliRunner().invoke(cli.main, words)
    error = None if done.exception is None else type(done.exception).__name__
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    left = [str(file) for file in disk.rglob("*") if file.name.startswith((".tmp-", "pixels-"))]
    return [done.exit_code, error, lines, left]

def run_with(room):
    free = os.statvfs(disk).f_bavail * 4096
    with (disk / "filler").open("wb") as filler:
        filler.write(bytes(max(0, free - room * 1024)))
    said = run()
    (disk / "filler").unlink()
    return said

def run_whole():
    said = run()
    parts = sorted((disk / "work/finetune/quick").glob("*/part.json"))
    return said, [json.loads(file.read_text())["digests"] for file in parts]

report = {}
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
report["read-only"] = [run()]
subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
report["full"] = [run_with(room) for room in (0, 500, 4800)]
report["whole"] = [run_whole()]
for name in ("finetune", "runs"):
    shutil.rmtree(disk / "work" / name)
# Pixels in a file.
data.MEMORY_LIMIT = 0
report["full"].append(run_with(100))
report["whole"].append(run_whole())
print(json.dumps(report))
"""


@pytest.mark.proves("disk")
def test_one_line_and_with_room_again_the_run_ends_as_any(
    tmp_path: Path, embedded: Path, tuned: Path
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    inside = ["unshare", "--map-root-user", "--mount"]
    trial = [*inside, "mount", "-t", "tmpfs", "tmpfs", place]
    if not shutil.which("unshare") or subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("this system lets no test mount a file system of its own")
    command = [*inside, sys.executable, "-c", PROGRAM, place, embedded]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    whys = {"read-only": "Read-only file system", "full": "No space left on device"}
    for kind, why in whys.items():
        for status, error, lines, left in report[kind]:
            assert (status, error, len(lines), left) == (1, "SystemExit", 1, [])
            assert why in lines[0]
    files = sorted((tuned / "work/finetune/quick").glob("*/part.json"))
    digests = [json.loads(file.read_text())["digests"] for file in files]
    for said, found in report["whole"]:
        assert said == [0, None, [], []]
        assert found == digests
