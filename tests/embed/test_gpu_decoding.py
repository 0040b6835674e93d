"""`decode = "gpu"` of [embed], with a stand-in for a GPU's decoder that computes on the CPU.

It decodes as NVIDIA's library does through torchvision, with simple upsampling of colours.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli
from archiveprobe.api.embedder import Embedder
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import CacheRecord, find_caches
from archiveprobe.embed import gpu_decoding, ray_embed
from archiveprobe.embed.backbones import resolve
from archiveprobe.embed.gpu_jpeg import NoDecoderError, jpeg_decoder
from archiveprobe.embed.gpu_views import GpuViews, by_pillow
from archiveprobe.embed.networks import Network
from archiveprobe.embed.precision import cosines
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.ray_embed import DecodeFiles, EmbedUnit
from archiveprobe.embed.view_sets import view_set
from archiveprobe.finetune.model import backbone_of
from archiveprobe.finetune.recipe import Model
from archiveprobe.task.config import load_task
from archiveprobe.task.decoding import decode_pixels, digest
from archiveprobe.task.manifest import read_manifest

TASK = """
name = "streets"
labels = ["one", "two"]
positive = "two"
[folds]
count = 2
repeats = 1
[embed]
backbones = ["tiny", "hog"]
views = "{views}"
decode = "{how}"
[backbone.tiny]
library = "timm"
name = "test_vit"
weights = "random"
arguments = {{ depth = 1, img_size = 32 }}
"""
Decode = Callable[[Sequence[bytes]], list[torch.Tensor]]


def as_a_gpu_does(files: Sequence[bytes], *, smooth: bool = False) -> list[torch.Tensor]:
    """Decode JPEGs to (3, height, width)."""
    decoded = [simplejpeg.decode_jpeg(file, "RGB", fastupsample=not smooth) for file in files]
    return [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in decoded]


def inverted(files: Sequence[bytes]) -> list[torch.Tensor]:
    return [255 - pixels for pixels in as_a_gpu_does(files)]


def none_at_all(files: Sequence[bytes]) -> list[torch.Tensor]:
    raise RuntimeError("nvjpegDecodeBatched failed: 6")


def jpeg(seed: int, size: tuple[int, int] = (90, 70), **how: Any) -> bytes:
    """A smooth picture, as photographs are."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 5, 3), np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    image = image.convert(how.pop("mode", "RGB"))
    file = io.BytesIO()
    if how.get("save_all"):
        how["append_images"] = [image.rotate(90)]
    image.save(file, how.pop("format", "JPEG"), **how)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(orientation, exif=exif)


def as_rgb(seed: int) -> bytes:
    """A JPEG that is stored as red, green and blue."""
    return jpeg(seed, keep_rgb=True, subsampling=0)


FOR_PILLOW = {
    "a.png": jpeg(1, format="PNG"),
    "progressive.jpg": jpeg(2, progressive=True),
    "cmyk.jpg": jpeg(3, mode="CMYK"),
    "rgb.jpg": as_rgb(4),
    "two.mpo.jpg": jpeg(5, format="MPO", save_all=True),
    "late.jpg": jpeg(6) + b"",
}
FOR_PILLOW["late.jpg"] = FOR_PILLOW["late.jpg"][:-2] + b"\x00" * 40 + b"\xff\xd9"


class Streets:
    """A task of drawn images, and a GPU that decodes by `by` (None: there is none)."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self.settings()
        self.by(as_a_gpu_does)

    def settings(self, how: str = "gpu", views: str = "crops6") -> None:
        (self.folder / "task.toml").write_text(TASK.format(how=how, views=views), "utf-8")

    def add(self, name: str, content: bytes, label: str = "one") -> None:
        file = self.folder / "images" / label / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def by(self, decode: Decode | None) -> None:
        def decoder(device: str) -> Decode:
            if decode is None:
                return jpeg_decoder(device)
            return decode

        self._patch.setattr(gpu_decoding, "jpeg_decoder", decoder)

    def run(self, command: str, *words: str) -> Result:
        return CliRunner().invoke(cli.main, [command, str(self.folder), *words])

    def embed(self, workers: int = 0) -> tuple[dict[str, Any], str]:
        done = self.run("embed", "--workers", str(workers), "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout), done.stderr

    def caches(self, name: str = "tiny") -> list[CacheRecord]:
        return find_caches(self.folder / "work" / "cache", name)

    def rows(self, path: str) -> dict[str, np.ndarray]:
        """Return the rows of a cache by the name of the file."""
        reader = Reader(self.folder / path)
        files = list(self.folder.glob("images/*/*"))
        keys = {digest(file.read_bytes()): file.name for file in files}
        held = sorted(reader.keys)
        return {keys[key.hex()]: row for key, row in zip(held, reader.read(held)[1], strict=True)}


@pytest.fixture
def streets(tmp_path, monkeypatch) -> Streets:
    # In fp32 on every machine, so that caches have one name.
    monkeypatch.setattr(Network, "faster_precisions", lambda _: ())
    streets = Streets(tmp_path, monkeypatch)
    for seed in range(10, 22):
        streets.add(f"{seed}.jpg", jpeg(seed), ("one", "two")[seed % 2])
    return streets


def path_of(found: dict[str, Any], name: str = "tiny") -> str:
    [path] = [cache["path"] for cache in found["caches"] if cache["backbone"] == name]
    return str(path)


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_gpu_decodes_baseline_jpegs_and_pillow_the_rest(streets, workers) -> None:
    for name, content in FOR_PILLOW.items():
        streets.add(name, content)
    streets.add("cut.jpg", jpeg(30)[:-200])
    streets.add("greyscale.jpg", jpeg(31, mode="L"))
    found, said = streets.embed(workers)
    assert "tiny: JPEGs decoded on the GPU agree, worst cosine to Pillow's 0.9999" in said
    assert "hog: JPEGs" not in said
    cache, hog = path_of(found), path_of(found, "hog")
    [record] = streets.caches()
    assert record.fingerprint["decode"]["jpeg"] == "gpu"
    before = {entry.path: entry.status for entry in read_manifest(load_task(streets.folder))}
    assert before["one/cut.jpg"] == "truncated"
    streets.settings("exact")
    exact, _ = streets.embed(workers)
    # A descriptor computes on the CPU, and what it sees is decoded there.
    assert path_of(exact) != cache and path_of(exact, "hog") == hog
    on_gpu, plain = streets.rows(cache), streets.rows(path_of(exact))
    assert on_gpu.keys() == plain.keys() and len(plain) == 12 + len(FOR_PILLOW) + 1
    for name, row in plain.items():
        assert cosines(on_gpu[name], row).min() > 0.9995, name
    same = {name for name, row in plain.items() if np.array_equal(on_gpu[name], row)}
    assert same == FOR_PILLOW.keys()
    after = {entry.path: entry.status for entry in read_manifest(load_task(streets.folder))}
    assert after == before


@pytest.mark.proves("numbers")
@pytest.mark.parametrize(
    ("by", "why"),
    [
        (None, "only a GPU with CUDA decodes, and this run is on cpu"),
        (inverted, "JPEGs decoded on the GPU disagree, worst cosine to Pillow's"),
        (none_at_all, "it decodes none of the baseline JPEGs that were tried"),
    ],
)
def test_where_it_does_not_agree_pillow_decodes(streets, by, why) -> None:
    streets.by(by)
    found, said = streets.embed()
    assert f"tiny: JPEGs are decoded on the CPU: {why}" in said
    [record] = streets.caches()
    assert "jpeg" not in record.fingerprint["decode"]
    # What has been begun so goes on so.
    streets.by(as_a_gpu_does)
    streets.add("new.jpg", jpeg(40))
    more, said = streets.embed()
    assert (more["embedded"], more["reused"]) == (1, 12)
    assert f"those of {record.folder.name} were" in said
    assert path_of(more) == path_of(found)
    streets.settings("exact")
    again, _ = streets.embed()
    assert (again["reused"], path_of(again)) == (13, path_of(found))


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("before", ["exact", "gpu"])
def test_a_system_on_images_that_pillow_decoded_answers_new_ones(streets, before) -> None:
    streets.by(None)
    streets.settings(before)
    streets.embed()
    streets.settings()
    streets.embed()
    assert streets.run("probe", "--probe", "ridge", "--features", "tiny").exit_code == 0
    new = streets.folder / "new"
    new.mkdir()
    (new / "one.jpg").write_bytes(jpeg(50))
    words = ("--system", "ridge-tiny", "--images", str(new), "--workers", "0", "-o")
    for by in (None, inverted):
        streets.by(by)
        done = streets.run("predict", *words, str(streets.folder / "a"))
        assert done.exit_code == 0, done.output


def test_an_archive_without_a_baseline_jpeg_is_decoded_by_pillow(tmp_path, monkeypatch) -> None:
    streets = Streets(tmp_path, monkeypatch)
    for seed in range(4):
        streets.add(f"{seed}.png", jpeg(seed, format="PNG"), ("one", "two")[seed % 2])
    _, said = streets.embed()
    assert "there is no baseline JPEG among the images that were tried" in said


def test_drawn_views_are_made_on_the_cpu(streets) -> None:
    streets.settings(views="augment2")
    _, said = streets.embed()
    assert "tiny: JPEGs are decoded on the CPU: drawn views are made on the CPU only" in said


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("by", [None, inverted])
def test_a_cache_of_a_gpu_is_not_continued_without_it(streets, by) -> None:
    found, _ = streets.embed()
    streets.add("new.jpg", jpeg(40))
    streets.by(by)
    done = streets.run("embed", "--workers", "0")
    assert (done.exit_code, done.stdout) == (1, "")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"error: the images of {Path(path_of(found)).name} were decoded on a GPU"
    )
    assert last.endswith('or set decode = "exact", which embeds all of them again')
    assert len(Reader(streets.folder / path_of(found)).keys) == 12
    # Nothing to decode, nothing to refuse.
    (streets.folder / "images" / "one" / "new.jpg").unlink()
    assert streets.embed()[0]["reused"] == 12


def test_rows_are_computed_again_where_a_gpu_decodes(streets) -> None:
    streets.embed()
    verify = ("cache", "verify", str(streets.folder), "--recompute", "5")
    done = CliRunner().invoke(cli.main, list(verify))
    assert done.exit_code == 0, done.output
    assert "worst cosine 1.000000" in done.output
    streets.by(None)
    done = CliRunner().invoke(cli.main, list(verify))
    assert done.exit_code == 1
    assert "were decoded on a GPU, and here only a GPU with CUDA decodes" in done.output


@pytest.mark.proves("numbers")
def test_a_system_answers_through_the_decoder_it_was_trained_on(streets) -> None:
    streets.embed()
    done = streets.run("probe", "--probe", "ridge", "--features", "tiny", "--json")
    assert done.exit_code == 0, done.output
    system = json.loads(done.stdout)["leaderboard"][0]["system"]
    new = streets.folder / "new"
    new.mkdir()
    (new / "one.jpg").write_bytes(jpeg(50))
    (new / "two.png").write_bytes(jpeg(51, format="PNG"))
    words = ("--system", system, "--images", str(new), "--workers", "0", "-o")
    for by in (None, inverted):
        streets.by(by)
        done = streets.run("predict", *words, str(streets.folder / "a"))
        assert done.exit_code == 1, done.output
        assert "were decoded on a GPU, and here " in done.stderr.strip().splitlines()[-1]
    streets.by(as_a_gpu_does)
    file = streets.folder / "b.csv"
    done = streets.run("predict", *words, str(file))
    assert done.exit_code == 0, done.output
    answers = list(csv.DictReader(file.open()))
    assert [row["id"] for row in answers] == ["one.jpg", "two.png"]
    assert all(row["status"] == "ok" and row["label"] and row["p_one"] for row in answers)


@pytest.mark.proves("archive", "numbers")
def test_new_images_have_the_answers_that_rows_of_the_task_have(streets, tmp_path) -> None:
    new = tmp_path / "elsewhere"
    new.mkdir()
    contents = {"50.jpg": jpeg(50), "strip.jpg": jpeg(51, (900, 40)), "turned.jpg": turned(6)}
    for name, content in {**contents, **FOR_PILLOW, "cut.jpg": jpeg(52)[:-200]}.items():
        (new / name).write_bytes(content)
    streets.embed()
    for each in ("tiny", "hog+tiny:rows"):
        assert streets.run("probe", "--probe", "ridge", "--features", each).exit_code == 0
    systems = ("ridge-tiny", "ridge-hog+tiny@rows")

    def answers(system: str, *words: str) -> dict[str, dict[str, str]]:
        file = tmp_path / "answers.csv"
        done = streets.run("predict", "--system", system, *words, "-o", str(file))
        assert done.exit_code == 0, done.output
        with file.open() as stream:
            return {Path(row.pop("id")).name: row for row in csv.DictReader(stream)}

    of_archive = [answers(name, "--images", str(new), "--workers", "0") for name in systems]
    for file in new.iterdir():
        streets.add(file.name, file.read_bytes(), "unlabelled")
    streets.embed()
    assert of_archive == [answers(name) for name in systems]
    assert {name for name, row in of_archive[0].items() if not row["label"]} == {"cut.jpg"}


@pytest.mark.proves("review", "numbers")
def test_the_answer_of_an_image_that_a_gpu_decodes_is_proved(streets) -> None:
    streets.add("new.jpg", jpeg(50), "unlabelled")
    streets.embed()
    assert streets.run("probe", "--probe", "ridge", "--features", "tiny").exit_code == 0
    words = ("--system", "ridge-tiny", "--export", str(streets.folder / "queue.csv"))
    done = streets.run("review", *words)
    assert done.exit_code == 0, done.output
    done = streets.run("prove", "unlabelled/new.jpg", "--json")
    assert done.exit_code == 0, done.output
    proof = json.loads(done.stdout)
    assert proof["score_again"] == pytest.approx(proof["score"], abs=1e-6)
    assert proof["embeddings"][0]["cosine"] == pytest.approx(1, abs=1e-6)


# The views themselves.


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
    broken = PreparedImage("00", replace(images[0].observation, status="corrupt"))
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


def test_fine_tuning_and_the_api_keep_to_the_cpu(streets) -> None:
    task = load_task(streets.folder)
    assert resolve("tiny", task).decode == "gpu"
    settings = Model.model_construct(backbone="tiny")
    assert backbone_of(settings, task).decode == "exact"
    images = sorted((streets.folder / "images").glob("*/*.jpg"))[:3]
    with pytest.warns(UserWarning, match="RANDOM WEIGHTS"):
        rows = Embedder("tiny", task=streets.folder, workers=0).fit(images).transform(images)
    assert np.isfinite(rows).all()


def test_decoders_on_other_machines_hand_the_file_on(streets) -> None:
    content = jpeg(10)
    views = {Geometry(24, 24, decode="gpu"): view_set("center")}
    decode = DecodeFiles("a run", Preparation(streets.folder / "images" / "one", views))
    try:
        row = decode({"unit": 0, "files": json.dumps([["10.jpg", digest(content)]])})
    finally:
        ray_embed._decoders(decode).__exit__(None, None, None)
        ray_embed._decoders.cache_clear()
    [image] = row["images"]
    assert (image.jpeg, image.views, image.digest) == (content, {}, digest(content))


def test_an_image_that_pillow_refuses_after_the_gpu_has_its_status_on_other_machines(
    streets,
) -> None:
    streets.embed()
    task, [record] = load_task(streets.folder), streets.caches()
    whole = jpeg(50), jpeg(51)
    images = [
        PreparedImage(digest(content), decode_pixels(content, "gpu").observation, {}, content)
        for content in whole
    ]
    images[1] = replace(images[1], jpeg=whole[1][:-200])
    row = EmbedUnit(task, {"tiny": record.digest}, "cpu", None)({"unit": 0, "images": images})
    seen = json.loads(row["receipt"])["seen"]
    assert [each["status"] for _, each in seen] == ["ok", "truncated"]


def test_a_cache_of_a_gpu_takes_other_formats_alone(streets) -> None:
    found, _ = streets.embed()
    streets.add("new.png", jpeg(60, format="PNG"))
    more, said = streets.embed()
    assert (more["embedded"], path_of(more)) == (1, path_of(found))
    assert "no baseline JPEG among the images that were tried: the GPU goes on" in said


def test_one_backbone_that_keeps_to_the_cpu_costs_the_other_nothing(streets) -> None:
    file = streets.folder / "task.toml"
    text = file.read_text().replace('"tiny", "hog"', '"tiny", "other"')
    own = text[text.index("[backbone.tiny]") :].replace("tiny", "other")
    settings = 'size = 32\ninterpolation = "lanczos"\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n'
    file.write_text(f"{text}{own}[backbone.other.preprocess]\n{settings}")
    _, said = streets.embed()
    assert "tiny: JPEGs decoded on the GPU agree" in said
    assert "other: JPEGs are decoded on the CPU: lanczos resampling is made on the CPU" in said
    assert "Pillow decoded instead" not in said


@pytest.mark.proves("numbers")
def test_strips_alone_say_nothing_against_a_gpu(streets) -> None:
    found, _ = streets.embed()
    strip = jpeg(70, (900, 40))
    streets.add("strip.jpg", strip)
    more, said = streets.embed()
    assert (more["embedded"], path_of(more)) == (1, path_of(found))
    assert "no baseline JPEG but strips, which Pillow cuts, among the images" in said
    assert streets.run("probe", "--probe", "ridge", "--features", "tiny").exit_code == 0
    new = streets.folder / "new"
    new.mkdir()
    (new / "strip.jpg").write_bytes(jpeg(71, (900, 40)))
    words = ("--system", "ridge-tiny", "--images", str(new), "--workers", "0", "-o")
    done = streets.run("predict", *words, str(streets.folder / "a"))
    assert done.exit_code == 0, done.output


@pytest.mark.proves("memory")
@pytest.mark.parametrize("command", ["embed", "predict"])
def test_a_crop_that_does_not_fit_at_the_trial_is_one_line(streets, monkeypatch, command) -> None:
    if command == "predict":
        streets.embed()
        assert streets.run("probe", "--probe", "ridge", "--features", "tiny").exit_code == 0
        new = streets.folder / "new"
        new.mkdir()
        (new / "one.jpg").write_bytes(jpeg(50))
        words = ["--system", "ridge-tiny", "--images", str(new), "-o", str(streets.folder / "a")]
    else:
        words = []

    def forward(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", forward)
    done = streets.run(command, *words, "--workers", "0")
    assert (done.exit_code, done.stdout) == (1, ""), done.output
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: out of memory ") and "timm:test_vit" in last


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("by", [as_a_gpu_does, None])
def test_tuned_networks_look_at_what_they_were_trained_on(streets, by) -> None:
    streets.by(by)
    streets.embed()
    recipe = streets.folder / "own.toml"
    text = '[model]\nbackbone = "tiny"\n[schedule]\nepochs = 1\n[rows]\ninner_folds = 2\n'
    recipe.write_text(text)
    words = ("--fold", "all", "--full", "--device", "cpu", "--workers", "0")
    done = streets.run("finetune", "--recipe", str(recipe), *words)
    assert done.exit_code == 0, done.output
    done = streets.run("embed", "--backbone", "tuned:own", "--workers", "0")
    assert done.exit_code == 0, done.output
    assert streets.caches("tuned:own")[0].fingerprint["preprocess"].get("decode") is None
    done = streets.run("probe", "--probe", "ridge", "--features", "tuned:own")
    assert done.exit_code == 0, done.output
    new = streets.folder / "new"
    new.mkdir()
    (new / "one.jpg").write_bytes(jpeg(50))
    words = ("--images", str(new), "--workers", "0", "-o", str(streets.folder / "a"))
    done = streets.run("predict", "--system", "ridge-tuned@own", *words)
    assert done.exit_code == 0, done.output


def test_what_was_embedded_with_another_decoding_is_named(streets) -> None:
    streets.embed()
    streets.settings("exact")
    done = streets.run("probe", "--probe", "ridge", "--features", "tiny")
    assert done.exit_code == 1
    assert "with views 'crops6' in" in done.stderr and ", only with another decode:" in done.stderr
