"""Films become frames and a table: from the command line, on films that are encoded here."""

import csv
import errno
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli
from archiveprobe.task.films import film as films
from archiveprobe.task.films import frames
from archiveprobe.task.films.film import read_film

av = pytest.importorskip("av", reason="the extra `frames` is not installed")
Draw = Callable[..., Image.Image]
WIDE, HIGH = 96, 64


@pytest.fixture(scope="session")
def film(draw: Draw) -> Callable[..., Path]:
    def film(
        file: Path,
        scenes: Sequence[int | Image.Image],
        *,
        seconds: int = 2,
        rate: int = 10,
        codec: str = "mpeg4",
        prepare: Callable[[Any], None] = lambda _: None,
    ) -> Path:
        """A film of scenes without motion: drawn images, or those of these seeds."""
        file.parent.mkdir(parents=True, exist_ok=True)
        images = [draw(scene, WIDE, HIGH) if isinstance(scene, int) else scene for scene in scenes]
        with av.open(os.fspath(file), "w") as container:
            video = container.add_stream(codec, rate=rate)
            video.width, video.height, video.pix_fmt = *images[0].size, "yuv420p"
            video.bit_rate = 4_000_000
            prepare(video)
            for image in images:
                for _ in range(seconds * rate):
                    container.mux(video.encode(av.VideoFrame.from_image(image)))
            container.mux(video.encode())
        return file

    return film


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "frames"


def take(source: Path, target: Path, *words: str, code: int = 0) -> Result:
    command = ["frames", str(source), "-o", str(target), *words]
    done = CliRunner().invoke(cli.main, command)
    assert done.exit_code == code, done.stderr
    return done


def table(target: Path, name: str = "frames.csv") -> list[dict[str, str]]:
    with (target / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def error(target: Path, line: dict[str, str], expected: Image.Image) -> float:
    found = Image.open(target / line["image"])
    assert found.size == expected.size
    difference = np.asarray(found).astype(int) - np.asarray(expected.convert("RGB")).astype(int)
    return float(np.abs(difference).mean())


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
    assert done.stdout == "1 films, 1 of them read now, 3 frames\n"
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
    content[middle : middle + 3000] = os.urandom(3000)
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


def test_again_only_what_is_new_or_changed_is_read(
    source: Path, target: Path, film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    film(source / "a.mp4", [1, 2])
    film(source / "b.mp4", [3])
    take(source, target)
    read: list[str] = []

    def counted(file: Path, *rest: Any) -> Any:
        read.append(file.name)
        return read_film(file, *rest)

    monkeypatch.setattr(frames, "read_film", counted)
    before = (target / "frames.csv").read_bytes()
    record = json.loads(take(source, target, "--json").stdout)
    assert record == {
        "films": 2,
        "new": 0,
        "frames": 3,
        "table": str(target / "frames.csv"),
        "faulty": [],
    }
    # Another date alone makes no other film.
    os.utime(source / "a.mp4", (1e9, 1e9))
    take(source, target)
    assert read == [] and (target / "frames.csv").read_bytes() == before
    film(source / "b.mp4", [4, 5])
    film(source / "c.mp4", [6])
    assert json.loads(take(source, target, "--json").stdout)["new"] == 2
    assert read == ["b.mp4", "c.mp4"]
    assert [line["film"] for line in table(target)] == ["a.mp4"] * 2 + ["b.mp4"] * 2 + ["c.mp4"]
    # A film that is gone keeps its frames.
    (source / "a.mp4").unlink()
    take(source, target)
    assert table(target)[0]["film"] == "a.mp4"
    # A table that was lost is written again.
    (target / "frames.csv").unlink()
    take(source, target)
    assert len(table(target)) == 5 and read == ["b.mp4", "c.mp4"]
    # So is a frame.
    lost = target / table(target)[-1]["image"]
    lost.unlink()
    take(source, target)
    assert lost.is_file() and read == ["b.mp4", "c.mp4", "c.mp4"]


@pytest.mark.proves("killed")
@pytest.mark.parametrize("at", range(1, 14))
def test_a_film_is_done_whole_or_not_at_all(
    at: int, source: Path, target: Path, film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever call that changes the disk is its last, the next run ends as a whole one."""
    film(source / "a.mp4", [1])
    film(source / "b.mp4", [2, 3])
    calls = 0

    class Killed(BaseException):
        pass

    def ending(name: str) -> Callable[..., Any]:
        real = getattr(frames.files, name)

        def call(*words: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                raise Killed
            return real(*words)

        return call

    with monkeypatch.context() as killed:
        for name in ("write_whole", "move_durable"):
            killed.setattr(frames.files, name, ending(name))
        real = frames.write_sealed
        killed.setattr(
            frames, "write_sealed", lambda *words: ending("write_whole") and real(*words)
        )
        # What a killed process cannot do either.
        killed.setattr(frames, "_remove_folders", lambda _: None)
        with suppress(Killed):
            frames.take_frames(source, target)
    done = frames.take_frames(source, target)
    assert done.frames == 3 and not done.faulty
    assert sorted(path.name for path in target.rglob("*.jpg")) == [
        "00-00-00.000.jpg",
        "00-00-00.000.jpg",
        "00-00-02.000.jpg",
    ]
    assert [line["film"] for line in table(target)] == ["a.mp4", "b.mp4", "b.mp4"]
    assert sorted(path.name for path in (target / ".frames").iterdir()) == ["LOCK", "record.json"]


@pytest.mark.proves("hostile")
def test_names_are_safe_and_no_two_films_share_a_folder(
    source: Path, target: Path, film: Callable[..., Path]
) -> None:
    plain = film(source / "a.mp4", [1]).read_bytes()
    names = [
        "a.avi",
        "A.mkv",
        "..mp4.mp4",
        "-o.mp4",
        "new\nline.mp4",
        "مظاهرة.mp4",
        "x" * 200 + ".mp4",
        "sub/a.mp4",
        "c:\\d.mp4",
        ".hidden.mp4",
        "no ending",
    ]
    for name in names:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(plain)
    (source / os.fsdecode(b"caf\xe9.mp4")).write_bytes(plain)
    # Sound and images are no films, and neither is what lies beside them.
    for name in ("a.m4a", "a.gif"):
        (source / name).write_bytes(plain)
    (source / "a.txt").write_text("notes")
    done = json.loads(take(source, target, "--json").stdout)
    expected = len(names) - 2 + 2
    assert done["films"] == done["frames"] == expected
    images = [line["image"] for line in table(target)]
    assert len({image.casefold() for image in images}) == len(images)
    assert all((target / image).is_file() for image in images)
    for image in images:
        assert all(part[0] not in ".-" and len(part.encode()) < 255 for part in image.split("/"))
        assert not set(image) & set('\n\\:\0*?"<>|') and ".." not in image
    assert "sub/a/00-00-00.000.jpg" in images and "مظاهرة/00-00-00.000.jpg" in images
    assert {line["film"] for line in table(target)} >= {"new\nline.mp4", "caf\\xe9.mp4"}


def test_frames_among_the_films_are_not_read_as_films(
    source: Path, film: Callable[..., Path]
) -> None:
    film(source / "a.mp4", [1])
    film(source / "frames/old.mp4", [2])
    take(source, source / "frames")
    assert [line["film"] for line in table(source / "frames")] == ["a.mp4"]


def test_what_stands_in_the_way_is_one_line(
    source: Path, target: Path, film: Callable[..., Path], tmp_path: Path
) -> None:
    def refused(*words: str, folder: Path = source, into: Path = target) -> str:
        done = take(folder, into, *words, code=1)
        assert not done.stdout and done.stderr.count("\n") == 1
        return done.stderr

    assert "no film below" in refused()
    assert "no folder" in refused(folder=tmp_path / "none")
    film(source / "a.mp4", [1, 2])
    assert "holds the films themselves" in refused(into=source)
    take(source, target)
    assert "has frames, one per scene" in refused("--every", "2")
    lines = (target / "frames.csv").read_text().replace("second", "second,label")
    (target / "frames.csv").write_text(lines)
    assert "was edited since it was written: rename it" in refused()
    assert (target / "frames.csv").read_text() == lines
    (target / "frames.csv").rename(target / "labels.csv")
    take(source, target)
    assert len(table(target)) == 2
    record = target / ".frames/record.json"
    record.write_text(record.read_text().replace("a.mp4", "b.mp4"))
    assert "is damaged" in refused()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/frames.csv").write_text("mine")
    assert "is not of this command" in refused(into=tmp_path / "mine")
    take(source, target, "--scenes", "--every", "2", code=2)


def test_without_the_extra_one_line_says_what_to_install(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    done = take(source, target, code=1)
    assert done.stderr == "error: films need another package: pip install 'archiveprobe[frames]'\n"
    assert not target.exists()


@pytest.mark.proves("leaks")
def test_init_takes_the_table_and_keeps_a_film_in_one_fold(
    source: Path, target: Path, film: Callable[..., Path]
) -> None:
    for number in range(6):
        film(source / f"{number}.mp4", [10 * number + scene for scene in range(4)], seconds=1)
    (source / "broken.mp4").write_bytes(b"")
    take(source, target)
    # As somebody labels it in a spreadsheet: under another name, with a column of their own.
    lines = table(target)
    assert len(lines) >= 20
    done = CliRunner().invoke(cli.main, ["init", str(target)])
    assert done.exit_code == 0, done.stderr
    text = (target / "task.toml").read_text()
    assert 'table = "frames.csv"' in text and 'id = "image"' in text and "labels = []" in text
    assert 'group = "film"' in text
    assert "images of one film, in the column 'film', stay in one fold" in done.stderr
    (target / "task.toml").unlink()
    with (target / "labels.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*lines[0], "label"])
        writer.writeheader()
        for number, line in enumerate(lines):
            writer.writerow({**line, "label": ("intact", "destroyed")[number % 2]})
    words = ["init", str(target), "--table", str(target / "labels.csv")]
    assert CliRunner().invoke(cli.main, words).exit_code == 0
    done = CliRunner().invoke(cli.main, ["embed", str(target), "--workers", "0", "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["images"] == len(lines)
    film_of = {line["image"]: line["film"] for line in lines}
    folds: dict[str, set[str]] = {}
    for line in table(target, "work/folds.csv"):
        place = next(value for key, value in line.items() if "repeat" in key or "fold" in key)
        folds.setdefault(film_of[line["id"]], set()).add(place)
    assert len(folds) == 6 and all(len(places) == 1 for places in folds.values())


def test_a_film_is_no_label(source: Path, target: Path, film: Callable[..., Path]) -> None:
    for number in range(2):
        film(source / f"{number}.mp4", [10 * number + scene for scene in range(4)], seconds=1)
    take(source, target)
    done = CliRunner().invoke(cli.main, ["init", str(target)])
    assert done.exit_code == 0, done.stderr
    text = (target / "task.toml").read_text()
    # Two films are too few for five folds.
    assert "labels = []" in text and 'group = "near-duplicates"' in text
    assert "no label column found" in done.stderr


def test_the_page_explains_every_status() -> None:
    page = (Path(__file__).parents[2] / "docs/films.md").read_text("utf-8")
    explained = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    code = "".join((Path(module.__file__ or "").read_text("utf-8")) for module in (films, frames))
    written = set(re.findall(r'(?:refuse|_refused)\((?:name, folder, )?"(\w+)"', code))
    assert written | {"ok", "partial", "unreadable"} == explained - {"label"}


@pytest.mark.proves("disk")
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(
    source: Path, target: Path, film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    film(source / "a.mp4", [1])
    film(source / "b.mp4", [2, 3])
    real = frames.files.write_whole

    def full(path: Path, data: bytes) -> None:
        if path.name == "00-00-02.000.jpg":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    with monkeypatch.context() as disk:
        disk.setattr(frames.files, "write_whole", full)
        done = take(source, target, code=1)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "No space left on device; free some space" in line
    assert [line["film"] for line in table(target)] == ["a.mp4"]
    assert sorted(path.name for path in (target / ".frames").iterdir()) == ["LOCK", "record.json"]
    assert json.loads(take(source, target, "--json").stdout)["new"] == 1
    assert len(table(target)) == 3


@pytest.mark.proves("hostile")
@pytest.mark.parametrize("seed", range(8))
def test_random_damage_never_ends_the_run(
    seed: int, source: Path, film: Callable[..., Path]
) -> None:
    rng = np.random.default_rng(seed)
    name, codec = [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "mpeg4")][seed % 3]
    content = bytearray(film(source / name, [1, 2], codec=codec).read_bytes())
    for at in rng.integers(0, len(content), 60):
        content[at] = int(rng.integers(256))
    (source / name).write_bytes(bytes(content))
    kept: list[films.Frame] = []
    reading = read_film(source / name, None, kept.append)
    assert reading.status in ("ok", "partial", "unreadable", "no_video", "too_many_pixels")
    assert (reading.status == "ok") is (reading.detail == "")
    assert reading.frames == len(kept)
