"""What `list systems` says of a system is what `submit` does with it, whatever has happened."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shelf import Shelf, weighed_bench
from striped_archive import result_of, striped_archive
from stripes import run

from archiveprobe.base.errors import InputError
from archiveprobe.cache import log, spec

PROBE = ("--probe", "ridge", "--probe", "lda")
Step = Callable[[Path], object]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    folder = striped_archive(tmp_path_factory.mktemp("stripes") / "archive", 24, 4)
    result_of("probe", folder, *PROBE)
    return folder


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def cache(folder: Path) -> Path:
    return next((folder / "work" / "cache").iterdir())


def shard(folder: Path) -> Path:
    return next((cache(folder) / "shards").glob("*.h5"))


def first(folder: Path, place: str) -> Path:
    return sorted((folder / place).iterdir())[0]


def replaced(file: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(file)


def edited(old: str, new: str) -> Step:
    def edit(folder: Path) -> None:
        task = folder / "task.toml"
        task.write_text(task.read_text().replace(old, new))

    return edit


def with_row(folder: Path) -> None:
    shutil.copy(first(folder, "across"), folder / "unlabelled" / "new.png")


def moved(folder: Path) -> None:
    first(folder, "across").rename(folder / "down" / "moved.png")


def embed(folder: Path) -> None:
    assert run("embed", folder).exit_code == 0


def ridge(folder: Path) -> Path:
    return folder / "work" / "runs" / "ridge-hog"


def partial(folder: Path) -> None:
    with_row(folder)
    result_of("probe", folder, *PROBE, "--partial")


def unreadable(folder: Path) -> None:
    first(folder, "across").write_bytes(b"no image")
    with (folder / "task.toml").open("a") as task:
        task.write('\n[submission]\nunreadable = "down"\n')
    embed(folder)
    result_of("probe", folder, *PROBE)


CASES: dict[str, tuple[str, tuple[Step, ...]]] = {
    # The state of ridge-hog begins with the first word.
    "nothing": ("ok", ()),
    "cache gone": ("the cache of hog that", (lambda f: shutil.rmtree(f / "work" / "cache"),)),
    "cache record": ("the cache of hog that", (lambda f: flip(cache(f) / spec.FILE),)),
    "cache log": ("", (lambda f: flip(cache(f) / log.COMMITS),)),
    "shard gone": ("28 rows of the cache", (lambda f: shard(f).unlink(),)),
    "shard flipped": ("", (lambda f: flip(shard(f)),)),
    "member's model": ("", (lambda f: flip(next(ridge(f).glob("model*"))),)),
    "member's record": ("", (lambda f: flip(ridge(f) / "run.json"),)),
    "member's threshold": (
        "ok",
        (lambda f: run("threshold", f, "--system", "ridge-hog", "--set", "0.7"),),
    ),
    "label": ("out of date", (moved,)),
    "label, embedded": ("out of date", (moved, embed)),
    "row": ("1 of 29 rows waits for embed", (with_row,)),
    "row, embedded": ("ok", (with_row, embed)),
    "image to predict": ("1 of 4 images", (lambda f: replaced(first(f, "unlabelled")),)),
    "image to predict, embedded": ("ok", (lambda f: replaced(first(f, "unlabelled")), embed)),
    "labelled image": ("ok", (lambda f: replaced(first(f, "across")),)),
    "labelled image, embedded": ("out of date", (lambda f: replaced(first(f, "across")), embed)),
    "task renamed": ("out of date: the task", (edited('"stripes"', '"other"'),)),
    "labels swapped": ("out of date", (edited('["across", "down"]', '["down", "across"]'),)),
    "positive label": (
        "out of date: the positive label",
        (edited('positive = "down"', 'positive = "across"'),),
    ),
    "unreadable answer": (
        "out of date: the answer for unreadable images",
        (unreadable, edited('unreadable = "down"', 'unreadable = "across"')),
    ),
    "views": ("out of date: the cache of hog", (edited('"center"', '"flip"'),)),
    "views, embedded": ("out of date: the cache of hog", (edited('"center"', '"flip"'), embed)),
    "partial": ("out of date", (partial,)),
    "partial, embedded": ("out of date", (partial, embed)),
}


@pytest.mark.proves("state")
@pytest.mark.parametrize("name", CASES)
def test_the_list_and_the_submission_say_the_same(archive, tmp_path, name) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(archive, folder)
    begins, steps = CASES[name]
    for step in steps:
        step(folder)
    lines = result_of("list", "systems", folder)["systems"]
    states = {line["system"]: line["state"] for line in lines}
    assert states["ridge-hog"].startswith(begins)
    for system in ("ridge-hog", "greedy"):
        out = folder / f"{system}.csv"
        done = run("submit", folder, "--system", system, "-o", out)
        assert (done.exit_code == 0) == (states[system] == "ok"), (states[system], done.stderr)
        assert out.exists() == (states[system] == "ok")
        predicted = run("predict", folder, "--system", system, "-o", folder / "predicted.csv")
        assert predicted.exit_code == done.exit_code, predicted.stderr
        if states[system] != "ok" and not states[system].startswith("out of date"):
            assert states[system] in done.stderr


@pytest.mark.proves("state")
def test_other_weights_of_a_backbone_count_once_they_were_embedded(tmp_path) -> None:
    with weighed_bench() as bench:
        shelf = Shelf(tmp_path / "shelf", bench)
        shelf.fill()
        shelf.embed()
        shelf.probe()
        for weights, state in (("second", "ok"), ("third", "out of date: the cache of eye")):
            shelf.weigh("eye", weights)
            if weights == "third":
                shelf.embed()
            assert shelf.states() == {"ridge-eye": state}
            if state == "ok":
                shelf.submission("ridge-eye")
            else:
                with pytest.raises(InputError, match="the cache of eye changed since"):
                    shelf.submission("ridge-eye")
