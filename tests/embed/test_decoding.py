"""Decoder processes: order kept, ahead by a bounded number, and one bad photograph costs itself."""

import importlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from children import children, decoders

from archiveprobe.embed import decoding
from archiveprobe.embed.decoding import default_workers, prepare_images
from archiveprobe.embed.prepare import Preparation
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.view_sets import view_set
from archiveprobe.task.decoding import digest

GEOMETRY = Geometry(16, 16)


@pytest.fixture
def photographs(archive) -> list[tuple[str, str]]:
    """Twelve files, the fourth of them torn."""
    archive.add_drawn(range(11))
    archive.ids.insert(3, "torn.png")
    archive.file("torn.png").write_bytes(archive.file("000.png").read_bytes()[:-100])
    return [(name, digest(archive.file(name).read_bytes())) for name in archive.ids]


@pytest.fixture
def order(archive) -> Preparation:
    return Preparation(archive.folder / "images", {GEOMETRY: view_set("crops6")})


def test_processes_give_what_this_one_gives_in_the_same_order(photographs, order) -> None:
    here = list(prepare_images(photographs, order, workers=0))
    there = list(prepare_images(photographs, order, workers=2))
    assert [item.digest for item in here] == [key for _, key in photographs]
    for one, two in zip(here, there, strict=True):
        assert (one.digest, one.observation) == (two.digest, two.observation)
        assert one.views.keys() == two.views.keys()
        for geometry in one.views:
            np.testing.assert_array_equal(one.views[geometry].crops, two.views[geometry].crops)
    assert [item.observation.status for item in here].count("truncated") == 1


DEADLY = """
import os

class Deadly:
    def __fspath__(self):
        os._exit(3)

class Endless:
    def __fspath__(self):
        while True:
            pass

class DeadlyOnce:
    def __init__(self, path, marker):
        self.path, self.marker = path, marker

    def __fspath__(self):
        if not os.path.exists(self.marker):
            open(self.marker, "w").close()
            os.kill(os.getpid(), 9)
        return self.path
"""


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """A module of its own, which reaches a process through sys.path; a patch would not."""
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("deadly", None)
    importlib.invalidate_caches()
    return importlib.import_module("deadly")


@pytest.mark.proves("images")
@pytest.mark.parametrize(
    ("name", "status", "detail"),
    [
        ("Deadly", "decoder_died", "exit status 3"),
        ("Endless", "decode_timeout", "over 1 s of processor time"),
    ],
)
def test_a_decoder_that_dies_or_hangs_costs_one_image(
    photographs, order, deadly, name, status, detail
) -> None:
    files = [*photographs[:2], (getattr(deadly, name)(), "0" * 64), *photographs[4:7]]
    items = list(prepare_images(files, order, workers=1, seconds=1))
    assert [item.digest for item in items] == [key for _, key in files]
    said = [item.observation.status for item in items]
    assert said == ["ok", "ok", status, "ok", "ok", "ok"]
    assert items[2].observation.detail == detail
    assert not items[2].views


@pytest.mark.proves("images")
def test_a_decoder_that_was_killed_from_outside_costs_nothing(
    photographs, order, deadly, tmp_path
) -> None:
    path, key = photographs[2]
    files = [*photographs[:2], (deadly.DeadlyOnce(path, str(tmp_path / "died")), key)]
    items = list(prepare_images(files, order, workers=1))
    assert [item.observation.status for item in items] == ["ok"] * 3
    assert (tmp_path / "died").exists()


def test_only_a_bounded_number_is_prepared_ahead(photographs, order, monkeypatch) -> None:
    monkeypatch.setattr(decoding, "AHEAD_PER_WORKER", 3)
    taken = []

    def files():
        for photograph in photographs:
            taken.append(photograph)
            yield photograph

    given = 0
    for _ in prepare_images(files(), order, workers=1):
        given += 1
        assert len(taken) - given <= 2
    assert given == len(photographs)


def test_a_consumer_that_stops_leaves_no_process_behind(photographs, order) -> None:
    before = children()
    items = prepare_images(photographs, order, workers=1)
    next(items)
    assert children() - before
    items.close()
    deadline = time.monotonic() + 20
    while children() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not children() - before


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_nothing_to_do_starts_no_process(order) -> None:
    before = children()
    assert list(prepare_images([], order, workers=0)) == []
    assert children() == before


def test_every_core_decodes() -> None:
    assert default_workers() == len(os.sched_getaffinity(0))


@pytest.mark.proves("images")
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_processes_that_die_while_idle_cost_nothing(photographs, order, monkeypatch) -> None:
    monkeypatch.setattr(decoding, "AHEAD_PER_WORKER", 2)
    before = decoders()
    items = prepare_images(photographs, order, workers=2)
    first = next(items)
    deadline = time.monotonic() + 60
    while busy(decoders() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in decoders() - before:
        os.kill(int(process), signal.SIGKILL)
    said = [item.observation.status for item in [first, *items]]
    assert said == [*["ok"] * 3, "truncated", *["ok"] * 8]


def busy(processes: set[str]) -> bool:
    """Whether one of them has used a processor within a tenth of a second."""

    def used() -> list[list[str]]:
        return [Path(f"/proc/{one}/stat").read_text().split()[13:15] for one in processes]

    earlier = used()
    time.sleep(0.1)
    return used() != earlier
