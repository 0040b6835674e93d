"""A task's rows as every system sees them."""

from collections.abc import Callable

import numpy as np
import pytest
from snapshots import write_snapshot

from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import Observation
from archiveprobe.task.manifest import Entry, write_manifest

COLUMNS = "[images]\nroot = 'images'\ntable = 'labels.csv'\nsplit = 'split'\ntext = 'text'\n"
FOLDS = '[folds]\ncount = 3\nrepeats = 2\ngroup = "none"\n'


@pytest.fixture
def seen_task(make_task, tmp_path) -> Callable[..., Task]:
    def seen_task(labels: list[str], *, extra: str = "", k: int = 2, broken: int = -1) -> Task:
        """A task with these labels, one to predict where empty, and a manifest of its images."""
        lines = ["image,label,split,text"]
        lines += [f"{at}.jpg,{label},,words {at % 3}" for at, label in enumerate(labels)]
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
        task: Task = make_task(tmp_path, k, COLUMNS + FOLDS + extra)
        entries = [
            Entry(
                f"{at}.jpg",
                f"{at}.jpg",
                f"{at:064x}",
                Observation("ok" if at != broken else "truncated", phash=f"{at * 7919:016x}"),
            )
            for at in range(len(labels))
        ]
        write_manifest(task, entries)
        write_snapshot(task)
        return task

    return seen_task


LABELS = ["intact", "damaged", "intact", "", "damaged", "intact", "intact", "damaged", ""]


def test_rows_labels_and_folds(seen_task) -> None:
    found = load_dataset(seen_task(LABELS))
    assert found.classes == ("intact", "damaged")
    assert found.labelled.ids.tolist() == [f"{at}.jpg" for at in (0, 1, 2, 4, 5, 6, 7)]
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 0, 1]
    assert found.unlabelled.ids.tolist() == ["3.jpg", "8.jpg"]
    assert found.labelled.keys[1] == bytes.fromhex(f"{1:064x}")
    assert len(found) == len(found.labelled) == 7 and len(found.unlabelled) == 2
    assert found.fold.shape == (2, 7) and found.folds == 3
    assert sorted(set(found.fold[0])) == [0, 1, 2]
    assert len(set(found.groups)) == 7
    captions = found.labelled.captions
    assert captions[0] == captions[5] != captions[1]
    assert all(len(key) == 32 for key in captions)
    assert (found.positive, found.unreadable) == (1, 0)


def test_what_cannot_be_read_has_no_key(seen_task) -> None:
    found = load_dataset(seen_task(LABELS, broken=4))
    assert [key is None for key in found.labelled.keys] == [at == 3 for at in range(7)]
    assert all(found.unlabelled.keys)


def test_the_unreadable_answer_and_the_positive_class_are_settings(seen_task) -> None:
    task = seen_task(LABELS, extra="[submission]\nunreadable = 'damaged'\n")
    assert load_dataset(task).unreadable == 1
    mostly = ["damaged", "damaged", "damaged", "intact", "intact"]
    assert load_dataset(seen_task(mostly)).unreadable == 1
    several = load_dataset(seen_task(["intact", "damaged", "destroyed"] * 3 + [""], k=3))
    assert several.labels.tolist() == [0, 1, 2] * 3
    assert (several.positive, several.unreadable) == (2, 0)


def test_digests_follow_labels_and_folds(seen_task) -> None:
    def digests(dataset: Dataset) -> tuple[str, str]:
        return dataset.parts["folds"], dataset.parts["labels"]

    before = digests(load_dataset(seen_task(LABELS)))
    assert digests(load_dataset(seen_task(LABELS))) == before
    changed = ["damaged", *LABELS[1:]]
    folds, labels = digests(load_dataset(seen_task(changed)))
    assert folds == before[0] and labels != before[1]
    more = load_dataset(seen_task([*LABELS, "intact"]))
    assert np.array_equal(more.fold[:, :7], load_dataset(seen_task(LABELS)).fold)
    assert digests(more)[0] != before[0]


def test_nothing_is_embedded_yet(make_task, tmp_path, fault_of) -> None:
    (tmp_path / "labels.csv").write_text("image,label\na.jpg,intact\nb.jpg,damaged\n")
    settings = "[images]\nroot = 'images'\ntable = 'labels.csv'\n"
    task = make_task(tmp_path, 2, settings)
    fault_of(lambda: load_dataset(task), "nothing is embedded yet", "archiveprobe embed")


def test_a_class_without_rows_is_named(seen_task, fault_of) -> None:
    task = seen_task(["intact", "damaged"] * 3, k=3)
    fault_of(lambda: load_dataset(task), "'destroyed'", "labels.csv", "label some")
    alone = seen_task(["intact"] * 6)
    fault_of(lambda: load_dataset(alone), "'damaged'")
    few = seen_task(["intact", "damaged", ""])
    fault_of(lambda: load_dataset(few), "2 labelled rows", "folds")
