"""Cores counted by affinity and by the quotas of containers, on drawn control groups."""

import os

import pytest
from click.testing import CliRunner

from archiveprobe import cli
from archiveprobe.base import cores
from archiveprobe.base.cores import usable_cores

V2, V1 = "0::/slice/job\n", "5:memory:/job\n4:cpu,cpuacct:/job\n1:cpuset:/other\n"


@pytest.mark.proves("memory")
@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (V2, {}, 8),
        (V2, {"slice/job/cpu.max": "150000 100000"}, 2),
        (V2, {"slice/job/cpu.max": "max 100000", "slice/cpu.max": "300000 100000"}, 3),
        (V2, {"slice/job/cpu.max": "20000 100000", "slice/cpu.max": "300000 100000"}, 1),
        (V2, {"slice/job/cpu.max": "6400000 100000"}, 8),
        # A container that sees its own group only.
        (V2, {"cpu.max": "200000 100000"}, 2),
        (V1, {"cpu/job/cpu.cfs_quota_us": "250000", "cpu/job/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        (V1, {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, 8),
        *(
            (V2 + "not a line", {"slice/job/cpu.max": text}, 8)
            for text in ("", "max", "many 100000", "100000", "100000 0", "-1 100000")
        ),
        (None, {}, 8),
    ],
)
def test_the_smallest_of_all_limits_counts(tmp_path, monkeypatch, groups, files, expected) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_GROUPS_OF_PROCESS", tmp_path / "of-process")
    monkeypatch.setattr(cores, "_GROUPS", tmp_path)
    if groups is not None:
        (tmp_path / "of-process").write_text(groups)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert usable_cores() == expected


@pytest.mark.parametrize(("quota", "given", "expected"), [(2.0, None, "2"), (2.0, "5", "5")])
def test_a_command_gives_libraries_as_many_threads_as_the_quota(
    monkeypatch, quota: float, given: str | None, expected: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "_quotas", lambda: iter([quota]))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        # Put back afterwards, also where there was none.
        monkeypatch.setenv(name, "")
        if given is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, given)
    CliRunner().invoke(cli.main, ["probe", "nowhere"])
    assert os.environ["OMP_NUM_THREADS"] == os.environ["OPENBLAS_NUM_THREADS"] == expected


def test_without_a_quota_libraries_count_by_themselves(monkeypatch) -> None:
    monkeypatch.setattr(cores, "_quotas", lambda: iter([]))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores.heed_quotas()
    assert "OMP_NUM_THREADS" not in os.environ
