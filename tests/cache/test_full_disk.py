"""A real small disk: a tmpfs in a mount namespace of its own, filled up and made read-only."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROLOGUE = """
import json, subprocess, sys
from pathlib import Path
import numpy as np
from archiveprobe.base.errors import InputError
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.cache.verify import verify

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
folder = disk / "cache" / "tiny-0123456789abcdef"
rows = {bytes([i]) * 32: np.full((2, 3000), i + 1, np.float32) for i in range(100)}
safe = set()

def embed():
    with Writer.open(folder, {"backbone": "tiny"}, {}) as writer:
        safe.update(writer.keys)
        for key, row in rows.items():
            writer.add(key, row)
            if writer.pending == 10:
                writer.commit()
                safe.update(writer.keys)

def fault(action):
    try:
        action()
    except InputError as error:
        return str(error)

def seen():
    reader = Reader(folder)
    present, got = reader.read(list(rows))
    right = all((row == i + 1).all() for i, row in enumerate(got) if present[i])
    temporaries = len(list(disk.rglob(".tmp-*")))
    return {"safe": safe <= reader.keys, "rows": reader.rows, "right": right,
            "temporaries": temporaries, "sound": verify(folder, deep=True).ok}
"""
FULL = """
from archiveprobe.cache.export import export

with Writer.open(Path(sys.argv[2]), {"backbone": "other"}, {}) as writer:
    for key, row in rows.items():
        writer.add(key, row)
other = Reader(Path(sys.argv[2]))
# HDF5 crashes the process when a write fails for want of room.
exported = fault(lambda: export(disk / "all.h5", {}, list(rows), {"other": other}))
assert "free some space" in exported, exported
assert not list(disk.iterdir())
said = [fault(embed)]
full = seen()
said.append(fault(embed))
subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
said.append(fault(embed))
print(json.dumps({"said": said, "seen": [full, seen()]}))
"""
FULL_AT_ONCE = """
said = []
for room in (0, 4096, 8192, 16384, 65536):
    with (disk / "filler").open("wb") as filler:
        filler.write(bytes(2 ** 20 - 4096 - room))
    said.append(fault(embed))
    (disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
    said.append(fault(embed))
    sound = dict.fromkeys(["safe", "right", "sound"], True)
    assert seen() == {**sound, "rows": 100, "temporaries": 0}
    subprocess.run(["rm", "-rf", disk / "cache"], check=True)
    subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
print(json.dumps({"said": said}))
"""
READ_ONLY = """
subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
del rows[bytes([99]) * 32]
embed()
rows[bytes([99]) * 32] = np.full((2, 3000), 100, np.float32)
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
said = [fault(embed)]
print(json.dumps({"said": said, "seen": [seen()]}))
"""


@pytest.fixture
def on_a_small_disk(tmp_path):
    """Run a program on a disk of 1 MiB that nobody else sees; what it printed as JSON."""
    place = tmp_path / "disk"
    place.mkdir()
    inside = ["unshare", "--map-root-user", "--mount"]
    trial = [*inside, "mount", "-t", "tmpfs", "tmpfs", place]
    if not shutil.which("unshare") or subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("this system lets no test mount a file system of its own")

    def run(program):
        program = [sys.executable, "-c", PROLOGUE + program, place, tmp_path / "elsewhere"]
        command = [*inside, *program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), str(place / "cache" / "tiny-0123456789abcdef")

    return run


@pytest.mark.proves("disk")
def test_a_full_disk(on_a_small_disk):
    got, folder = on_a_small_disk(FULL)
    full, again, later = got["said"]
    for message in (full, again):
        assert message.startswith(("cannot write to the cache ", "cannot resume", "cannot lock"))
        assert folder in message
        assert "No space left on device; free some space and run the same command" in message
        assert "\n" not in message
    assert later is None
    before, after = got["seen"]
    assert 10 <= before["rows"] < 100
    assert after["rows"] == 100
    for state in got["seen"]:
        assert state["safe"]
        assert state["right"]
        assert state["sound"]
        assert state["temporaries"] == 0


@pytest.mark.proves("disk")
def test_a_disk_that_is_full_from_the_start(on_a_small_disk):
    got, folder = on_a_small_disk(FULL_AT_ONCE)
    first, later = got["said"][::2], got["said"][1::2]
    assert all(folder in said and "free some space" in said for said in first)
    assert len({said.split(folder)[0] for said in first}) > 1  # Full at various steps.
    assert later == [None] * len(later)


@pytest.mark.proves("disk")
def test_a_disk_that_is_read_only(on_a_small_disk):
    got, folder = on_a_small_disk(READ_ONLY)
    [said] = got["said"]
    assert said.startswith(f"cannot lock {folder} for writing: Read-only file system; make it")
    [state] = got["seen"]
    assert state == {"safe": True, "rows": 99, "right": True, "temporaries": 0, "sound": True}
    assert not Path(folder).exists()  # It was a disk of its own.
