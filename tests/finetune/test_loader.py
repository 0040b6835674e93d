"""Batches are the same however they are drawn, and drawing moves nobody else's random numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embed import libraries
from embed.preprocess import Geometry, Preprocess
from embed.views import view_set
from finetune.augment import Augmentation, normalised
from finetune.checkpoint import random_states
from finetune.loader import Loader, PictureRows
from finetune.pixels import Wanted, load_pixels
from finetune.settings import Augment
from task.images import digest

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


def test_views_are_the_stored_ones_normalised(rows) -> None:
    batch = rows.look([2, 0], 1)
    expected = normalised(
        np.stack([rows.pixels.view(2, 1), rows.pixels.view(0, 1)]), rows.preprocess
    )
    assert torch.equal(batch, expected)
    assert torch.equal(batch, rows.look([2, 0], 0).flip(-1))
