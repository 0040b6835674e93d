"""A folder of films becomes one of frames: again, killed, hostile, on a full disk."""

import csv
import errno
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from drawn_films import table, take

from archiveprobe import cli
from archiveprobe.task.films import film as films
from archiveprobe.task.films import frames
from archiveprobe.task.films.film import read_film

av = pytest.importorskip("av", reason="the extra `frames` is not installed")


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
