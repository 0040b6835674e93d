"""Batches are the same however they are drawn, and drawing moves no global random numbers."""

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from archiveprobe.base.errors import InputError
from archiveprobe.embed.preprocess import Geometry, Preprocess
from archiveprobe.embed.view_sets import view_set
from archiveprobe.finetune import loader as module
from archiveprobe.finetune.augment import Augmentation, as_floats
from archiveprobe.finetune.checkpoint import random_states
from archiveprobe.finetune.images import ImageRows, PixelSpec, load_pixels
from archiveprobe.finetune.loader import BatchSampler, Draw, default_drawing, training_batches
from archiveprobe.finetune.recipe import Augment
from archiveprobe.task.decoding import digest

EVERYTHING = Augment(
    rotation=10.0,
    jitter=(0.2, 0.2, 0.2, 0.1),
    rand_augment="rand-m9-n2-mstd0.5-inc1",
    erasing=0.5,
)


def sampler_of(n: int, batch_size: int = 2, **more: Any) -> BatchSampler:
    """All of n rows; every third one is of the second class."""
    labels = (np.arange(n) % 3 == 0).astype(int)
    return BatchSampler(np.arange(n), labels, batch_size=batch_size, **({"seed": 0} | more))


def rows_of(sampler: BatchSampler) -> list[list[int]]:
    return [[draw.row for draw in batch] for batch in sampler]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 100), st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_an_epoch_has_every_row_once_and_no_batch_of_one_row(n, size, seed, epoch) -> None:
    ways = {"batch_size": size, "seed": seed, "epochs": range(epoch, epoch + 1)}
    batches = rows_of(sampler_of(n, **ways))
    assert batches == rows_of(sampler_of(n, **ways))
    assert sorted(row for batch in batches for row in batch) == list(range(n))
    assert all(len(batch) == size for batch in batches[:-1])
    assert len(batches) == sampler_of(n, **ways).steps and len(batches[-1]) <= size + 1
    if n > 1 and size > 1:
        assert len(batches[-1]) > 1


@pytest.mark.parametrize(
    ("device", "cores", "draws", "processes"),
    [
        ("cpu", 1, 70_000, 0),
        ("cpu", 2, 70_000, 1),
        ("cpu", 4, 70_000, 1),
        ("cpu", 16, 70_000, 4),
        ("cpu", 16, 500, 0),
        ("cuda:1", 16, 500, 16),
        ("mps", 8, 70_000, 8),
    ],
)
def test_how_many_processes_draw(monkeypatch, device, cores, draws, processes) -> None:
    monkeypatch.setattr(module, "default_workers", lambda: cores)
    assert default_drawing(device, draws) == processes


def test_batches_of_the_shared_task() -> None:
    assert [sampler_of(1400, 16).steps, sampler_of(1599, 32).steps] == [88, 50]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        str(rows_of(sampler_of(50, seed=seed, epochs=range(epoch, epoch + 1))))
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    }
    assert len(orders) == 4
    both = rows_of(sampler_of(50, epochs=range(2)))
    assert both == [
        batch for at in (0, 1) for batch in rows_of(sampler_of(50, epochs=range(at, at + 1)))
    ]


def test_a_balanced_order_has_the_classes_equally_often() -> None:
    labels = np.repeat([0, 1], [900, 100])
    rows = np.arange(1000)
    sampler = BatchSampler(
        rows, labels, sampler="balanced", batch_size=32, seed=0, epochs=range(20)
    )
    drawn = np.concatenate(rows_of(sampler))
    # 20,000 draws: the standard error of the share is .0035.
    assert abs(labels[drawn].mean() - 0.5) < 0.0125
    assert len(np.unique(drawn)) == 1000
    with pytest.raises(InputError, match="one class only"):
        BatchSampler(rows, labels * 0, sampler="balanced", batch_size=32, seed=0)


def test_occurrences_count_from_the_front_of_every_epoch() -> None:
    sampler = sampler_of(12, 5, sampler="balanced", epochs=range(2))
    draws = [draw for batch in sampler for draw in batch]
    for epoch in range(2):
        rows = [draw.row for draw in draws if draw.epoch == epoch]
        by_hand = [rows[:at].count(row) for at, row in enumerate(rows)]
        assert [draw.occurrence for draw in draws if draw.epoch == epoch] == by_hand
        assert max(by_hand) > 0


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[ImageRows]:
    files = []
    for seed in range(5):
        drawn = np.random.default_rng(seed).integers(0, 256, (40 + seed, 48, 3), np.uint8)
        Image.fromarray(drawn).save(tmp_path / f"{seed}.png")
        files.append((f"{seed}.png", digest((tmp_path / f"{seed}.png").read_bytes())))
    preprocess = Preprocess(Geometry(32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    spec = PixelSpec(36, preprocess.geometry, view_set("flip"))
    with load_pixels(tmp_path, files, spec, tmp_path, workers=0, memory_limit=0) as pixels:
        yield ImageRows(pixels, preprocess, Augmentation(EVERYTHING, preprocess, seed=1))


def states() -> list[object]:
    """The global generators, every word of them."""
    found = random_states()
    return [found["python"], found["numpy"], found["torch"].tolist()]


def equal_batches(one: Any, other: Any) -> int:
    count = 0
    for (asked, ours), (also, theirs) in zip(one, other, strict=True):
        assert asked == also and ours.shape == (len(asked), 3, 32, 32)
        assert torch.equal(ours, theirs)
        count += 1
    return count


@pytest.mark.proves("memory")
@pytest.mark.parametrize(
    ("pipes", "stop", "what"),
    [(False, "SIGKILL", "ended"), (True, "SIGSTOP", "give nothing any more")],
)
def test_processes_draw_what_this_one_draws_and_are_never_waited_for_without_limit(
    rows, pipes, stop, what, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through shared memory, or through pipes aloud where it is small."""
    sampler = sampler_of(5, epochs=range(20), sampler="balanced")
    # Two rows of 3 x 32 x 32 floats, three batches drawn ahead, two more on their way.
    needed = 2 * 3 * 32 * 32 * 4 * (3 + 2)
    free = needed // 5 * 2 if pipes else needed
    monkeypatch.setattr(module, "free_shared_memory", lambda: free)
    notes: list[str] = []
    signals = signal.SIGCHLD, signal.SIGALRM
    before, handlers = states(), [signal.getsignal(each) for each in signals]
    with closing(training_batches(rows, sampler, workers=1, notify=notes.append)) as there:
        count = 2 * sampler.steps
        here = islice(training_batches(rows, sampler), count)
        assert equal_batches(here, islice(there, count)) == count
        assert states() == before and len(notes) == pipes
        if pipes:
            assert (
                f"{module.SHARED_MEMORY} has 0.0 MB free" in notes[0] and "--shm-size" in notes[0]
            )
        real = module._watch
        monkeypatch.setattr(module, "_watch", lambda processes, _: real(processes, 1.0))
        (process,) = multiprocessing.active_children()
        os.kill(process.pid, getattr(signal, stop))
        # Whoever steps or saves in the meantime is not disturbed.
        time.sleep(0.3)
        with pytest.raises(InputError, match=f"draw training images {what}.*--workers") as error:
            list(there)
        assert "\n" not in str(error.value)
    process.join(10)
    assert not process.is_alive()
    assert [signal.getsignal(each) for each in signals] == handlers


@pytest.mark.proves("memory")
def test_what_is_drawn_ahead_is_fitted_to_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, notes = 32 * 384 * 384 * 3, []
    for free, ahead in ((50, 3), (49, 2), (34, 2), (33, 1), (18, 1), (17, 0), (0, 0)):
        monkeypatch.setattr(module, "free_shared_memory", lambda free=free: free * batch)
        notes.clear()
        assert module._ahead_in_shared_memory(batch, 16, notes.append) == ahead
        assert len(notes) == (ahead < 3)
        if ahead in (1, 2):
            assert f"every process draws {ahead} ahead instead of 3" in notes[0]
    assert "through pipes" in notes[0] and "--shm-size" in notes[0]


@pytest.mark.parametrize("erasing", [0.0, 0.5])
def test_images_travel_as_bytes_unless_noise_is_drawn_over_floats(rows, erasing) -> None:
    settings = EVERYTHING.model_copy(update={"erasing": erasing})
    rows = replace(rows, augmentation=replace(rows.augmentation, settings=settings))
    draws = [Draw(row, 0, 0) for row in range(5)]
    travelling = torch.stack([rows[draw] for draw in draws])
    assert travelling.dtype == (torch.float32 if erasing else torch.uint8)
    ready = as_floats(travelling, rows.preprocess)
    assert ready.shape == (5, 3, 32, 32) and ready.is_contiguous()
    # To the bit what each image gives by itself.
    one_by_one = [as_floats(rows[draw][None], rows.preprocess)[0] for draw in draws]
    assert torch.equal(ready, torch.stack(one_by_one))


@pytest.mark.proves("training")
def test_a_row_that_comes_again_in_an_epoch_is_drawn_anew(rows) -> None:
    drawn = [rows[Draw(3, epoch, occurrence)] for epoch in (0, 1) for occurrence in range(4)]
    same = [a for at, a in enumerate(drawn) for b in drawn[:at] if torch.equal(a, b)]
    assert same == []
    assert torch.equal(drawn[0], rows[Draw(3, 0, 0)])


@pytest.mark.parametrize("left_out", ["jitter", "rand_augment", "erasing"])
def test_each_kind_of_draw_is_among_those_compared(rows, left_out) -> None:
    augmentation = rows.augmentation
    plain = augmentation.settings.model_copy(update={left_out: getattr(Augment(), left_out)})
    other = replace(rows, augmentation=replace(augmentation, settings=plain))
    draws = [Draw(row, 0, 0) for row in range(5)]
    assert not all(torch.equal(rows[draw], other[draw]) for draw in draws)


@pytest.mark.proves("memory")
def test_where_no_process_can_be_started_this_one_draws_aloud(
    rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", refused)
    notes: list[str] = []
    sampler = sampler_of(5)
    there = training_batches(rows, sampler, workers=2, notify=notes.append)
    assert equal_batches(training_batches(rows, sampler), there) == sampler.steps
    assert len(notes) == 1 and "Read-only file system" in notes[0]


SMALL = """
import subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"], check=True)
from pathlib import Path
import numpy as np
from archiveprobe.base.errors import InputError
from archiveprobe.embed.preprocess import Geometry, Preprocess
from archiveprobe.embed.view_sets import view_set
from archiveprobe.finetune import loader as module
from archiveprobe.finetune.augment import Augmentation
from archiveprobe.finetune.images import ImageRows, PixelSpec, load_pixels
from archiveprobe.finetune.recipe import Augment
from archiveprobe.task.decoding import digest

root = Path(sys.argv[1])
preprocess = Preprocess(Geometry(224, 224), (0.5,) * 3, (0.2,) * 3)
spec = PixelSpec(300, preprocess.geometry, view_set("center"))
files = [("0.png", digest((root / "0.png").read_bytes()))] * 32
sampler = module.BatchSampler(np.arange(32), np.zeros(32, int), batch_size=8, seed=0)
with load_pixels(root, files, spec, root, workers=0, memory_limit=0) as pixels:
    rows = ImageRows(pixels, preprocess, Augmentation(Augment(), preprocess, 0))

    def trial():
        try:
            assert len(list(module.training_batches(rows, sampler, workers=1, notify=print))) == 4
            print("done")
        except InputError as error:
            print(error)

    assert module.free_shared_memory() == 1 << 20
    # Room that was there when it was looked at, and is gone now.
    module.free_shared_memory = lambda: 1 << 40
    module.SECONDS, module.SECONDS_PER_ROW = 20.0, 0.0
    trial()
"""


@pytest.mark.proves("memory")
def test_a_real_small_shared_memory_never_lets_a_run_wait(tmp_path: Path) -> None:
    inside = ["unshare", "--map-root-user", "--mount"]
    trial = [*inside, "mount", "-t", "tmpfs", "tmpfs", tmp_path]
    if not shutil.which("unshare") or subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("this system lets no test mount a file system of its own")
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "0.png")
    command = [*inside, sys.executable, "-c", SMALL, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (lost,) = done.stdout.splitlines()
    assert "processes that draw training images" in lost and "--workers" in lost
