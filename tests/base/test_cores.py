"""Cores counted by affinity and by the quotas of containers, on drawn /proc and /sys trees."""

import os
from pathlib import Path

import pytest

from archiveprobe.base import cores
from archiveprobe.base.cores import quotas, usable_cores


class Machine:
    """A process's cgroup and mountinfo files, and the folders that they name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = folder / "proc"
        self.process.mkdir()
        self.lines: list[str] = []
        self.mounts = ["22 1 0:20 / /proc rw - proc proc rw"]

    def mount(self, kind: str, options: str, root: str = "/") -> Path:
        top = self.folder / "sys" / (options or kind)
        top.mkdir(parents=True)
        self.mounts.append(f"30 22 0:27 {root} {top} rw,nosuid shared:9 - {kind} {kind} {options}")
        return top

    def quotas(self) -> list[float]:
        (self.process / "cgroup").write_text("\n".join([*self.lines, ""]))
        (self.process / "mountinfo").write_text("\n".join([*self.mounts, ""]))
        return list(quotas(self.process))


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"cpu.{name}").write_text(f"{text}\n")


def test_a_quota_of_version_2_and_those_above_it_count(machine) -> None:
    top = machine.mount("cgroup2", "rw")
    machine.lines = ["0::/slice/job"]
    write(top / "slice", max="400000 100000")
    write(top / "slice" / "job", max="150000 100000")
    assert machine.quotas() == [1.5, 4.0]


def test_no_quota_limits_nothing(machine) -> None:
    top = machine.mount("cgroup2", "rw")
    machine.lines = ["0::/job"]
    write(top / "job", max="max 100000")
    assert machine.quotas() == []


def test_a_quota_of_version_1_counts(machine) -> None:
    top = machine.mount("cgroup", "rw,cpu,cpuacct")
    machine.mount("cgroup", "rw,memory")
    machine.lines = ["5:memory:/job", "4:cpu,cpuacct:/job", "1:cpuset:/other"]
    write(top / "job", cfs_quota_us="250000", cfs_period_us="100000")
    write(top, cfs_quota_us="-1", cfs_period_us="100000")
    assert machine.quotas() == [2.5]


def test_a_container_that_sees_its_own_group_only(machine) -> None:
    top = machine.mount("cgroup", "rw,cpu", root="/docker/1f2e")
    machine.lines = ["4:cpu:/docker/1f2e"]
    write(top, cfs_quota_us="50000", cfs_period_us="100000")
    assert machine.quotas() == [0.5]
    # The process may be told of a path that is not below what is mounted.
    machine.lines = ["4:cpu:/elsewhere"]
    assert machine.quotas() == [0.5]


@pytest.mark.parametrize("text", ["", "max", "many 100000", "100000", "100000 0", "-1 100000"])
def test_what_cannot_be_read_limits_nothing(machine, text) -> None:
    top = machine.mount("cgroup2", "rw")
    machine.lines = ["0::/", "not a line"]
    write(top, max=text)
    assert machine.quotas() == []


def test_a_machine_without_control_groups(tmp_path) -> None:
    assert list(quotas(tmp_path / "nowhere")) == []


@pytest.mark.parametrize(
    ("given", "expected"), [([], 8), ([1.5], 2), ([0.2], 1), ([16.0, 3.0], 3), ([64.0], 8)]
)
def test_the_smallest_of_all_limits_counts(monkeypatch, given, expected) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "quotas", lambda: iter(given))
    assert usable_cores() == expected
