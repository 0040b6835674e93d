"""Views, against torchvision and the libraries' own transforms to the pixel, and by eye."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from timm.data import create_transform
from torchvision import transforms as tv

from archiveprobe.embed import views
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.view_sets import VIEW_SETS, View, view_set
from archiveprobe.embed.views import RESAMPLING, render

NAMED = [name for name in VIEW_SETS if name != "augmentK"]
SIZES = [(90, 61), (61, 90), (70, 70), (20, 15), (15, 20), (301, 200), (33, 32), (224, 225)]


def shown(picture: Image.Image, geometry: Geometry, wanted: Sequence[View]) -> np.ndarray:
    """The pixels of every view, (views, size, size, 3), mirrors carried out."""
    rendered = render(picture, geometry, wanted, seed="seed")
    looks = zip(rendered.crop, rendered.mirror, strict=True)
    return np.stack(
        [rendered.crops[at][:, ::-1] if mirror else rendered.crops[at] for at, mirror in looks]
    )


def center(picture: Image.Image, geometry: Geometry) -> np.ndarray:
    return shown(picture, geometry, view_set("center"))[0]


@pytest.mark.parametrize(
    ("name", "resizes"),
    [("center", 1), ("squash", 1), ("flip", 1), ("crops3", 1), ("crops6", 1), ("augment4", 4)],
)
def test_every_look_is_resized_once(draw, monkeypatch, name, resizes) -> None:
    picture, calls = draw(1, 301, 200), []
    real = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda *given, **named: calls.append(1) or real(*given, **named)
    )
    render(picture, Geometry(32, 37), view_set(name), seed="seed")
    assert len(calls) == resizes


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("interpolation", sorted(RESAMPLING))
@pytest.mark.parametrize("resize", [32, 37])
def test_center_is_torchvisions_resize_and_crop(draw, size, interpolation, resize) -> None:
    picture = draw(1, *size)
    mode = tv.InterpolationMode(interpolation)
    wanted = tv.CenterCrop(32)(tv.Resize(resize, mode)(picture))
    ours = center(picture, Geometry(32, resize, "center", interpolation))
    np.testing.assert_array_equal(ours, np.asarray(wanted))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("share", [1.0, 0.875])
def test_center_is_timms_own_transform(draw, size, mode, interpolation, share) -> None:
    mean = (0.2, 0.4, 0.6)
    transform = create_transform(
        (3, 32, 32),
        interpolation=interpolation,
        mean=mean,
        std=(1, 1, 1),
        crop_pct=share,
        crop_mode=mode,
        normalize=False,
    )
    picture = draw(2, *size)
    wanted = transform(picture).permute(1, 2, 0).numpy()
    geometry = Geometry(32, int(32 / share), mode, interpolation, (51, 102, 153))
    np.testing.assert_array_equal(center(picture, geometry), wanted)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("mode", "crop"), [("shortest", "center"), ("squash", "squash"), ("longest", "border")]
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_center_is_open_clips_own_transform(draw, size, mode, crop, interpolation) -> None:
    config = PreprocessCfg(
        size=32, interpolation=interpolation, resize_mode=mode, mean=(0, 0, 0), std=(1, 1, 1)
    )
    picture = draw(3, *size)
    floats = image_transform_v2(config, is_train=False)(picture).permute(1, 2, 0)
    wanted = (floats.numpy() * 255).round().astype(np.uint8)
    ours = center(picture, Geometry(32, 32, crop, interpolation))
    np.testing.assert_array_equal(np.asarray(ours), wanted)


def striped(width: int, height: int) -> Image.Image:
    """Red tells the column, green the row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)[None, :]
    pixels[..., 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "corners"),
    [
        ((40, 16), [(0, 0), (12, 0), (24, 0)]),
        ((16, 40), [(0, 0), (0, 12), (0, 24)]),
        ((17, 16), [(0, 0), (0, 0), (1, 0)]),
        ((19, 16), [(0, 0), (2, 0), (3, 0)]),
        ((16, 16), [(0, 0), (0, 0), (0, 0)]),
    ],
    ids=str,
)
def test_crops3_lie_at_the_ends_and_the_middle_of_the_longer_side(size, corners) -> None:
    crops = shown(striped(*size), Geometry(16, 18), view_set("crops3"))
    for crop, (left, top) in zip(crops, corners, strict=True):
        np.testing.assert_array_equal(crop[0, :, 0], np.arange(left, left + 16))
        np.testing.assert_array_equal(crop[:, 0, 1], np.arange(top, top + 16))


def test_crops3_resize_the_shorter_side_to_the_input_whatever_resize_says(draw) -> None:
    picture = draw(4, 80, 40)
    whole = np.asarray(picture.resize((32, 16), Image.Resampling.BICUBIC))
    crops = shown(picture, Geometry(16, 30), view_set("crops3"))
    for crop, left in zip(crops, (0, 8, 16), strict=True):
        np.testing.assert_array_equal(crop, whole[:, left : left + 16])


def test_crops6_are_crops3_and_their_mirrors_with_the_plain_centre_at_index_1(draw) -> None:
    geometry = Geometry(16, 16)
    six = shown(draw(5), geometry, view_set("crops6"))
    three = shown(draw(5), geometry, view_set("crops3"))
    np.testing.assert_array_equal(six[:3], three)
    np.testing.assert_array_equal(six[3:], three[:, :, ::-1])
    np.testing.assert_array_equal(six[1], center(draw(5), geometry))
    assert [view.name for view in view_set("crops6")] == [
        "crop-first",
        "crop-middle",
        "crop-last",
        "crop-first-mirrored",
        "crop-middle-mirrored",
        "crop-last-mirrored",
    ]


def test_flip_is_center_and_its_mirror(draw) -> None:
    geometry = Geometry(16, 20)
    first, second = shown(draw(6), geometry, view_set("flip"))
    np.testing.assert_array_equal(first, center(draw(6), geometry))
    np.testing.assert_array_equal(second, first[:, ::-1])


def test_squash_is_the_whole_image(draw) -> None:
    [crop] = shown(draw(7), Geometry(16, 20, interpolation="bilinear"), view_set("squash"))
    wanted = draw(7).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(crop, np.asarray(wanted))


def test_equal_views_share_one_crop(draw) -> None:
    geometry = Geometry(16, 16)
    square = render(draw(8, 30, 30), geometry, view_set("crops6"), seed="")
    assert len(square.crops) == 1
    assert square.crop == (0,) * 6
    assert square.mirror == (False,) * 3 + (True,) * 3
    oblong = render(draw(8, 40, 30), geometry, view_set("crops6"), seed="")
    assert (len(oblong.crops), oblong.crop) == (3, (0, 1, 2, 0, 1, 2))
    assert len(render(draw(8), geometry, view_set("flip"), seed="").crops) == 1


def test_a_symmetric_crop_is_never_mirrored(draw) -> None:
    left = np.asarray(draw(9, 24, 48))
    picture = Image.fromarray(np.concatenate([left, left[:, ::-1]], axis=1))
    rendered = render(picture, Geometry(48, 48), view_set("flip"), seed="")
    assert rendered.mirror == (False, False)
    blank = render(
        Image.new("RGB", (60, 20), "grey"), Geometry(16, 16), view_set("crops6"), seed=""
    )
    assert (len(blank.crops), blank.mirror) == (1, (False,) * 6)


@pytest.mark.parametrize("size", [(97, 40), (40, 97), (61, 60)], ids=str)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_cutting_box_by_box_equals_cutting_the_whole(
    draw, monkeypatch, size, interpolation
) -> None:
    geometry = Geometry(16, 20, interpolation=interpolation)
    wanted = (*view_set("crops6"), *view_set("center"))
    whole = shown(draw(10, *size), geometry, wanted)
    monkeypatch.setattr(views, "_LONGEST", 0)
    boxes = shown(draw(10, *size), geometry, wanted)
    assert np.abs(whole.astype(int) - boxes).max() <= 2


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (2, 1)], ids=str)
@pytest.mark.parametrize("name", [*NAMED, "augment2"])
def test_a_strip_never_grows(monkeypatch, size, name) -> None:
    largest = []
    real = Image.Image.resize

    def watched(self, target, *rest, **named):
        largest.append(target[0] * target[1])
        return real(self, target, *rest, **named)

    monkeypatch.setattr(Image.Image, "resize", watched)
    for crop in ("center", "squash", "border"):
        crops = shown(Image.new("RGB", size, "red"), Geometry(32, 36, crop), view_set(name))
        assert crops.shape[1:] == (32, 32, 3)
    assert max(largest) <= 5 * 36 * 36


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    size=st.integers(8, 40),
    extra=st.integers(0, 9),
    crop=st.sampled_from(["center", "squash", "border"]),
    interpolation=st.sampled_from(sorted(RESAMPLING)),
    name=st.sampled_from([*NAMED, "augment3"]),
)
def test_every_view_of_every_image_is_a_square(
    width, height, size, extra, crop, interpolation, name
) -> None:
    picture = Image.new("RGB", (width, height), (250, 5, 100))
    geometry = Geometry(size, size + extra, crop, interpolation)
    wanted = view_set(name)
    rendered = render(picture, geometry, wanted, seed="s")
    assert rendered.crops.dtype == np.uint8
    assert rendered.crops.shape[1:] == (size, size, 3)
    assert len(rendered.crop) == len(rendered.mirror) == len(wanted)
    assert set(rendered.crop) == set(range(len(rendered.crops)))


def test_draws_depend_on_the_file_and_on_their_number_only(draw) -> None:
    geometry = Geometry(24, 24)
    three = render(draw(11), geometry, view_set("augment3"), seed="aa").crops
    again = render(draw(11), geometry, view_set("augment3"), seed="aa").crops
    five = render(draw(11), geometry, view_set("augment5"), seed="aa").crops
    other = render(draw(11), geometry, view_set("augment3"), seed="ab").crops
    np.testing.assert_array_equal(three, again)
    np.testing.assert_array_equal(three, five[:3])
    assert len(five) == 5  # No two draws are equal.
    assert not any(np.array_equal(one, two) for one in three for two in other)


@pytest.mark.parametrize("name", ["augment1", "augment10", "augment64"])
def test_draws_are_counted_by_the_name(name) -> None:
    assert len(view_set(name)) == int(name.removeprefix("augment"))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("centre", "'center'"),
        ("crop6", "'crops6'"),
        ("augment0", "augmentK (K from 1 to 64)"),
        ("augment65", "augmentK"),
        ("augment", "augmentK"),
        ("augment007", "augmentK"),
        ("augment1٣", "augmentK"),
        ("", "center"),
    ],
)
def test_unknown_views_are_named_with_the_nearest(fault_of, name, near) -> None:
    fault_of(lambda: view_set(name), repr(name), near)


def test_every_set_of_the_table_is_described_and_names_no_view_twice() -> None:
    for name, entry in VIEW_SETS.items():
        assert entry.description
        views = view_set("augment3" if name == "augmentK" else name)
        assert len({view.name for view in views}) == len(views) > 0
