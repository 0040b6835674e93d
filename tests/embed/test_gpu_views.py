"""Views of JPEGs that a stand-in for a GPU decodes: as Pillow makes them, within rounding."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from streets import FOR_PILLOW, as_a_gpu_does, jpeg, turned

from archiveprobe.embed.gpu_jpeg import NoDecoderError, jpeg_decoder
from archiveprobe.embed.gpu_views import GpuViews, by_pillow
from archiveprobe.embed.prepare import PreparedImage
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.view_sets import view_set
from archiveprobe.task.decoding import decode_pixels, digest


def lacking(content: bytes, geometry: Geometry, views: str) -> tuple[PreparedImage, dict]:
    wanted = {geometry: view_set(views)}
    decoded = decode_pixels(content, "gpu")
    assert decoded.is_small
    return PreparedImage(digest(content), decoded.observation, {}, content), wanted


def smooth(files: Sequence[bytes]) -> list[torch.Tensor]:
    return as_a_gpu_does(files, smooth=True)


@pytest.mark.parametrize("views", ["center", "squash", "crops6"])
@pytest.mark.parametrize("crop", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(90, 70), (70, 90), (31, 120), (20, 16)])
def test_crops_are_those_of_pillow_within_rounding(views, crop, interpolation, size) -> None:
    geometry = Geometry(24, 28, crop, interpolation, fill=(9, 120, 255), decode="gpu")
    image, wanted = lacking(jpeg(7, size), geometry, views)
    [made] = GpuViews("cpu", smooth, wanted).complete([image])
    expected = by_pillow(image, wanted).views[geometry]
    given = made.views[geometry]
    assert (made.jpeg, given.crop, given.mirror) == (b"", expected.crop, expected.mirror)
    assert given.crops.dtype == np.uint8 and given.crops.shape == expected.crops.shape
    off = np.abs(given.crops.astype(int) - expected.crops)
    assert off.max() <= 2 and (off > 1).mean() < 0.002


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_upright(orientation) -> None:
    geometry = Geometry(24, 24, decode="gpu")
    image, wanted = lacking(turned(orientation), geometry, "crops3")
    assert image.observation.orientation == orientation
    [made] = GpuViews("cpu", smooth, wanted).complete([image])
    expected = by_pillow(image, wanted).views[geometry].crops
    assert np.abs(made.views[geometry].crops.astype(int) - expected).max() <= 2


def test_a_strip_is_cut_by_pillow() -> None:
    geometry = Geometry(24, 24, decode="gpu")
    image, wanted = lacking(jpeg(8, (400, 33)), geometry, "crops3")
    said: list[str] = []
    gpu = GpuViews("cpu", smooth, wanted)
    [made] = gpu.complete([image])
    gpu.report(said.append)
    assert said == ["JPEGs that Pillow decoded instead of cpu: 1 extreme_aspect"]
    expected = by_pillow(image, wanted).views[geometry]
    np.testing.assert_array_equal(made.views[geometry].crops, expected.crops)


def some_images(count: int) -> tuple[list[PreparedImage], dict]:
    geometry = Geometry(24, 24, decode="gpu")
    made = [lacking(jpeg(seed), geometry, "flip") for seed in range(count)]
    images = [image for image, _ in made]
    # Between them one that lacks nothing, and one that is none.
    full = by_pillow(images[0], made[0][1])
    broken = PreparedImage("00", images[0].observation._replace(status="corrupt"))
    return [*images[:3], full, broken, *images[3:]], made[0][1]


def of_all(images: Sequence[PreparedImage]) -> list[bytes]:
    return [b"".join(view.crops.tobytes() for view in image.views.values()) for image in images]


@pytest.mark.parametrize("most", [1, 2, 5])
def test_groups_are_halved_where_memory_ends(most) -> None:
    images, wanted = some_images(9)
    sizes: list[int] = []

    def small(files: Sequence[bytes]) -> list[torch.Tensor]:
        sizes.append(len(files))
        if len(files) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return smooth(files)

    gpu = GpuViews("cpu", small, wanted)
    said: list[str] = []
    made = list(gpu.stream(images))
    assert of_all(made) == of_all(GpuViews("cpu", smooth, wanted).complete(images))
    gpu.report(said.append)
    assert said == [] and max(sizes) == 9
    sizes.clear()
    # A size that memory asked for stays.
    list(gpu.stream(images))
    assert max(sizes) <= most


@pytest.mark.proves("numbers")
def test_one_that_is_refused_costs_itself_only() -> None:
    images, wanted = some_images(9)
    bad = {images[0].jpeg, images[7].jpeg}

    def picky(files: Sequence[bytes]) -> list[torch.Tensor]:
        if bad & set(files):
            raise RuntimeError("the file is not supported")
        return smooth(files)

    gpu = GpuViews("cpu", picky, wanted)
    made = list(gpu.stream(images))
    said: list[str] = []
    gpu.report(said.append)
    assert said == ["JPEGs that Pillow decoded instead of cpu: 2 RuntimeError"]
    assert [image.digest for image in made] == [image.digest for image in images]
    for image, given in zip(images, made, strict=True):
        if image.jpeg in bad:
            assert of_all([given]) == of_all([by_pillow(image, wanted)])
    assert not any(image.jpeg for image in made)


def test_pixels_of_another_size_are_refused() -> None:
    images, wanted = some_images(1)
    gpu = GpuViews("cpu", lambda files: [one[:, 1:] for one in smooth(files)], wanted)
    assert gpu.on_gpu(images[:1]) == [None]


@pytest.mark.parametrize("name", FOR_PILLOW)
def test_what_is_left_to_pillow(name) -> None:
    decoded = decode_pixels(FOR_PILLOW[name], "gpu")
    assert not decoded.is_small
    assert decoded.image == decode_pixels(FOR_PILLOW[name], "exact").image


def test_a_small_copy_is_seen_at_its_own_size() -> None:
    content = jpeg(3, (1100, 1400))
    decoded = decode_pixels(content, "gpu")
    assert decoded.is_small and decoded.image.size == (275, 350)
    assert (decoded.observation.width, decoded.observation.height) == (1100, 1400)


def test_a_cpu_has_no_decoder() -> None:
    with pytest.raises(NoDecoderError, match="this run is on cpu"):
        jpeg_decoder("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU with CUDA decodes")
def test_a_torchvision_that_cannot_use_a_gpu_says_why() -> None:
    with pytest.raises(NoDecoderError, match=r"torchvision decodes no JPEG here \(.+\)"):
        jpeg_decoder("cuda")
