"""`embed --engine ray`: actors write shards, the command takes them over."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from counted import Archive, draw_picture

from archiveprobe.cache.store import Reader
from archiveprobe.cli import main
from archiveprobe.embed.ray_cluster import Cluster, ray_cluster
from archiveprobe.embed.run import Options, embed
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import read_manifest
from archiveprobe.task.snapshot import read_snapshot

pytest.importorskip("ray", reason="Ray is not installed: pip install 'archiveprobe[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster(1) as cluster:
        yield cluster


def rows_of(task: Task) -> dict[bytes, bytes]:
    (folder,) = (task.work / "cache").glob("hog-*")
    reader = Reader(folder)
    keys = sorted(reader.keys)
    return dict(zip(keys, (row.tobytes() for row in reader.read(keys)[1]), strict=True))


def fill(archive: Archive) -> Task:
    archive.add_drawn(range(70))
    archive.add("copy.png", archive.file("002.png").read_bytes())
    archive.add("cut.png", archive.file("005.png").read_bytes()[:-200])
    archive.add("missing.png", None)
    return archive.task(backbones=["hog"])


def test_a_cluster_gives_the_caches_manifest_and_snapshot_of_one_process(
    cluster: Cluster, archive: Archive, tmp_path: Path
) -> None:
    task, other = fill(archive), fill(Archive(tmp_path / "other"))
    local = embed(other, Options(workers=0, device="cpu"))
    spread = embed(task, Options(device="cpu", engine="ray"))
    assert (spread.images, spread.embedded, spread.duplicates, spread.failed) == (73, 70, 1, 2)
    assert spread.reasons == local.reasons
    assert rows_of(task) == rows_of(other)
    seen = [[(e.id, e.digest, e.observed) for e in read_manifest(t)] for t in (task, other)]
    assert seen[0] == seen[1]
    assert read_snapshot(task).parts == read_snapshot(other).parts
    # What is there already is not handed out; a new image is.
    archive.add("new.png", draw_picture(99))
    archive.task(backbones=["hog"])
    arguments = ["embed", str(archive.folder), "--engine", "ray", "--device", "cpu", "--json"]
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0, again.output
    assert again.stdout.startswith('{"images": 74, "embedded": 1, "reused": 70,')
    assert (
        CliRunner().invoke(main, ["cache", "verify", "--deep", str(archive.folder)]).exit_code == 0
    )


def test_shares_and_a_cluster_do_not_go_together(archive: Archive) -> None:
    archive.add_drawn(range(2))
    archive.task(backbones=["hog"])
    arguments = ["embed", str(archive.folder), "--engine", "ray", "--units", "1/2"]
    run = CliRunner().invoke(main, arguments)
    assert (run.exit_code, run.stdout) == (1, "")
    assert "--units and --engine ray do not go together" in run.stderr
