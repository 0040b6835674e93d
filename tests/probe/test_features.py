"""From caches to matrices: rows by their images, backbones side by side, views as asked."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from snapshots import write_snapshot

from archiveprobe.base import large_arrays
from archiveprobe.base.errors import InputError
from archiveprobe.cache.spec import folder_name
from archiveprobe.cache.store import Writer
from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.probe import features
from archiveprobe.probe.choice import parse_choice
from archiveprobe.probe.features import load_features
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.manifest import write_manifest
from archiveprobe.task.snapshot import read_snapshot

KEYS = [bytes([at]) * 32 for at in range(6)]


@pytest.fixture
def fill(tmp_path: Path) -> Callable[..., Task]:
    """A task with a cache of each backbone named; image 4 failed in all."""

    def fill(shapes: dict[str, tuple[int, int]], missing: int | None = None) -> Task:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "task.toml").write_text('name = "t"\nlabels = ["intact", "damaged"]\n')
        task = load_task(tmp_path)
        for name, shape in shapes.items():
            fingerprint = {"backbone": name}
            home = task.work / "cache" / folder_name(name, fingerprint)
            with Writer.open(home, fingerprint, {"asked": task.asks(name)}) as writer:
                # Not in the order of the table: rows are joined by their content.
                for at in (5, 3, 1, 0, 2):
                    if at != missing:
                        writer.add(KEYS[at], embedding(at, shape))
                writer.fail(KEYS[4], "dead", "zero")
        write_manifest(task, [])
        write_snapshot(task)
        return task

    return fill


def embedding(at: int, shape: tuple[int, int]) -> np.ndarray:
    return 1.0 + at + np.arange(np.prod(shape)).reshape(shape) / 8


def dataset_of(task: Task) -> Dataset:
    """Rows 0 to 3 labelled, row 3 not decoded; 4, 5 and 0 again to predict."""
    ids = np.arange(7).astype(np.str_)
    labelled = Rows(ids[:4], [*KEYS[:3], None], [None] * 4)
    rest = Rows(ids[4:], [KEYS[4], KEYS[5], KEYS[0]], [None] * 3)
    y, fold = np.array([0, 1, 0, 1]), np.array([[0, 1, 1, 0]])
    return Dataset(
        task,
        ("intact", "damaged"),
        1,
        0,
        labelled,
        y,
        np.arange(4),
        fold,
        rest,
        snapshot=read_snapshot(task),
    )


def test_rows_are_joined_by_content_and_gaps_are_nan(fill) -> None:
    dataset = dataset_of(fill({"hog": (3, 4)}))
    features = load_features(dataset, parse_choice("hog"))
    assert features.labelled.shape == (4, 1, 4) and features.labelled.dtype == np.float32
    for at in range(3):
        np.testing.assert_allclose(features.labelled[at, 0], embedding(at, (3, 4)).mean(0))
    assert features.readable.tolist() == [True, True, True, False]
    assert features.predictable.tolist() == [False, True, True]
    np.testing.assert_array_equal(features.unlabelled[2], features.labelled[0])


@pytest.mark.parametrize("views", ["rows", "logits"])
def test_views_are_kept_where_they_are_asked_for(views, fill) -> None:
    features = load_features(dataset_of(fill({"hog": (3, 4)})), parse_choice(f"hog:{views}"))
    assert features.labelled.shape == (4, 3, 4)
    np.testing.assert_allclose(features.labelled[1], embedding(1, (3, 4)))


def test_backbones_stand_side_by_side(fill) -> None:
    task = fill({"hog": (3, 4), "resnet18": (2, 5)})
    features = load_features(dataset_of(task), parse_choice("hog+resnet18"))
    assert features.labelled.shape == (4, 1, 9)
    np.testing.assert_allclose(features.labelled[2, 0, 4:], embedding(2, (2, 5)).mean(0))
    assert list(features.sources) == ["hog", "resnet18"]
    with pytest.raises(InputError, match=r"have \[2, 3\] views: use hog:mean"):
        load_features(dataset_of(task), parse_choice("hog+resnet18:rows"))


@pytest.mark.proves("memory")
@pytest.mark.parametrize("views", ["mean", "rows"])
def test_large_matrices_lie_in_a_file_and_are_the_same(
    views: str, fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = dataset_of(fill({"hog": (3, 4), "resnet18": (3, 5)}))
    choice = parse_choice(f"hog+resnet18:{views}")
    plain = load_features(dataset, choice)
    # Two rows of the file at a time.
    monkeypatch.setattr(features, "_READ_BYTES", 2 * 2 * 27)
    monkeypatch.setattr(large_arrays, "LARGEST_IN_MEMORY", 0)
    found = load_features(dataset, choice)
    assert isinstance(found.labelled, np.memmap) and isinstance(found.unlabelled, np.memmap)
    np.testing.assert_array_equal(found.labelled, plain.labelled)
    np.testing.assert_array_equal(found.unlabelled, plain.unlabelled)
    assert found.readable.tolist() == plain.readable.tolist() == [True, True, True, False]


@pytest.mark.proves("disk")
def test_no_room_for_a_large_matrix_is_one_line(fill, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(large_arrays, "LARGEST_IN_MEMORY", 0)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"cannot write .*work: No space left on device"):
        load_features(dataset_of(fill({"hog": (3, 4)})), parse_choice("hog"))


def test_a_backbone_without_a_cache_names_the_nearest(fill) -> None:
    with pytest.raises(InputError, match=r"no cache for backbone 'hogg'.*hog.*archiveprobe embed"):
        load_features(dataset_of(fill({"hog": (1, 4)})), parse_choice("hogg"))


def test_rows_that_were_not_embedded_yet_are_counted(fill) -> None:
    with pytest.raises(InputError, match=r"1 row not in the cache hog-.*archiveprobe embed"):
        load_features(dataset_of(fill({"hog": (1, 4)}, missing=2)), parse_choice("hog"))


def test_choices_are_read() -> None:
    choice = parse_choice("a+b:rows")
    assert (choice.backbones, choice.views, str(choice)) == (("a", "b"), "rows", "a+b:rows")
    assert parse_choice("timm:x.y").backbones == ("timm:x.y",)
    assert parse_choice("timm:x.y:logits").views == "logits"
    with pytest.raises(InputError, match=r"unknown views 'row'.*rows"):
        parse_choice("a:row")
    for text in ("", "a+", ":mean"):
        with pytest.raises(InputError):
            parse_choice(text)
