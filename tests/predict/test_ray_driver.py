"""Units of an archive, answered by a Ray cluster of this machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner
from unit_archive import Run, archive_of, fit, picture, pictured_task

from archiveprobe.cli import main
from archiveprobe.embed import ray_cluster as clusters
from archiveprobe.embed import ray_units
from archiveprobe.embed.ray_cluster import Cluster, ray_cluster
from archiveprobe.predict.drivers import ray as driver
from archiveprobe.task.config import Task, load_task

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'archiveprobe[ray]'")
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster of this machine with two cores and a GPU that Ray believes in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{SUPPORT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        start = ray.init
        patch.setattr(ray, "init", lambda *place, **how: start(*place, num_gpus=1, **how))
        with ray_cluster(2) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    task = pictured_task(tmp_path_factory.mktemp("pictured") / "task")
    fit(task)
    return task


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    contents = [picture(at) for at in range(20)]
    contents[7] = contents[2]
    contents[9], contents[11] = b"nothing", contents[4][:-300]
    return archive_of(tmp_path_factory.mktemp("archive") / "images", contents)


def work(cluster: Cluster, folder: Path, units: int = 12, **how: Any) -> Iterator[dict[str, Any]]:
    from ray_work import Decode, WriteTiny

    folder.mkdir(exist_ok=True)
    on_gpu = how.pop("on_gpu", False)
    rows = [{"unit": at} for at in range(units)]
    arguments = (folder, how.pop("fault", ""), how.pop("seconds", 0.0))
    return ray_units.map_units(
        cluster,
        rows,
        Decode(),
        WriteTiny,
        arguments,
        on_gpu=on_gpu,
        workers=how.pop("workers", None),
    )


def test_actors_keep_embeddings_side_by_side(
    cluster: Cluster, task: Task, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(task.folder, tmp_path / "task")
    own = load_task(tmp_path / "task")
    kept = Run(own, images, tmp_path / "kept", keep_embeddings=True)
    driver.run(kept.work, kept.index, range(kept.index.units), kept.receipts.append)

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("archiveprobe.embed.unit_encoder.load_backbone", refuse)
    again = Run(own, images, tmp_path / "again").drive()
    assert again.bytes() == kept.bytes()


def test_it_gives_the_same_bytes_as_the_local_driver(
    cluster: Cluster, task: Task, images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    local = Run(task, images, tmp_path / "local").drive()
    spread = Run(task, images, tmp_path / "ray")
    driver.run(spread.work, spread.index, range(spread.index.units), spread.receipts.append)
    assert spread.bytes() == local.bytes()
    assert set(spread.receipts) == set(local.receipts)
    assert len(spread.receipts) == len(local.receipts)
    assert Counter(row["status"] for row in spread.rows())["ok"] == 18
    # What Ray says of itself is not for whoever runs a command.
    assert capfd.readouterr() == ("", "")


def test_pixels_travel_from_tasks_to_actors_with_a_gpu(
    cluster: Cluster, task: Task, images: Path, tmp_path: Path
) -> None:
    local = Run(task, images, tmp_path / "local").drive()
    spread = Run(task, images, tmp_path / "ray")
    with spread.work.open(passes=1) as opened:
        decode = driver.DecodeUnit("run", spread.index, spread.work.source, opened.preparation)
    numbers = [{"unit": at} for at in range(spread.index.units)]
    arguments = (spread.work, spread.index)
    rows = list(
        ray_units.map_units(cluster, numbers, decode, driver.AnswerUnit, arguments, on_gpu=True)
    )
    assert len(rows) == spread.index.units
    assert spread.bytes() == local.bytes()


@pytest.mark.proves("images")
def test_an_image_that_ends_every_decoder_costs_itself_only(
    cluster: Cluster, task: Task, images: Path, tmp_path: Path
) -> None:
    from ray_work import DeadlySource

    spread = Run(task, images, tmp_path / "ray")
    source = DeadlySource(spread.work.source, "0005.png")
    driver.run(
        replace(spread.work, source=source),
        spread.index,
        range(spread.index.units),
        spread.receipts.append,
    )
    found = {row["id"]: row["status"] for row in spread.rows()}
    assert len(found) == 20
    assert found["0005.png"] == "decoder_died"
    assert found["0004.png"] == found["0006.png"] == "ok"


@pytest.mark.proves("killed")
@pytest.mark.parametrize("on_gpu", [False, True], ids=["one stage", "two stages"])
def test_killed_workers_lose_and_repeat_nothing(
    cluster: Cluster, tmp_path: Path, on_gpu: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    units, done = 40, []
    for row in work(cluster, tmp_path / "parts", units, on_gpu=on_gpu, seconds=0.02):
        done.append(row["unit"])
        if len(done) in (3, 14):
            os.kill(row["pid"], signal.SIGKILL)
    assert sorted(done) == list(range(units))
    assert capfd.readouterr().out == ""
    calls = Counter(
        line.split()[0] for line in (tmp_path / "parts" / "calls").read_text().splitlines()
    )
    # Only what was in the hands of a killed process is done again.
    assert set(calls) == set(map(str, range(units)))
    assert sum(calls.values()) - units <= 2 * ray_units.IN_FLIGHT


@pytest.mark.proves("disk")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("disk", ["cannot write answers into", "No space left", "run the same command again"]),
        ("network", ["RuntimeError", "mat1 and mat2", "what is done is kept"]),
        ("crash", ["ended 2 times at one unit", "what is done is kept"]),
    ],
)
def test_a_fault_of_a_worker_is_one_line(
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault_of: Callable[..., str],
    fault: str,
    words: list[str],
) -> None:
    monkeypatch.setattr(ray_units, "RETRIES", 1)
    fault_of(lambda: list(work(cluster, tmp_path / "parts", 6, fault=fault, workers=1)), *words)


@pytest.mark.proves("killed")
def test_a_killed_command_leaves_no_process_and_goes_on(task: Task, tmp_path: Path) -> None:
    out, whole = tmp_path / "answers", tmp_path / "whole"
    images = archive_of(tmp_path / "images", [picture(at) for at in range(400)])
    words = ["predict", str(task.folder), "--system", "ridge-hog", "--images", str(images)]
    command = [sys.executable, "-m", "archiveprobe", *words, "-o", str(out), "--engine", "ray"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        while len(list((out / "parts").glob("0*.parquet"))) < 2:
            assert running.poll() is None, running.communicate()
            time.sleep(0.1)
        started = clusters.descendants(running.pid)
        running.kill()
    assert started
    while any(map(clusters.is_running, started)):
        time.sleep(0.1)
    done = CliRunner().invoke(main, [*words, "-o", str(out), "--workers", "0"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(main, [*words, "-o", str(whole), "--workers", "0"])
    tables = [parquet.read_table(folder / "parts") for folder in (out, whole)]
    assert tables[0].num_rows == 400
    assert tables[0].equals(tables[1])


def test_no_gpu_for_the_device_is_said(
    cluster: Cluster, task: Task, fault_of: Callable[..., str]
) -> None:
    fault_of(lambda: clusters.device_of("cuda", Cluster(2, 0)), "no GPU", "--device cpu")
    assert clusters.device_of(None, Cluster(2, 0)) == "cpu"
    assert (
        clusters.device_of(None, Cluster(2, 1))
        == clusters.device_of("cuda:1", Cluster(2, 1))
        == "cuda"
    )


def test_the_cluster_listens_to_this_machine_only(cluster: Cluster) -> None:
    sockets = {
        str(link.readlink())
        for process in clusters.descendants(os.getpid())
        for link in Path(f"/proc/{process}/fd").glob("*")
        if link.is_symlink()
    }
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    listening = [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]
    assert listening
    loopback = "0100007F"
    assert {address.partition(":")[0][-8:] for address in listening} == {loopback}


def test_no_token_lies_where_others_can_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    clusters.protect_token(is_local=True)
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert list(tmp_path.iterdir()) == []
    # As Ray 2.60.0 writes it.
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    (tmp_path / ".ray" / "auth_token").chmod(0o644)
    clusters.protect_token(is_local=False)
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600


def test_ray_that_is_not_installed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, fault_of: Callable[..., str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    fault_of(clusters.load_ray, "pip install 'archiveprobe[ray]'")


def test_workers_share_the_cores_as_other_processes_do(cluster: Cluster) -> None:
    import ray

    assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)


def test_signals_of_the_command_stay_its_own(cluster: Cluster) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("failures", [2, 3])
def test_a_node_that_did_not_start_in_time_is_started_again(
    monkeypatch: pytest.MonkeyPatch, fault_of: Callable[..., str], failures: int
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def init(*_: str, _temp_dir: str, **__: Any) -> None:
        if len(started) < failures:
            wait = [sys.executable, "-c", "import time; time.sleep(600)", f"{_temp_dir}/session"]
            started.append(subprocess.Popen(wait))
            raise RuntimeError("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})

    def start() -> None:
        with ray_cluster(2) as cluster:
            assert cluster == Cluster(2, 0)

    if failures < 3:
        start()
    else:
        fault_of(start, "no Ray cluster", "timed out during startup")
    # What a start has left is gone before the next.
    assert [process.wait() for process in started] == [-signal.SIGKILL] * failures


def test_a_cluster_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, fault_of: Callable[..., str]
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("Failed to connect to\nRay cluster at 10.0.0.1:6379")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")

    def connect() -> None:
        with ray_cluster():
            pass

    fault_of(connect, "10.0.0.1:6379", "RAY_ADDRESS")
