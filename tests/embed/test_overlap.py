"""Batches computed while the next ones are gathered: equal rows, equal faults."""

import time

import numpy as np
import pytest
from snapshots import current_cache

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import is_locked
from archiveprobe.cache.store import Reader
from archiveprobe.embed.inventory import verify_all
from archiveprobe.embed.job import Job
from archiveprobe.embed.lane import Lane
from archiveprobe.task.manifest import read_manifest


@pytest.fixture(autouse=True)
def one_thread(monkeypatch) -> None:
    """Batches one after the other, as on a GPU; a test may ask for more threads."""
    threads(monkeypatch, 1, ahead=1)


def threads(monkeypatch, count: int, *, ahead: int) -> None:
    def make(device: str) -> Lane:
        lane = Lane(device)
        lane.ahead = ahead
        return lane

    monkeypatch.setattr("archiveprobe.embed.lane.usable_cores", lambda: count)
    monkeypatch.setattr("archiveprobe.embed.plan.Lane", make)


def stored(task, backbone="resnet18") -> np.ndarray:
    reader = Reader(current_cache(task, backbone).folder)
    keys = [bytes.fromhex(entry.digest) for entry in read_manifest(task) if entry.usable]
    return reader.read(keys)[1]


def test_every_row_is_the_one_of_its_photograph(mixed, bench, monkeypatch) -> None:
    task = mixed.task(["resnet18", "resnet50"], views="crops6")
    summary = bench.run(task, batch_size=3)
    assert (summary.embedded, summary.duplicates, summary.failed) == (10, 2, 4)
    rows = [stored(task, name) for name in ("resnet18", "resnet50")]
    threads(monkeypatch, 3, ahead=4)
    again = mixed.task(["resnet18", "resnet50"], views="crops6")
    for name in ("resnet18", "resnet50"):
        for shard in (current_cache(again, name).folder / "shards").iterdir():
            shard.unlink()
    assert bench.run(again, batch_size=3).embedded == 10
    for name, before in zip(("resnet18", "resnet50"), rows, strict=True):
        np.testing.assert_array_equal(stored(again, name), before)


def test_the_next_batch_is_gathered_while_one_is_computed(archive, bench) -> None:
    archive.add_drawn(range(12))
    decoded_meanwhile = []

    def wait_for_the_next() -> None:
        deadline = time.monotonic() + 30
        while bench.decoded < 8 and time.monotonic() < deadline:
            time.sleep(0.001)
        decoded_meanwhile.append(bench.decoded)

    bench.settings["before"] = wait_for_the_next
    assert bench.run(archive.task(), precision="fp32").embedded == 12
    # The first batch is full after four, and was not done before four more were decoded.
    assert decoded_meanwhile[0] >= 8


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_a_fault_in_a_forward_pass_keeps_what_is_done(archive, bench, fault) -> None:
    archive.add_drawn(range(12))
    task = archive.task()

    def interrupt() -> None:
        if len(bench.encoders["resnet18"].log) == 1:
            raise fault("stop")

    bench.settings["before"] = interrupt
    # What is no interrupt is told in one line.
    with pytest.raises(InputError if fault is RuntimeError else fault, match="stop"):
        bench.run(task, precision="fp32")
    assert Reader(current_cache(task, "resnet18").folder).rows == 4
    assert not is_locked(current_cache(task, "resnet18").folder)
    del bench.settings["before"]
    assert bench.run(task).embedded == 8
    assert verify_all(task, deep=True).ok


def test_a_fault_elsewhere_keeps_the_batch_that_was_running(archive, bench, monkeypatch) -> None:
    archive.add_drawn(range(12))
    task = archive.task()
    real, pushed = Job.push, []

    def push(self, key, rendered) -> None:
        pushed.append(key)
        if len(pushed) == 6:
            raise KeyboardInterrupt
        real(self, key, rendered)

    monkeypatch.setattr(Job, "push", push)
    with pytest.raises(KeyboardInterrupt):
        bench.run(task, precision="fp32")
    assert Reader(current_cache(task, "resnet18").folder).rows == 4
    assert not is_locked(current_cache(task, "resnet18").folder)


def test_a_smaller_batch_that_memory_asked_for_stays(archive, bench) -> None:
    archive.add_drawn(range(12))

    def scarce() -> None:
        if not bench.encoders["resnet18"].log and not bench.said:
            raise RuntimeError("CUDA out of memory")

    bench.settings["before"] = scarce
    assert bench.run(archive.task(), precision="fp32").embedded == 12
    # The second batch was gathered before the first had told how much fits.
    assert bench.encoders["resnet18"].log == [2, 2, 4, 2, 2]
