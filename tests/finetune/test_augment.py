"""Training pixels: what is drawn, from what, and that it hangs on seed, epoch and row only."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from archiveprobe.embed import augment as paper
from archiveprobe.embed.preprocess import Geometry, Preprocess
from archiveprobe.finetune import augment
from archiveprobe.finetune.augment import (
    Augmentation,
    as_floats,
    mix,
    mixup_share,
    normalise,
    rand_augment,
    seeded,
)
from archiveprobe.finetune.recipe import Augment
from archiveprobe.finetune.recipe_file import load_recipe

POLICY = "rand-m9-n2-mstd0.5-inc1"
MEAN, STD = (0.5, 0.25, 0.75), (0.25, 0.5, 0.125)
PREPROCESS = Preprocess(Geometry(32, 36, interpolation="bilinear"), MEAN, STD)
STILL = Augment(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def all_on() -> Augmentation:
    settings = Augment(rotation=10.0, jitter=(0.2, 0.2, 0.2, 0.1), rand_augment=POLICY, erasing=0.5)
    return Augmentation(settings, PREPROCESS, seed=7)


def test_without_amounts_the_image_is_resized_and_normalise() -> None:
    square = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    drawn = Augmentation(STILL, PREPROCESS, seed=0)(square, epoch=0, row=0)
    assert drawn.dtype == torch.uint8
    made = as_floats(drawn, PREPROCESS)
    plain = np.asarray(Image.fromarray(square).resize((32, 32), Image.Resampling.BILINEAR))
    expected = ((plain / 255 - MEAN) / STD).transpose(2, 0, 1)
    assert made.dtype == torch.float32
    assert made.is_contiguous()
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_normalisation_by_hand() -> None:
    pixels = np.array([[[255, 0, 51]]], dtype=np.uint8)
    # (1 - .5) / .25, (0 - .25) / .5, (.2 - .75) / .125.
    np.testing.assert_allclose(normalise(pixels, PREPROCESS).ravel(), [2, -0.5, -4.4], rtol=1e-5)
    assert normalise(np.stack([pixels, pixels]), PREPROCESS).shape == (2, 3, 1, 1)


def test_a_draw_hangs_on_seed_epoch_and_row_only(image) -> None:
    made = all_on()
    first = made(image, 3, 5)
    for epoch, row in ((0, 0), (3, 4), (4, 5)):
        assert not torch.equal(made(image, epoch, row), first)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    again = all_on()(image, 3, 5)
    assert torch.equal(again, first)
    other = Augmentation(made.settings, PREPROCESS, seed=8)
    assert not torch.equal(other(image, 3, 5), first)


def test_every_occurrence_in_an_epoch_is_another_draw_and_the_first_is_what_it_was(image) -> None:
    made = all_on()
    drawn = [made(image, 3, 5, occurrence) for occurrence in range(4)]
    assert torch.equal(drawn[0], made(image, 3, 5))
    for at, one in enumerate(drawn):
        assert not any(torch.equal(one, other) for other in drawn[:at])
    assert torch.equal(made(image, 3, 5, 2), drawn[2])
    # The words that seeded draws before occurrences were counted.
    plain = Augmentation(Augment(rotation=10.0, jitter=(0.2, 0.2, 0.2, 0.1)), PREPROCESS, seed=7)
    before = paper.random_view(
        Image.fromarray(image),
        32,
        Image.Resampling.BILINEAR,
        seeded("augment", 7, 3, 5),
        paper.CLIP_PAPER,
    )
    np.testing.assert_array_equal(plain.pixels(image, 3, 5), np.asarray(before))


def test_the_global_generators_are_left_as_they_were(image) -> None:
    def state():
        drawn = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        return drawn[0], drawn[1][1].tolist(), drawn[2].tolist()

    before = state()
    all_on()(image, 0, 0)
    assert state() == before


def test_the_clip_papers_draws_are_those_of_the_cached_views(image, monkeypatch) -> None:
    """The recipe spells out what `augmentK` draws; the two must not drift apart."""
    settings = load_recipe("nu-clip-last-block").augment
    made = Augmentation(settings, PREPROCESS, seed=0)
    for row in range(5):
        word = np.random.default_rng(row)
        monkeypatch.setattr(augment, "seeded", lambda *_, word=word: word)
        view = paper.random_view(
            Image.fromarray(image),
            32,
            Image.Resampling.BILINEAR,
            np.random.default_rng(row),
            paper.CLIP_PAPER,
        )
        np.testing.assert_array_equal(made.pixels(image, 0, row), np.asarray(view))


def test_crops_are_resized_as_the_recipe_says_or_as_the_weights_do() -> None:
    asked = Augmentation(load_recipe("kvochur-convnextv2-nano").augment, PREPROCESS, 0)
    assert asked.resampling is Image.Resampling.BICUBIC
    assert Augmentation(Augment(), PREPROCESS, 0).resampling is Image.Resampling.BILINEAR


def test_the_operations_of_rand_augment() -> None:
    policy = rand_augment(POLICY, 384, (0.485, 0.456, 0.406), Image.Resampling.BICUBIC)
    assert policy.num_layers == 2
    assert policy.choice_weights is None
    assert [op.name for op in policy.ops] == [
        "AutoContrast",
        "Equalize",
        "Invert",
        "Rotate",
        "PosterizeIncreasing",
        "SolarizeIncreasing",
        "SolarizeAdd",
        "ColorIncreasing",
        "ContrastIncreasing",
        "BrightnessIncreasing",
        "SharpnessIncreasing",
        "ShearX",
        "ShearY",
        "TranslateXRel",
        "TranslateYRel",
    ]
    assert {(op.magnitude, op.magnitude_std, op.prob) for op in policy.ops} == {(9, 0.5, 0.5)}
    assert policy.ops[0].kwargs["fillcolor"] == (124, 116, 104)
    assert policy.ops[0].kwargs["resample"] is Image.Resampling.BICUBIC


# At 9 of 10: 27 degrees, 4 - 3 bits, 256 - 230, 0.9 of 110, 1 +- 0.81, 0.27 and 0.405 of the side.
MAGNITUDES = {
    "Rotate": 27,
    "PosterizeIncreasing": 1,
    "SolarizeIncreasing": 26,
    "SolarizeAdd": 99,
    "ColorIncreasing": 0.81,
    "ContrastIncreasing": 0.81,
    "BrightnessIncreasing": 0.81,
    "SharpnessIncreasing": 0.81,
    "ShearX": 0.27,
    "ShearY": 0.27,
    "TranslateXRel": 0.405,
    "TranslateYRel": 0.405,
}


def test_the_magnitudes_of_rand_augment() -> None:
    policy = rand_augment(POLICY, 384, (0.5, 0.5, 0.5), Image.Resampling.BICUBIC)
    measured = {}
    for op in policy.ops:
        if op.level_fn is not None:
            (amount,) = op.level_fn(op.magnitude, op.hparams)
            around = 1 if "Increasing" in op.name and op.name[0] in "CB" else 0
            around = 1 if op.name == "SharpnessIncreasing" else around
            measured[op.name] = abs(amount - around)
    assert measured == pytest.approx(MAGNITUDES)


def test_two_operations_each_with_probability_one_half(image) -> None:
    """Neither is applied to a quarter of the images."""
    settings = STILL.model_copy(update={"rand_augment": POLICY})
    made = Augmentation(settings, PREPROCESS, seed=0)
    square = image[:32, :32]
    untouched = sum(np.array_equal(made.pixels(square, 0, row), square) for row in range(400))
    # The standard error of 400 draws is 8.7; weak operations may change nothing as well.
    assert 70 < untouched < 150


def test_the_highest_magnitude_leaves_one_bit_of_every_pixel(image) -> None:
    """timm asks Pillow for none, which Pillow 13 refuses: one image in 650 would end the run."""
    policy = rand_augment("rand-m10-n2-inc1", 32, MEAN, Image.Resampling.BICUBIC)
    (posterize,) = (op for op in policy.ops if op.name == "PosterizeIncreasing")
    posterize.prob = 1.0
    made = np.asarray(posterize(Image.fromarray(image)))
    np.testing.assert_array_equal(made, image & 0b1000_0000)


def test_erasing_puts_noise_in_a_quarter_of_the_images() -> None:
    settings = STILL.model_copy(update={"erasing": 0.25})
    made = Augmentation(settings, PREPROCESS, seed=0)
    grey = np.full((32, 32, 3), 128, dtype=np.uint8)
    plain = normalise(grey, PREPROCESS)
    shares, noise = [], []
    for row in range(400):
        changed = (made(grey, 0, row) != plain).any(0)
        if changed.any():
            shares.append(float(changed.float().mean()))
            noise.append(made(grey, 0, row)[:, changed])
    assert 70 < len(shares) < 130
    assert 0.01 < min(shares) < 0.06
    assert 0.25 < max(shares) < 0.38
    every = torch.cat([values.flatten() for values in noise])
    assert abs(float(every.mean())) < 0.05
    assert abs(float(every.std()) - 1) < 0.05
    # A draw for every pixel, not one for every rectangle.
    assert min(float(values.std(1).min()) for values in noise if values.shape[1] > 50) > 0.5


def test_what_is_not_erased_is_normalised_to_the_bit() -> None:
    made = Augmentation(STILL.model_copy(update={"erasing": 1e-12}), PREPROCESS, seed=0)
    every = np.random.default_rng(0).permutation(np.arange(32 * 32 * 3) % 256).astype(np.uint8)
    pixels = made.pixels(every.reshape(32, 32, 3), 0, 0)
    assert all(len(np.unique(band)) > 200 for band in np.moveaxis(pixels, -1, 0))
    assert torch.equal(made(every.reshape(32, 32, 3), 0, 0), normalise(pixels, PREPROCESS))


def test_mixup_by_hand() -> None:
    pixels = torch.tensor([[0.0], [10.0], [100.0]])
    assert mix(pixels, 0.75).tolist() == [[25.0], [10.0], [75.0]]
    assert mix(pixels, 1.0) is pixels


def test_mixup_draws_from_its_beta_distribution() -> None:
    shares = np.array(
        [mixup_share(0.2, 0, epoch, step) for epoch in range(20) for step in range(50)]
    )
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    assert abs(shares.mean() - 0.5) < 0.05
    assert abs(shares.var() - 1 / 5.6) < 0.02
    assert mixup_share(0.2, 0, 3, 4) == shares[3 * 50 + 4]
    assert mixup_share(0.0, 0, 3, 4) == 1.0


def test_words_are_told_apart() -> None:
    first = {seeded(*words).random() for words in (("a", 1, 2), ("a", 1, 2, 0), ("a", 12))}
    assert len(first) == 3
