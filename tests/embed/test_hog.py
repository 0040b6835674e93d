"""The descriptor without weights: its length, its parts, its mirror image."""

import numpy as np
import pytest

from archiveprobe.embed.backbones import BACKBONES
from archiveprobe.embed.hog import SIZE, Hog, describe
from archiveprobe.embed.networks import load_backbone


@pytest.fixture
def crops(draw) -> np.ndarray:
    return np.stack([np.asarray(draw(seed, SIZE, SIZE)) for seed in range(3)])


def test_the_table_tells_its_width_and_size(crops) -> None:
    row = BACKBONES["hog"]
    encoder = load_backbone(row)
    embeddings = encoder.embed(crops, np.zeros(3, bool))
    assert embeddings.shape == (3, row.width)
    assert embeddings.dtype == np.float32
    assert encoder.preprocess.geometry.size == row.size
    assert (encoder.precision, encoder.random_weights) == ("fp32", False)


def test_a_mirrored_crop_is_the_mirror_image(crops) -> None:
    encoder = Hog()
    both = encoder.embed(crops, np.array([True, False, True]))
    np.testing.assert_array_equal(both[0], describe(crops[0, :, ::-1]))
    np.testing.assert_array_equal(both[1], describe(crops[1]))
    assert not np.array_equal(both[0], describe(crops[0]))


def test_colours_are_shares_of_the_four_fields() -> None:
    crop = np.zeros((SIZE, SIZE, 3), np.uint8)
    crop[: SIZE // 2, : SIZE // 2] = (0, 255, 255)  # Hue one half, full saturation and value.
    colours = describe(crop)[1764:].reshape(2, 2, 3, 8)
    np.testing.assert_allclose((colours**2).sum(-1), 1, atol=1e-6)
    assert np.argmax(colours[0, 0], axis=-1).tolist() == [4, 7, 7]
    assert np.argmax(colours[1, 1], axis=-1).tolist() == [0, 0, 0]


def test_gradients_tell_upright_from_level_stripes() -> None:
    stripes = np.tile(np.repeat([0, 255], 8), 8).astype(np.uint8)
    upright = np.broadcast_to(stripes[None, :, None], (SIZE, SIZE, 3))
    level = np.broadcast_to(stripes[:, None, None], (SIZE, SIZE, 3))
    one, two = describe(upright)[:1764], describe(level)[:1764]
    assert one @ two / np.linalg.norm(one) / np.linalg.norm(two) < 0.1


def test_a_blank_crop_has_an_embedding_that_can_be_stored() -> None:
    row = describe(np.full((SIZE, SIZE, 3), 255, np.uint8))
    assert np.isfinite(row).all()
    assert row.any()


def test_it_computes_at_one_precision() -> None:
    assert Hog().faster_precisions() == ()
