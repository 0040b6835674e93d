"""A run that is killed again and again ends with the content of one that was left alone."""

import os
import random
import subprocess
import sys
import time
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
import functools, sys
from pathlib import Path
from archiveprobe.cache.store import Writer
from archiveprobe.embed import run, run_record
from archiveprobe.task.config import load_task

opened = Writer.open
Writer.open = functools.partial(opened, commit_seconds=0)
run_record._SAVE_SECONDS = run._STALE_SECONDS = 0
options = run.Options(workers=int(sys.argv[2]), device="cpu", batch_size=1)
run.embed(load_task(Path(sys.argv[1])), options)
"""


def start(task: Task, workers: int = 0) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(task.file), str(workers)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(task: Task) -> None:
    process = start(task)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint.decode()


def kill_after(task: Task, shards: int, delay: float) -> bool:
    """Start a run and kill it `delay` seconds after that many new shards; whether it was alive."""
    process = start(task)
    wanted = shards + len(list(task.work.glob("cache/*/shards/*.h5")))
    while process.poll() is None:
        if len(list(task.work.glob("cache/*/shards/*.h5"))) >= wanted and task.work.exists():
            time.sleep(delay)
            break
        time.sleep(0.001)
    process.kill()
    process.communicate(timeout=120)
    return process.returncode < 0


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
    killed = [kill_after(task, *moment) for moment in moments]
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
