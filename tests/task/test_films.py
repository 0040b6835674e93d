"""Frames of a film: scenes, seconds, turns, damage, on films that are encoded here."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_films import HIGH, WIDE, Draw, error, table, take
from PIL import Image

from archiveprobe.task.films import film as films
from archiveprobe.task.films.film import read_film

av = pytest.importorskip("av", reason="the extra `frames` is not installed")


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "mpeg4"), ("a.mov", "libx264")],
)
def test_one_frame_per_scene_and_none_twice(
    name: str, codec: str, source: Path, target: Path, film: Callable[..., Path], draw: Draw
) -> None:
    # The third scene is the first one again.
    film(source / name, [1, 2, 1, 3], codec=codec)

    done = take(source, target)
    assert done.stdout == "1 film, 1 of them read now, 3 frames\n"
    lines = table(target)
    assert [line["second"] for line in lines] == ["0.000", "2.000", "6.000"]
    assert [line["film"] for line in lines] == [name] * 3
    assert [line["image"] for line in lines] == [
        "a/00-00-00.000.jpg",
        "a/00-00-02.000.jpg",
        "a/00-00-06.000.jpg",
    ]
    for line, seed in zip(lines, [1, 2, 3], strict=True):
        assert error(target, line, draw(seed, WIDE, HIGH)) < 8
    first = Image.open(target / lines[0]["image"])
    assert first.format == "JPEG" and first.layer[0][1:3] == (1, 1)


def test_one_frame_in_so_many_seconds(
    source: Path, target: Path, film: Callable[..., Path]
) -> None:
    film(source / "a.mp4", [1, 2, 3], seconds=2)
    take(source, target, "--every", "1.5")
    # At 1.5 and 3 there are new images; at 4.5, too.
    assert [line["second"] for line in table(target)] == ["0.000", "3.000", "4.500"]


def test_a_scene_that_changes_slowly_opens_another(
    source: Path, target: Path, film: Callable[..., Path], draw: Draw
) -> None:
    one, other = draw(1, WIDE, HIGH), draw(2, WIDE, HIGH)
    steps = [Image.blend(one, other, step / 40) for step in range(41)]
    film(source / "a.mp4", steps, seconds=1, rate=4)
    lines = table(target) if take(source, target).exit_code == 0 else []
    assert 2 <= len(lines) <= 4
    assert error(target, lines[0], one) < 8 < error(target, lines[0], other)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_of_the_film_is_applied(
    degrees: int, source: Path, target: Path, film: Callable[..., Path], draw: Draw
) -> None:
    shown = draw(1, WIDE, HIGH)
    stored = shown.rotate(-degrees, expand=True)
    film(
        source / "a.mp4",
        [stored],
        codec="libx264",
        prepare=lambda video: video.set_display_rotation(degrees),
    )
    take(source, target)
    (line,) = table(target)
    assert error(target, line, shown) < 8


def test_pixels_that_are_not_square_are_stretched(
    source: Path, target: Path, film: Callable[..., Path]
) -> None:
    def prepare(video: Any) -> None:
        video.codec_context.sample_aspect_ratio = 2

    film(source / "a.mp4", [1], codec="libx264", prepare=prepare)
    take(source, target)
    assert Image.open(target / table(target)[0]["image"]).size == (2 * WIDE, HIGH)


@pytest.mark.proves("hostile")
def test_films_that_cannot_be_read_cost_themselves_only(
    source: Path, target: Path, film: Callable[..., Path], tmp_path: Path
) -> None:
    whole = film(source / "good.mp4", [1, 2], codec="libx264")
    content = whole.read_bytes()
    secret = film(tmp_path / "secret.mp4", [9])
    (source / "empty.mp4").write_bytes(b"")
    (source / "page.mp4").write_text("<html>signed out</html>")
    (source / "headless.mp4").write_bytes(content[: len(content) // 2])
    # A list of other files, and one that reads them by FFmpeg's own means.
    lines = f"#EXTM3U\n#EXTINF:10,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    (source / "list.mp4").write_text(lines)
    (source / "concat.avi").write_text(f"ffconcat version 1.0\nfile {secret}\n")
    with av.open(os.fspath(source / "sound.mp4"), "w") as container:
        sound = container.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.rate = 8000
        container.mux(sound.encode(silence))
        container.mux(sound.encode())
    os.mkfifo(source / "pipe.mp4")
    done = take(source, target)
    status = {line["film"]: line["status"] for line in table(target, "films.csv")}
    assert status == {
        "concat.avi": "unreadable",
        "empty.mp4": "unreadable",
        "good.mp4": "ok",
        "headless.mp4": "unreadable",
        "list.mp4": "unreadable",
        "page.mp4": "unreadable",
        "sound.mp4": "no_video",
    }
    assert {line["film"] for line in table(target)} == {"good.mp4"}
    for name in set(status) - {"good.mp4"}:
        assert sum(line.startswith(f"{name}: ") for line in done.stderr.splitlines()) == 1
    assert "sound.mp4: no_video: it has no moving image" in done.stderr
    assert "6 films gave no frames or not all" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("cut", [0.4, 0.7])
def test_what_comes_before_the_end_of_a_torn_film_is_kept_and_said(
    cut: float, source: Path, target: Path, film: Callable[..., Path]
) -> None:
    whole = film(source / "a.mkv", [1, 2, 3, 4, 5], codec="mpeg4").read_bytes()
    (source / "a.mkv").write_bytes(whole[: int(cut * len(whole))])
    done = take(source, target)
    lines = table(target)
    assert 1 <= len(lines) < 5 and lines[0]["second"] == "0.000"
    (line,) = table(target, "films.csv")
    assert line["status"] == "partial" and int(line["frames"]) == len(lines)
    assert "a.mkv: partial: " in done.stderr


def test_damage_in_the_middle_costs_the_damaged_frames(
    source: Path, target: Path, film: Callable[..., Path]
) -> None:
    content = bytearray(film(source / "a.avi", [1, 2, 3, 4, 5], codec="mpeg4").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = random.Random(0).randbytes(3000)
    (source / "a.avi").write_bytes(bytes(content))
    take(source, target)
    seconds = [float(line["second"]) for line in table(target)]
    assert seconds[0] == 0.0 and seconds[-1] >= 6.0
    assert table(target, "films.csv")[0]["status"] in ("ok", "partial")


@pytest.mark.parametrize(
    ("name", "value", "status", "detail"),
    [
        ("PIXEL_LIMIT", WIDE * HIGH - 1, "too_many_pixels", f"{WIDE} x {HIGH} pixels, limit"),
        ("LONGEST", 3.0, "partial", "cut off after"),
        ("MOST_FRAMES", 1, "partial", "cut off after"),
    ],
)
def test_limits(
    name: str,
    value: float,
    status: str,
    detail: str,
    source: Path,
    film: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(films, name, value)
    kept: list[films.Frame] = []
    reading = read_film(film(source / "a.mp4", [1, 2, 3]), None, kept.append)
    assert (reading.status, reading.frames) == (status, len(kept))
    assert detail in reading.detail
    assert len(kept) == (0 if status == "too_many_pixels" else 1 + (name == "LONGEST"))


def test_joined_recordings_whose_clock_goes_back(source: Path, film: Callable[..., Path]) -> None:
    parts = [film(source / f"{seed}.ts", [seed], codec="mpeg2video", rate=25) for seed in (1, 2)]
    joined = source / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    kept: list[films.Frame] = []
    read_film(joined, None, kept.append)
    assert len(kept) == 2
    assert kept[0].second == 0.0 and 1.5 < kept[1].second < 3.0
