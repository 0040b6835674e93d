"""Networks as encoders, against a plain loop: normalise, run, nothing else."""

from unittest.mock import Mock

import numpy as np
import nvidia
import pytest
import torch

from archiveprobe.embed.forward import Batch, ForwardThreads, PendingBatches
from archiveprobe.embed.models import Model, load_model
from archiveprobe.embed.networks import ImageNetwork, LoadedBackbone, load_backbone
from archiveprobe.embed.precision import cosines
from archiveprobe.embed.views import Rendered

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


def test_a_crop_may_be_shown_by_several_views(encoder, crops) -> None:
    crop = np.array([3, 0, 0, 4, 3])
    mirror = np.array([True, False, True, False, False])
    shown = encoder.embed(crops[:5], mirror, crop)
    np.testing.assert_array_equal(shown, encoder.embed(crops[crop], mirror))


@pytest.mark.parametrize("can_pin", [True, False])
def test_a_gpu_gets_every_crop_once_and_mirrors_it(model, crops, monkeypatch, can_pin) -> None:
    batch, expected = Batch(100, lambda _: None), Batch(100, lambda _: None)
    for number in range(3):
        rendered = Rendered(crops[number : number + 2], (0, 1, 0, 1), (False, False, True, True))
        batch.add(bytes([number]), rendered)
        expected.add(bytes([number]), rendered)
    on_cpu = expected.embed(ImageNetwork("tiny", model, "cpu").embed)

    cards = nvidia.pretend(monkeypatch)
    network = ImageNetwork("tiny", model, "cuda:1")
    if not can_pin:
        refusal = RuntimeError("CUDA error: out of memory")
        monkeypatch.setattr(torch, "empty", Mock(side_effect=refusal))
    cards.sent.clear()
    pending = PendingBatches(ForwardThreads("cuda:1"), "tiny on cuda:1")
    pending.submit(batch, network)
    [(_, rows)] = pending.results()
    pixels = [(sent, waits) for sent, waits in cards.sent if sent.dtype == torch.uint8]
    [(sent, waits)] = pixels
    assert sent.shape == (6, *crops.shape[1:]) and not waits
    assert [pinned.data_ptr() for pinned in cards.pinned] == [sent.data_ptr()] * can_pin
    for (key, row), (same, wanted) in zip(rows, on_cpu, strict=True):
        assert key == same
        np.testing.assert_array_equal(row, wanted)


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
