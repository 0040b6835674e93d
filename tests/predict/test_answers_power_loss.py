"""A folder of answers when every call fails once, when the power goes, and under SIGKILL."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest
from faulty_disk import dead, faulty_os, working_os
from made_answers import check_whole, make, run
from powerloss import RecordingOs, lay, states

from archiveprobe.base import files, lock
from archiveprobe.base.errors import InputError
from archiveprobe.predict.answers import merge
from archiveprobe.predict.answers.read import iterate_parts

__all__ = ["dead", "faulty_os", "working_os"]
IMAGES = 5
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(autouse=True)
def small_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = {**merge.merge.__kwdefaults__, "part_rows": 4}
    monkeypatch.setattr(merge.merge, "__kwdefaults__", defaults)


@pytest.fixture
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def ids_of(folder: Path) -> list[str]:
    return [id_ for table in iterate_parts(folder, ["id"]) for id_ in table["id"].to_pylist()]


def check_nothing_twice(folder: Path) -> None:
    """Other programs see whole parts only, and no image in two of them."""
    if list((folder / "parts").glob("*.parquet")):
        parts = duckdb.read_parquet(f"{folder}/parts/*.parquet")
        [(rows, ids)] = parts.aggregate("count(id), count(distinct id)").fetchall()
        assert rows == ids


@pytest.mark.proves("disk")
@pytest.mark.parametrize("mode", ["once", "full", "dead"])
def test_every_call_fails(
    tmp_path, faulty_os, working_os, dead, without_waiting, mode: str
) -> None:
    """The disk is full, or the process dies, at any call: the next run goes on from there."""
    at, faulty = 0, None
    make(tmp_path / "whole", IMAGES)
    while faulty is None or faulty.calls >= at:
        at += 1
        place = tmp_path / f"{at}"
        shutil.copytree(tmp_path / "whole", place)
        faulty = faulty_os(at, mode)
        try:
            run(place)
        except InputError as error:
            assert "\n" not in str(error) and "free some space" in str(error)
        except dead:
            pass
        working_os()
        check_nothing_twice(place)
        run(place)
        check_whole(place)
        shutil.rmtree(place)
    assert at > 60


@pytest.mark.proves("power")
def test_the_power_goes_at_any_call(tmp_path, monkeypatch) -> None:
    """What was committed is there in every state that may be left, and nothing is there twice."""
    make(tmp_path / "disk" / "out", IMAGES)
    record = RecordingOs(tmp_path / "disk")
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", record)
        patch.setattr(lock, "os", record)
        run(tmp_path / "disk" / "out", committed=lambda unit: record.promise([unit]))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    chance, seen = random.Random(0), dict[frozenset, set[int]]()
    for number in range(len(record.operations) + 1):
        for tree in states(record, number, 2, chance):
            state = frozenset(item for item in tree.items() if item[0].name != lock.NAME)
            if state not in seen:
                seen[state] = committed_units(tree, tmp_path / f"state-{len(seen)}")
            lost = record.promised(number) - seen[state]
            assert not lost, f"after operation {number}"
    assert len(seen) > 60


def committed_units(tree, root: Path) -> set[int]:
    """The units that a state holds, after it was gone on with to a good end."""
    lay(tree, root)
    folder, again = root / "out", list[int]()
    check_nothing_twice(folder)
    with suppress(InputError):
        ids = ids_of(folder)
        assert ids == sorted(set(ids))
    run(folder, computed=again.append)
    check_whole(folder)
    shutil.rmtree(root)
    return {*range(3)} - {*again}


# One process with everything loaded forks a run for every line it reads.
NURSERY = """
import os, sys
from pathlib import Path
import pyarrow.parquet
from made_answers import run
from archiveprobe.archive.units import Share
from archiveprobe.predict.answers import merge

merge.merge.__kwdefaults__["part_rows"] = 4
os.fsync = lambda _: None  # What a killed process has written stays, synced or not.
os.write(1, b"ready\\n")
for line in sys.stdin:
    share, folder = line.rstrip("\\n").split(" ", 1)
    child = os.fork()
    if child == 0:
        run(Path(folder), None if share == "-" else Share.parse(share))
        os._exit(0)
    os.write(1, b"%d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"end\\n")
"""


@pytest.mark.proves("killed")
def test_killed_at_twenty_moments(tmp_path, without_waiting) -> None:
    """Alone and in shares; what was answered is not lost, and nothing is there twice."""
    path = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert nursery.stdin is not None and nursery.stdout is not None
    assert nursery.stdout.readline() == "ready\n"

    def live(folder: Path, share: str, seconds: float | None = None) -> float:
        nursery.stdin.write(f"{share} {folder}\n")
        child, started = int(nursery.stdout.readline()), time.perf_counter()
        if seconds is not None:
            time.sleep(seconds)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        assert nursery.stdout.readline() == "end\n"
        return time.perf_counter() - started

    make(tmp_path / "whole", 12)
    lifetime, chance = live(tmp_path / "whole", "-"), random.Random(0)
    check_whole(tmp_path / "whole")
    for at in range(5):
        folder, before = tmp_path / f"{at}", set[str]()
        make(folder, 12)
        for share in ("-", "1/2", "2/2", "1/1"):
            live(folder, share, chance.uniform(0, lifetime))
            check_nothing_twice(folder)
            found = set(ids_of(folder)) if (folder / "parts").exists() else before
            assert before <= found
            before = found
        live(folder, "-")
        check_whole(folder)
    nursery.stdin.close()
    nursery.stdout.close()
    assert nursery.wait(60) == 0
