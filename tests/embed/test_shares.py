"""`embed --units K/N`: each share does its own rows, the last run takes them all over."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from counted import Archive, Bench, draw_picture

import archiveprobe.task.scan
from archiveprobe.archive.units import Share
from archiveprobe.base.lock import Lock
from archiveprobe.cache.store import Reader
from archiveprobe.cli import main
from archiveprobe.task import shares
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import read_manifest
from archiveprobe.task.snapshot import find_snapshot, read_snapshot


@pytest.fixture
def many(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """Twenty-four rows in units of four: a copy, a broken and a missing one; none just written."""
    monkeypatch.setattr(shares, "ROWS_PER_UNIT", 4)
    monkeypatch.setattr(archiveprobe.task.scan, "ROWS_PER_UNIT", 4)
    monkeypatch.setattr("archiveprobe.embed.plan.ROWS_PER_UNIT", 4)
    archive.add_drawn(range(20))
    archive.add("copy.png", archive.file("002.png").read_bytes())
    archive.add("cut.png", archive.file("005.png").read_bytes()[:-200])
    archive.add("missing.png", None)
    archive.add("last.png", draw_picture(20))
    for file in (archive.folder / "images").iterdir():
        os.utime(file, (time.time() - 60,) * 2)
    return archive


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    files: list[str] = []
    real = archiveprobe.task.scan.digest_of

    def noted(file: str, *rest: Any) -> str:
        files.append(Path(file).name)
        return real(file, *rest)

    monkeypatch.setattr(archiveprobe.task.scan, "digest_of", noted)
    return files


def rows_of(task: Task) -> dict[bytes, bytes]:
    (folder,) = (task.work / "cache").glob("resnet18-*")
    reader = Reader(folder)
    keys = sorted(reader.keys)
    return dict(zip(keys, (row.tobytes() for row in reader.read(keys)[1]), strict=True))


def test_shares_embed_each_row_once_and_the_last_run_nothing(
    many: Archive, bench: Bench, hashed: list[str]
) -> None:
    task = many.task()
    summaries = [bench.run(task, share=Share(k, 3)) for k in (1, 2, 3)]
    assert [summary.images for summary in summaries] == [8, 8, 8]
    assert [summary.units for summary in summaries] == ["1/3", "2/3", "3/3"]
    # A share reads its own files only.
    assert sorted(hashed) == sorted(set(many.ids) - {"missing.png"})
    assert find_snapshot(task) is None

    hashed.clear()
    last = bench.run(task)
    assert (bench.crops, bench.decoded, hashed) == (0, 0, [])
    assert (last.images, last.embedded, last.reused, last.duplicates, last.failed) == (
        24, 0, 21, 1, 2,
    )  # fmt: skip
    assert read_snapshot(task).finished
    assert not list(shares.shares_folder(task).glob("*.csv"))


def test_shares_end_in_the_state_of_one_run(many: Archive, bench: Bench, tmp_path: Path) -> None:
    task = many.task()
    for k in (2, 1):
        bench.run(task, share=Share(k, 2))
    bench.run(task)
    other = Archive(tmp_path / "whole")
    for name in many.ids:
        other.add(name, many.file(name).read_bytes() if many.file(name).exists() else None)
        if other.file(name).exists():
            os.utime(other.file(name), ns=(many.file(name).stat().st_mtime_ns,) * 2)
    whole = other.task()
    bench.run(whole)
    assert rows_of(task) == rows_of(whole)
    seen = [[(e.id, e.digest, e.observed) for e in read_manifest(t)] for t in (task, whole)]
    assert seen[0] == seen[1]
    assert read_snapshot(task).parts == read_snapshot(whole).parts


def test_a_missing_share_is_made_up_for(many: Archive, bench: Bench) -> None:
    task = many.task()
    bench.run(task, share=Share(1, 2))
    last = bench.run(task)
    assert (last.embedded, last.reused) == (9, 12)


def test_a_share_that_runs_again_does_what_is_new(
    many: Archive, bench: Bench, hashed: list[str]
) -> None:
    task = many.task()
    bench.run(task, share=Share(1, 2))
    hashed.clear()
    again = bench.run(task, share=Share(1, 2))
    assert (again.embedded, bench.crops, bench.decoded, hashed) == (0, 0, 0, [])


def test_files_that_a_table_names_otherwise_are_found_by_their_share(
    many: Archive, bench: Bench
) -> None:
    task = many.task()
    table = task.folder / "labels.csv"
    table.write_text(table.read_text().replace(".png", ""))
    summaries = [bench.run(task, share=Share(k, 2)) for k in (1, 2)]
    assert sum(summary.embedded for summary in summaries) == 21
    last = bench.run(task)
    assert (bench.crops, last.failed) == (0, 2)


@pytest.mark.proves("writers")
def test_a_share_started_twice_is_one_line(
    many: Archive, bench: Bench, fault_of: Callable[..., str]
) -> None:
    task = many.task()
    folder = shares.shares_folder(task)
    folder.mkdir(parents=True)
    with Lock(folder, "share 2of3 of", share="2of3"):
        fault_of(lambda: bench.run(task, share=Share(2, 3)), "share 2of3", "pid")
        # The others go on.
        assert bench.run(task, share=Share(1, 3)).embedded == 8


def test_shares_of_one_run_share_a_precision(many: Archive, bench: Bench) -> None:
    task = many.task()
    bench.settings["faster"] = ("bf16",)
    bench.run(task, share=Share(1, 2))
    first = [path.name for path in (task.work / "cache").glob("resnet18-*")]
    bench.run(task, share=Share(2, 2))
    assert [path.name for path in (task.work / "cache").glob("resnet18-*")] == first


def test_the_command_says_which_share(archive: Archive) -> None:
    archive.add_drawn(range(4))
    archive.task(backbones=["hog"])
    where = str(archive.folder)
    run = CliRunner().invoke(main, ["embed", where, "--units", "1/2", "--json", "--workers", "0"])
    assert run.exit_code == 0, run.output
    assert '"units": "1/2"' in run.stdout
    run = CliRunner().invoke(main, ["embed", where, "--units", "2/2", "--workers", "0"])
    assert run.stdout.startswith("share 2/2: 0 images")
    run = CliRunner().invoke(main, ["embed", where, "--json", "--workers", "0"])
    assert '"units"' not in run.stdout
    assert '"reused": 4' in run.stdout
    run = CliRunner().invoke(main, ["embed", where, "--units", "3/2"])
    assert run.exit_code == 2
    assert "K/N" in run.stderr
