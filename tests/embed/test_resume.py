"""A run that is killed again and again ends with the content of one that was left alone."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snapshots import current_cache

from archiveprobe.cache.store import Reader
from archiveprobe.embed.inventory import verify_caches
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.manifest import read_manifest

ROOT = Path(__file__).resolve().parents[2]
# Every row a shard of its own and the manifest saved after each, so that a kill meets them all.
PROGRAM = """
import functools, os, signal, sys, threading, time
from pathlib import Path
from archiveprobe.cache.store import Writer
from archiveprobe.embed import run, run_record
from archiveprobe.task.config import load_task

opened = Writer.open
Writer.open = functools.partial(opened, commit_seconds=0)
run_record._SAVE_SECONDS = run._STALE_SECONDS = 0
options = run.Options(workers=0, device="cpu", batch_size=1)
task = load_task(Path(sys.argv[1]))

def shards():
    return len(list(task.work.glob("cache/*/shards/*.h5")))

# From within: another process that is kept waiting might come too late.
def kill_after(new, delay):
    wanted = shards() + new
    while shards() < wanted or not task.work.exists():
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2:]:
    moment = int(sys.argv[2]), float(sys.argv[3])
    threading.Thread(target=kill_after, args=moment, daemon=True).start()
run.embed(task, options)
"""


def start(task: Task, *moment: float) -> "subprocess.CompletedProcess[str]":
    words = map(str, [task.file, *moment])
    command = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def finish(task: Task) -> None:
    done = start(task)
    assert done.returncode == 0, done.stderr


def is_killed(task: Task, shards: int, delay: float) -> bool:
    """Run until SIGKILL comes `delay` seconds after that many new shards; say whether it came."""
    return start(task, shards, delay).returncode == -signal.SIGKILL


def content(task: Task) -> dict[str, Any]:
    record = current_cache(task, "hog")
    assert record is not None
    reader = Reader(record.folder)
    keys = sorted(reader.keys)
    present, rows = reader.read(keys)
    assert present.all()
    lines = (task.work / "manifest.csv").read_text().splitlines()
    names = lines[0].split(",")
    drop = {names.index("mtime_ns"), names.index("inode")}
    manifest = [
        [cell for at, cell in enumerate(line.split(",")) if at not in drop] for line in lines
    ]
    return {
        "cache": record.folder.name,
        "keys": keys,
        "rows": rows.tobytes(),
        "failures": reader.failures,
        "manifest": manifest,
        "folds": (task.work / "folds.csv").read_bytes(),
        "thumbnails": {file.name: file.read_bytes() for file in task.work.glob("thumbs/??/*")},
    }


@pytest.mark.proves("killed")
def test_killed_runs_end_as_one_that_was_left_alone(archive, draw, tmp_path) -> None:
    archive.add_drawn(range(24))
    archive.add("copy.png", archive.file("004.png").read_bytes())
    archive.add("cut.png", archive.file("005.png").read_bytes()[:-100])
    archive.add("missing.png", None)
    task = archive.task(["hog"], views="flip")
    chance = random.Random(0)
    moments = [(0, 0.0), *((chance.randint(1, 6), chance.uniform(0, 0.02)) for _ in range(3))]
    killed = [is_killed(task, *moment) for moment in moments]
    assert sum(killed) >= 3
    finish(task)
    after = content(task)
    assert len(after["keys"]) == 24
    assert not [path for path in task.work.rglob("*") if path.name.startswith(".tmp")]
    assert verify_caches(task, deep=True).ok

    task.work.rename(tmp_path / "killed")
    finish(load_task(archive.folder))
    whole = content(task)
    for name, value in whole.items():
        assert after[name] == value, name
    assert np.isfinite(np.frombuffer(whole["rows"], np.float16)).all()
    assert len(read_manifest(task)) == 27


def test_what_a_killed_run_left_half_written_goes_after_a_while(archive, bench) -> None:
    archive.add_drawn(range(3))
    task = archive.task()
    places = [task.work / ".tmp-0011", task.work / "thumbs" / "ab" / ".tmp-7-0011"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"half")
    bench.run(task)
    assert all(place.exists() for place in places)  # They may belong to a run beside this one.
    for place in places:
        os.utime(place, (1, 1))
    bench.run(task)
    assert not any(place.exists() for place in places)
