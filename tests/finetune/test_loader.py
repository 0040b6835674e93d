"""Batches are the same however they are drawn, and drawing moves nobody else's random numbers."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.embed.preprocess import Geometry, Preprocess
from archiveprobe.embed.views import view_set
from archiveprobe.finetune import loader as module
from archiveprobe.finetune.augment import Augmentation, normalised
from archiveprobe.finetune.checkpoint import random_states
from archiveprobe.finetune.loader import Loader, PictureRows
from archiveprobe.finetune.pixels import Wanted, load_pixels
from archiveprobe.finetune.settings import Augment
from archiveprobe.task.decoding import digest

torch = libraries.torch()
BATCHES = [np.array([3, 0]), np.array([1, 2, 3]), np.array([2]), np.array([0, 1, 2, 3])]
EVERYTHING = Augment(
    rotation=10.0,
    jitter=(0.2, 0.2, 0.2, 0.1),
    rand_augment="rand-m9-n2-mstd0.5-inc1",
    erasing=0.5,
)


@pytest.fixture
def rows(tmp_path):
    files = []
    for seed in range(4):
        drawn = np.random.default_rng(seed).integers(0, 256, (40 + seed, 48, 3), np.uint8)
        Image.fromarray(drawn).save(tmp_path / f"{seed}.png")
        files.append((f"{seed}.png", digest(Path(tmp_path / f"{seed}.png").read_bytes())))
    preprocess = Preprocess(Geometry(32, 32), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    wanted = Wanted(36, preprocess.geometry, view_set("flip"))
    work = tmp_path / "work"
    with load_pixels(tmp_path, files, wanted, work, workers=0, memory_limit=0) as pixels:
        draw = Augmentation(EVERYTHING, preprocess, seed=1)
        yield PictureRows(pixels, draw, preprocess)


def states() -> list[object]:
    """The global generators, every word of them."""
    found = random_states()
    return [found["python"], found["numpy"], found["torch"].tolist()]


def test_processes_draw_what_this_one_draws_and_move_no_generator(rows) -> None:
    before = states()
    with Loader(rows, workers=0) as here, Loader(rows, workers=2) as there:

        def check(batches, epoch, following=()) -> None:
            expected = list(here.epoch(batches, epoch, following))
            found = list(there.epoch(batches, epoch, following))
            assert states() == before
            for (asked, one), (also, other), batch in zip(expected, found, batches, strict=True):
                np.testing.assert_array_equal(asked, batch)
                np.testing.assert_array_equal(also, batch)
                assert one.shape == (len(batch), 3, 32, 32)
                assert torch.equal(one, other)

        turned = BATCHES[::-1]
        check(BATCHES, 0)
        assert there.ahead == 0
        check(BATCHES, 1, turned)
        assert there.ahead == len(turned)
        # More than the processes are given at once.
        check(turned, 2, BATCHES * 3)
        assert 0 < there.ahead < len(BATCHES) * 3
        check(BATCHES * 3, 3, turned)
        # What was begun is another epoch's, then another order: it is drawn anew.
        check(turned, 0, BATCHES)
        check(turned, 1, BATCHES)
        # An epoch that is broken off.
        next(there.epoch(BATCHES, 2, turned))
        check(BATCHES, 2)
        assert there.ahead == 0


@pytest.mark.parametrize("left_out", ["jitter", "rand_augment", "erasing"])
def test_each_kind_of_draw_is_among_those_compared(rows, left_out) -> None:
    settings = rows.draw.settings
    plain = settings.model_copy(update={left_out: getattr(Augment(), left_out)})
    other = replace(rows, draw=replace(rows.draw, settings=plain))
    every = np.concatenate(BATCHES)
    assert not torch.equal(rows.learn(every, 0), other.learn(every, 0))


def test_what_a_row_draws_depends_on_epoch_and_row_only(rows) -> None:
    alone = rows.learn([3], 0)[0]
    assert torch.equal(rows.learn([0, 1, 3], 0)[2], alone)
    assert not torch.equal(rows.learn([3], 1)[0], alone)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_row_that_comes_again_in_an_epoch_is_drawn_anew(rows, workers) -> None:
    # Seven places, as a sampler that balances classes fills them: row 3 comes four times.
    repeated = [np.array([3, 0, 3]), np.array([1, 3]), np.array([3, 0])]
    with Loader(rows, workers=workers) as loader:
        first, again, following = (
            torch.cat([batch for _, batch in loader.epoch(repeated, epoch)]) for epoch in (0, 0, 1)
        )
    assert torch.equal(first, again)
    drawn = [*first, *following]
    same = [a for at, a in enumerate(drawn) for b in drawn[:at] if torch.equal(a, b)]
    assert same == []
    # What comes for the first time is what it was when nothing was repeated.
    assert torch.equal(first[[0, 1, 3]], rows.learn([3, 0, 1], 0))


@pytest.fixture
def told() -> list[str]:
    return []


def same_batches(rows, loader: Loader, epochs: int = 2) -> None:
    with Loader(rows, workers=0) as plain:
        for epoch in range(epochs):
            ways = loader.epoch(BATCHES, epoch), plain.epoch(BATCHES, epoch)
            assert all(torch.equal(one[1], other[1]) for one, other in zip(*ways, strict=True))


def test_where_shared_memory_is_small_batches_go_through_pipes_aloud(
    rows, told, monkeypatch
) -> None:
    # Four rows of 3 x 32 x 32 floats, six batches drawn ahead, two more on their way.
    needed = 4 * 3 * 32 * 32 * 4 * (2 * 3 + 2)
    for free in (None, needed):
        monkeypatch.setattr(module, "free_bytes", lambda free=free: free)
        with Loader(rows, workers=2, notify=told.append) as loader:
            assert loader._made(BATCHES, 0).collate_fn is not module.as_array
    assert told == []
    monkeypatch.setattr(module, "free_bytes", lambda: needed - 1)
    with Loader(rows, workers=2, notify=told.append) as loader:
        same_batches(rows, loader)
        assert loader._loader.collate_fn is module.as_array
    assert len(told) == 1
    assert f"{module.SHARED} has 0 MB free" in told[0] and "--shm-size" in told[0]


def test_where_no_process_can_be_started_this_one_draws_aloud(rows, told, monkeypatch) -> None:
    def refused(_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", refused)
    with Loader(rows, workers=2, notify=told.append) as loader:
        same_batches(rows, loader)
        assert loader.ahead == 0
    assert len(told) == 1 and "Read-only file system" in told[0]


@pytest.mark.parametrize(
    ("stop", "what"), [("SIGSTOP", "give nothing any more"), ("SIGKILL", "ended")]
)
def test_nobody_waits_for_ever_for_a_process_that_is_stuck_or_gone(
    stop, what, rows, monkeypatch
) -> None:
    assert module.seconds_to_wait(BATCHES) == 308.0
    handlers = [signal.getsignal(each) for each in (signal.SIGCHLD, signal.SIGALRM)]
    with Loader(rows, workers=1) as loader:
        # As long as it takes to start; a moment for the others.
        limits = iter([300.0])
        real = module._next
        monkeypatch.setattr(module, "_next", lambda drawn, _: real(drawn, next(limits, 2.0)))
        drawn = loader.epoch(BATCHES * 5, 0)
        next(drawn)
        process = loader._begun._workers[0]
        os.kill(process.pid, getattr(signal, stop))
        # Whoever steps or saves in the meantime is not disturbed.
        time.sleep(0.5)
        with pytest.raises(InputError, match=f"draw training pictures {what}.*--workers") as told:
            list(drawn)
        assert "\n" not in str(told.value)
    assert not process.is_alive()
    assert [signal.getsignal(each) for each in (signal.SIGCHLD, signal.SIGALRM)] == handlers


SMALL = """
import os, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/dev/shm"], check=True)
import numpy as np
from PIL import Image
from archiveprobe.embed import libraries
from archiveprobe.embed.preprocess import Geometry, Preprocess
from archiveprobe.embed.views import view_set
from archiveprobe.finetune import loader as module
from archiveprobe.finetune.augment import Augmentation
from archiveprobe.finetune.pixels import Wanted, load_pixels
from archiveprobe.finetune.settings import Augment
from pathlib import Path
from archiveprobe.base.errors import InputError
from archiveprobe.task.decoding import digest

torch = libraries.torch()
root = Path(sys.argv[1])
preprocess = Preprocess(Geometry(224, 224), (0.5,) * 3, (0.2,) * 3)
wanted = Wanted(300, preprocess.geometry, view_set("center"))
rows = [("0.png", digest((root / "0.png").read_bytes()))]
batches = [np.zeros(8, int)] * 4
with load_pixels(root, rows, wanted, root, workers=0, memory_limit=0) as pixels:
    source = module.PictureRows(pixels, Augmentation(Augment(), preprocess, 0), preprocess)

    def trial():
        try:
            with module.Loader(source, workers=2, notify=print) as loader:
                for got, expected in zip(loader.epoch(batches, 0), batches, strict=True):
                    assert np.array_equal(got[0], expected)
            print("done")
        except InputError as error:
            print(error)

    trial()
    module.free_bytes = lambda: None
    trial()
    subprocess.run(["mount", "-o", "remount,ro", "/dev/shm"], check=True)
    trial()
"""


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
    assert "Traceback" not in done.stderr
    small, first, lost, refused, last = done.stdout.splitlines()
    assert small.startswith(f"{module.SHARED} has 1 MB free") and first == "done"
    # Room that was there when it was looked at, and is gone now.
    assert "processes that draw training pictures ended, as when memory runs out" in lost
    assert "no processes can be started" in refused and last == "done"


def test_views_are_the_stored_ones_normalised(rows) -> None:
    batch = rows.look([2, 0], 1)
    expected = normalised(
        np.stack([rows.pixels.view(2, 1), rows.pixels.view(0, 1)]), rows.preprocess
    )
    assert torch.equal(batch, expected)
    assert torch.equal(batch, rows.look([2, 0], 0).flip(-1))
