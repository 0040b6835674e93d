"""Networks as encoders, against a plain loop: normalise, run, nothing else."""

import numpy as np
import pytest
import torch

from archiveprobe.embed.models import Model, load_model
from archiveprobe.embed.networks import ImageNetwork, LoadedBackbone, load_backbone
from archiveprobe.embed.precision import cosines

LIBRARY = {"test_resnet": "timm", "test_vit": "timm", "test_convnext2": "timm"}
NONE = np.zeros(5, bool)


@pytest.fixture(scope="module", params=[*LIBRARY, "clip"])
def model(request, make_backbone, tiny_clip) -> Model:
    name = tiny_clip if request.param == "clip" else request.param
    return load_model(make_backbone(name, library=LIBRARY.get(name, "open_clip")))


@pytest.fixture(scope="module")
def encoder(model) -> ImageNetwork:
    return ImageNetwork("tiny", model, "cpu")


@pytest.fixture(scope="module")
def crops(model, draw) -> np.ndarray:
    side = model.preprocess.geometry.size
    return np.stack([np.asarray(draw(seed, side, side)) for seed in range(5)])


def plain(model: Model, crops: np.ndarray) -> np.ndarray:
    """One crop at a time, normalised by torchvision."""
    from torchvision.transforms import functional as tv

    rows = []
    with torch.no_grad():
        for crop in crops:
            pixels = tv.normalize(
                tv.to_tensor(crop.copy()), model.preprocess.mean, model.preprocess.std
            )
            rows.append(model.module(pixels[None])[0].numpy())
    return np.stack(rows)


def test_embeddings_are_those_of_a_plain_loop(model, encoder, crops) -> None:
    ours = encoder.embed(crops, NONE)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, plain(model, crops), atol=1e-5, rtol=1e-5)


def test_mirroring_is_flipping_the_pixels(encoder, crops) -> None:
    mirror = np.array([True, False, True, False, True])
    flipped = np.where(mirror[:, None, None, None], crops[:, :, ::-1], crops)
    mirrored = encoder.embed(crops, mirror)
    np.testing.assert_array_equal(mirrored, encoder.embed(flipped, NONE))
    assert not np.allclose(mirrored[0], encoder.embed(crops, NONE)[0], atol=1e-4)


def test_the_size_of_the_batch_is_no_part_of_the_answer(encoder, crops) -> None:
    whole = encoder.embed(crops, NONE)
    single = np.concatenate([encoder.embed(crops[at : at + 1], NONE[:1]) for at in range(5)])
    assert cosines(whole, single).min() > 1 - 1e-6
    assert np.isfinite(whole).all()


def test_the_pixels_handed_in_are_left_alone(encoder, crops) -> None:
    before = crops.copy()
    encoder.embed(crops, ~NONE)
    np.testing.assert_array_equal(crops, before)


def test_bf16_runs_and_is_close_and_leaves_fp32_as_it_was(encoder, crops) -> None:
    before = encoder.embed(crops, NONE)
    fast = encoder.at("bf16")
    assert (fast.precision, encoder.precision) == ("bf16", "fp32")
    rows = fast.embed(crops, NONE)
    assert rows.dtype == np.float32
    assert not np.array_equal(rows, before)
    assert cosines(rows, before).min() > 0.99
    np.testing.assert_array_equal(encoder.embed(crops, NONE), before)


def test_no_gradient_is_kept(encoder, crops) -> None:
    assert not any(parameter.requires_grad for parameter in encoder._module.parameters())
    seen = []
    hook = encoder._module.register_forward_hook(
        lambda *_: seen.append((torch.is_inference_mode_enabled(), encoder._module.training))
    )
    encoder.embed(crops, NONE)
    hook.remove()
    assert seen == [(True, False)]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_an_encoder_tells_what_fingerprints_need(make_backbone, name) -> None:
    encoder: LoadedBackbone = load_backbone(make_backbone(name))
    model = load_model(make_backbone(name))
    assert encoder.name == "own"
    assert encoder.random_weights
    assert encoder.precision == "fp32"
    assert (encoder.weights_digest, encoder.preprocess) == (model.digest, model.preprocess)
    assert set(encoder.faster_precisions()) <= {"bf16"}


@pytest.mark.filterwarnings("error")
def test_a_cache_made_at_fp16_is_gone_on_with_on_a_cpu(encoder, crops) -> None:
    exact = encoder.embed(crops, NONE)
    assert np.array_equal(encoder.at("fp16").embed(crops, NONE), exact)
