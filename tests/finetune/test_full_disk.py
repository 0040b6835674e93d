"""A real small disk: training fills it up at every step, and goes on when there is room again."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json, os, subprocess, sys
from pathlib import Path
from click.testing import CliRunner
from archiveprobe import cli
from archiveprobe.finetune import data

torch.set_num_threads(1)
disk, archive, asked = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk]
subprocess.run(mount, check=True)
subprocess.run(["cp", "-r", *archive.iterdir(), disk], check=True)
if asked == "file":
    data.MEMORY_LIMIT = 0
words = ["finetune", disk, "--recipe", disk / "quick.toml", "--fold", "all"]
words = [str(word) for word in [*words, "--device", "cpu", "--workers", "0"]]
used = lambda: sum(file.stat().st_blocks * 512 for file in disk.rglob("*"))

def said():
    done = CliRunner().invoke(cli.main, words)
    error = None if done.exception is None else type(done.exception).__name__
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    left = [str(file) for file in disk.rglob("*") if file.name.startswith((".tmp-", "pixels-"))]
    return [done.exit_code, error, lines, left]

told = []
if asked == "read-only":
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    told.append(said())
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
for room in {"memory": (0, 64, 500, 2000, 3500, 4800), "file": (100,), "read-only": ()}[asked]:
    free = os.statvfs(disk).f_bavail * 4096
    with (disk / "filler").open("wb") as filler:
        filler.write(bytes(max(0, free - room * 1024)))
    told.append(said())
    (disk / "filler").unlink()
told.append(said())
parts = sorted((disk / "work/finetune/quick").glob("*/part.json"))
digests = [json.loads(file.read_text())["digests"] for file in parts]
print(json.dumps({"told": told, "digests": digests}))
"""


@pytest.fixture
def on_a_small_disk(tmp_path: Path, embedded: Path) -> Callable[[str], Any]:
    """Train on a disk that nobody else sees; what was said, and the digests of the parts."""
    place = tmp_path / "disk"
    place.mkdir()
    inside = ["unshare", "--map-root-user", "--mount"]
    trial = [*inside, "mount", "-t", "tmpfs", "tmpfs", place]
    if not shutil.which("unshare") or subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("this system lets no test mount a file system of its own")

    def run(asked: str) -> Any:
        command = [*inside, sys.executable, "-c", PROGRAM, place, embedded, asked]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def digests(tuned: Path) -> list[Any]:
    files = sorted((tuned / "work/finetune/quick").glob("*/part.json"))
    return [json.loads(file.read_text())["digests"] for file in files]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("memory", "No space left on device"),
        ("file", "No space left on device"),
        ("read-only", "Read-only file system"),
    ],
)
def test_one_line_and_with_room_again_the_run_ends_as_any(
    asked: str, why: str, on_a_small_disk: Callable[[str], Any], tuned: Path
) -> None:
    got = on_a_small_disk(asked)
    *before, last = got["told"]
    for status, error, lines, left in before:
        assert (status, error, len(lines), left) == (1, "SystemExit", 1, [])
        assert why in lines[0]
    assert last == [0, None, [], []]
    assert got["digests"] == digests(tuned)
