"""Forward passes: batches of distinct crops, side by side, while the next images are decoded."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshots import current_cache

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import is_locked
from archiveprobe.cache.store import Reader
from archiveprobe.embed import forward
from archiveprobe.embed.forward import Batch, ForwardThreads, PendingBatches
from archiveprobe.embed.inventory import verify_caches
from archiveprobe.embed.job import Job
from archiveprobe.embed.views import Rendered
from archiveprobe.task.manifest import read_manifest


def image(number: int, crops: int, views: list[tuple[int, bool]]) -> Rendered:
    """A rendered image whose crop c consists of pixels of the value 10 * number + c."""
    pixels = np.stack([np.full((2, 2, 3), 10 * number + crop, np.uint8) for crop in range(crops)])
    return Rendered(pixels, tuple(at for at, _ in views), tuple(mirror for _, mirror in views))


class Arithmetic:
    """Embeds a crop as (its value, 1 if mirrored), and remembers the sizes of its batches.

    `sent` are the crops that every batch brought.
    """

    def __init__(self, most: int = 1000, message: str = "CUDA out of memory") -> None:
        self.sizes: list[int] = []
        self.sent: list[int] = []
        self.most, self.message = most, message

    def __call__(self, crops: np.ndarray, mirror: np.ndarray, crop: np.ndarray) -> np.ndarray:
        if len(crop) > self.most:
            raise RuntimeError(self.message)
        self.sizes.append(len(crop))
        self.sent.append(len(crops))
        return np.stack([crops[crop, 0, 0, 0], mirror], axis=1).astype(np.float32)


looks = st.integers(1, 3).flatmap(
    lambda crops: st.tuples(
        st.just(crops),
        st.lists(st.tuples(st.integers(0, crops - 1), st.booleans()), min_size=1, max_size=6),
    )
)


@settings(max_examples=60, deadline=None)
@given(st.lists(looks, min_size=1, max_size=8), st.integers(1, 7))
def test_every_look_is_embedded_once_and_every_view_gets_its_own(images, size) -> None:
    batch, embed = Batch(size, lambda _: None), Arithmetic()
    for number, (crops, views) in enumerate(images):
        batch.add(bytes([number]), image(number, crops, views))
    results = batch.embed(embed)
    assert [key for key, _ in results] == [bytes([n]) for n in range(len(images))]
    for number, ((_, views), (_, rows)) in enumerate(zip(images, results, strict=True)):
        wanted = [(10 * number + crop, mirror) for crop, mirror in views]
        np.testing.assert_array_equal(rows, np.array(wanted, np.float32))
    assert sum(embed.sizes) == sum(len(set(views)) for _, views in images)
    assert max(embed.sizes) <= size
    # In one pass every crop that a view shows is handed over once, and no other one.
    whole = Batch(1000, lambda _: None)
    for number, (crops, views) in enumerate(images):
        whole.add(bytes([number]), image(number, crops, views))
    whole.embed(embed)
    assert embed.sent[-1] == sum(len({crop for crop, _ in views}) for _, views in images)


def test_there_is_room_for_distinct_looks() -> None:
    batch = Batch(3, lambda _: None)
    one, two = image(1, 1, [(0, False)]), image(0, 1, [(0, False), (0, False), (0, True)])
    # One image with too many is computed in parts.
    assert batch.empty and batch.has_room(image(2, 4, [(crop, False) for crop in range(4)]))
    batch.add(b"a", two)
    assert not batch.empty
    assert batch.has_room(one) and not batch.has_room(two)
    assert not batch.full
    batch.add(b"b", one)
    assert batch.full and not batch.has_room(one)


@pytest.mark.parametrize(("views", "passes"), [(6, 252), (1, 256), (3, 255)])
def test_a_batch_is_one_pass_whatever_the_views_of_an_image(views, passes) -> None:
    batch = Batch(256, lambda _: None)
    embed = Arithmetic()
    look = image(0, views, [(crop, False) for crop in range(views)])
    while batch.has_room(look):
        batch.add(b"a", look)
    batch.embed(embed)
    assert embed.sizes == [passes]


def test_nothing_waiting_embeds_nothing() -> None:
    embed = Arithmetic()
    assert Batch(3, lambda _: None).embed(embed) == []
    assert embed.sizes == []


def filled(size: int, said: list[str]) -> Batch:
    batch = Batch(size, said.append)
    for number in range(10):
        batch.add(bytes([number]), image(number, 1, [(0, False)]))
    return batch


def test_out_of_memory_halves_the_batch_and_goes_on() -> None:
    said: list[str] = []
    batch, embed = filled(8, said), Arithmetic(most=3)
    results = batch.embed(embed)
    assert [row[0, 0] for _, row in results] == [10 * number for number in range(10)]
    assert embed.sizes == [2] * 5
    assert said == ["out of memory: batch halved to 4", "out of memory: batch halved to 2"]
    assert batch.size == 2  # And stays there.


def test_freed_memory_is_kept_no_longer_once_it_is_short(monkeypatch) -> None:
    times: list[int] = []
    monkeypatch.setattr(forward, "give_back_freed_memory", lambda: times.append(1))
    filled(8, []).embed(Arithmetic(most=8))
    assert times == []
    filled(8, []).embed(Arithmetic(most=3))
    assert len(times) == 2


def test_out_of_memory_for_one_crop_is_raised() -> None:
    said: list[str] = []
    with pytest.raises(RuntimeError, match="out of memory"):
        filled(4, said).embed(Arithmetic(most=0))
    assert said[-1] == "out of memory: batch halved to 1"


@pytest.mark.parametrize("count", [1, 7, 8, 9, 12, 17])
def test_passes_are_as_few_and_as_even_as_can_be(count) -> None:
    batch, embed = Batch(8, lambda _: None), Arithmetic()
    for number in range(count):
        batch.add(bytes([number]), image(number, 1, [(0, False)]))
    batch.embed(embed)
    assert sum(embed.sizes) == count
    assert len(embed.sizes) == -(-count // 8)
    assert max(embed.sizes) - min(embed.sizes) <= 1


def test_another_fault_is_raised_at_once_and_nothing_is_lost() -> None:
    said: list[str] = []
    batch = filled(8, said)
    with pytest.raises(RuntimeError, match="shape"):
        batch.embed(Arithmetic(most=0, message="shape mismatch"))
    assert said == []
    assert len(batch.embed(Arithmetic())) == 10


@pytest.fixture
def three_cores(monkeypatch) -> None:
    monkeypatch.setattr("archiveprobe.embed.forward.usable_cores", lambda: 3)


def test_a_cpu_computes_a_batch_per_core(three_cores) -> None:
    together = threading.Barrier(3)
    threads = ForwardThreads("cpu")
    assert [part.result() for part in [threads.submit(together.wait, 60) for _ in range(3)]]
    assert threads.ahead == 4


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_computes_one_batch_while_the_next_one_waits(three_cores, device) -> None:
    threads = ForwardThreads(device)
    first, second = (threads.submit(threading.get_ident) for _ in range(2))
    assert first.result() == second.result() != threading.get_ident()
    assert threads.ahead == 2


class Places:
    """Remembers in which threads batches are gathered and computed."""

    def __init__(self, most: int = 10**6) -> None:
        self.gathered: list[int] = []
        self.computed: list[int] = []
        self._most = most

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if shape[0] > self._most:
            raise MemoryError
        self.gathered.append(threading.get_ident())
        return np.empty(shape, dtype)

    def embed(self, crops: np.ndarray, mirror: np.ndarray, crop: np.ndarray) -> np.ndarray:
        self.computed.append(threading.get_ident())
        return Arithmetic()(crops, mirror, crop)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_crops_are_gathered_before_the_thread_that_computes(device) -> None:
    pending, network = PendingBatches(ForwardThreads(device), "a network"), Places()
    for number in range(3):
        batch = Batch(1, lambda _: None)
        batch.add(b"a", image(number, 2, [(1, False), (0, True)]))
        pending.submit(batch, network)  # type: ignore[arg-type]
    rows = [rows[0][1].tolist() for _, rows in pending.results()]
    assert rows == [[[10 * number + 1, 0], [10 * number, 1]] for number in range(3)]
    assert network.gathered == [threading.get_ident()] * 3
    assert threading.get_ident() not in network.computed


@pytest.mark.proves("memory")
def test_a_batch_that_cannot_be_gathered_is_told_in_one_line() -> None:
    pending, batch = PendingBatches(ForwardThreads("cpu"), "a network on cpu"), filled(16, [])
    with pytest.raises(InputError, match=r"out of memory gathering .* a smaller --batch-size"):
        pending.submit(batch, Places(most=9))  # type: ignore[arg-type]


@pytest.mark.proves("memory")
def test_a_pass_has_one_thread_and_torch_gets_its_own_back(three_cores) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        threads = ForwardThreads("cpu")
        assert threads.submit(torch.get_num_threads).result() == 1
        threads.restore()
        assert torch.get_num_threads() == 2
        # A thread that begins later asks for the number that the whole process has.
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
        assert threads.submit(torch.get_num_threads).result() == 1
        threads.restore()
    finally:
        torch.set_num_threads(before)


def test_a_gpu_leaves_torchs_threads_alone(three_cores) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert ForwardThreads("cuda").submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


def test_crops_are_embedded_one_by_one_in_order(three_cores) -> None:
    sizes = []

    class Encoder:
        def embed(self, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
            sizes.append(len(crops))
            return np.stack([crops[:, 0], mirror], axis=1)

    crops, mirror = np.arange(10)[:, None], np.arange(10) % 2 == 1
    rows = ForwardThreads("cpu").embed(Encoder(), crops, mirror)  # type: ignore[arg-type]
    assert rows.tolist() == [[number, number % 2] for number in range(10)]
    assert sizes == [1] * 10


def test_a_run_leaves_torchs_threads_as_they_were(three_cores, archive, bench) -> None:
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


@pytest.fixture
def one_thread(monkeypatch) -> None:
    """Batch one after the other, as on a GPU; a test may ask for more threads."""
    use_threads(monkeypatch, 1, ahead=1)


def use_threads(monkeypatch, count: int, *, ahead: int) -> None:
    def make(device: str) -> ForwardThreads:
        threads = ForwardThreads(device)
        threads.ahead = ahead
        return threads

    monkeypatch.setattr("archiveprobe.embed.forward.usable_cores", lambda: count)
    monkeypatch.setattr("archiveprobe.embed.plan.ForwardThreads", make)


def stored(task, backbone="resnet18") -> np.ndarray:
    reader = Reader(current_cache(task, backbone).folder)
    keys = [bytes.fromhex(entry.digest) for entry in read_manifest(task) if entry.usable]
    return reader.read(keys)[1]


def test_every_row_is_the_one_of_its_image(one_thread, mixed, bench, monkeypatch) -> None:
    task = mixed.task(["resnet18", "resnet50"], views="crops6")
    summary = bench.run(task, batch_size=3)
    assert (summary.embedded, summary.duplicates, summary.failed) == (10, 2, 4)
    rows = [stored(task, name) for name in ("resnet18", "resnet50")]
    use_threads(monkeypatch, 3, ahead=4)
    again = mixed.task(["resnet18", "resnet50"], views="crops6")
    for name in ("resnet18", "resnet50"):
        for shard in (current_cache(again, name).folder / "shards").iterdir():
            shard.unlink()
    assert bench.run(again, batch_size=3).embedded == 10
    for name, before in zip(("resnet18", "resnet50"), rows, strict=True):
        np.testing.assert_array_equal(stored(again, name), before)


def test_the_next_batch_is_gathered_while_one_is_computed(one_thread, archive, bench) -> None:
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


@pytest.mark.proves("memory")
@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_a_fault_in_a_forward_pass_keeps_what_is_done(one_thread, archive, bench, fault) -> None:
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
    assert verify_caches(task, deep=True).ok


def test_a_fault_elsewhere_keeps_the_batch_that_was_running(
    one_thread, archive, bench, monkeypatch
) -> None:
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


def test_a_smaller_batch_that_memory_asked_for_stays(one_thread, archive, bench) -> None:
    archive.add_drawn(range(12))

    def scarce() -> None:
        if not bench.encoders["resnet18"].log and not bench.said:
            raise RuntimeError("CUDA out of memory")

    bench.settings["before"] = scarce
    assert bench.run(archive.task(), precision="fp32").embedded == 12
    # The second batch was gathered before the first had told how much fits.
    assert bench.encoders["resnet18"].log == [2, 2, 4, 2, 2]
