"""Forward passes side by side: how many, on how many threads each, and what is left behind."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from archiveprobe.embed import libraries
from archiveprobe.embed.lane import Lane

torch = libraries.torch()


@pytest.fixture(autouse=True)
def three_cores(monkeypatch) -> None:
    monkeypatch.setattr("archiveprobe.embed.lane.usable_cores", lambda: 3)


def test_a_cpu_computes_a_batch_per_core() -> None:
    together = threading.Barrier(3)
    lane = Lane("cpu")
    assert [part.result() for part in [lane.submit(together.wait, 60) for _ in range(3)]]
    assert lane.ahead == 4


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_computes_one_batch_and_gathers_the_next(device) -> None:
    lane = Lane(device)
    first, second = (lane.submit(threading.get_ident) for _ in range(2))
    assert first.result() == second.result() != threading.get_ident()
    assert lane.ahead == 1


def test_a_pass_has_one_thread_and_torch_gets_its_own_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        lane = Lane("cpu")
        assert lane.submit(torch.get_num_threads).result() == 1
        lane.rest()
        assert torch.get_num_threads() == 2
        # A thread that begins later asks for the number that the whole process has.
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
        assert lane.submit(torch.get_num_threads).result() == 1
        lane.rest()
    finally:
        torch.set_num_threads(before)


def test_a_gpu_leaves_torchs_threads_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert Lane("cuda").submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def test_crops_are_embedded_one_by_one_in_order() -> None:
    sizes = []

    class Encoder:
        def encode(self, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
            sizes.append(len(crops))
            return np.stack([crops[:, 0], mirror], axis=1)

    crops, mirror = np.arange(10)[:, None], np.arange(10) % 2 == 1
    rows = Lane("cpu").encode(Encoder(), crops, mirror)  # type: ignore[arg-type]
    assert rows.tolist() == [[number, number % 2] for number in range(10)]
    assert sizes == [1] * 10


def test_a_run_leaves_torchs_threads_as_they_were(archive, bench) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen = []
    bench.settings["before"] = lambda: seen.append(torch.get_num_threads())
    archive.add_drawn(range(6))
    try:
        bench.run(archive.task(["resnet18", "resnet50"]))
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_torchs_threads_sleep_unless_the_environment_says_otherwise(
    monkeypatch, given, expected
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    program = "import os; from archiveprobe.embed import libraries; libraries.torch()"
    shown = f"{program}; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
