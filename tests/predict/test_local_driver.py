"""Units of an archive, answered by processes of this machine."""

import hashlib
import importlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from unit_archive import Run, archive_of, fit, picture, pictured_task

from archiveprobe.archive.references import Reference
from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.predict.drivers import local
from archiveprobe.predict.systems import load_system
from archiveprobe.task.config import Task, load_task

WHOLE = picture(70)
# What a file may hold, and the status that says so.
CONTENTS = {
    "first": (WHOLE, "ok"),
    "second": (picture(71), "ok"),
    "third": (picture(72), "ok"),
    "cut": (WHOLE[:-40], "truncated"),
    "empty": (b"", "empty_file"),
    "page": (b"<!doctype html>", "html_not_image"),
    "words": (b"plain words", "not_an_image"),
    "head": (b"\x89PNG\r\n\x1a\n", "truncated"),
}

SAID = ("id", "digest", "status", "label")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    task = pictured_task(tmp_path_factory.mktemp("pictured") / "task")
    fit(task)
    return task


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eleven files: three units of four and of three."""
    pictures = [picture(seed) for seed in range(30, 38)]
    broken = [CONTENTS[name][0] for name in ("cut", "empty", "page")]
    return archive_of(tmp_path / "images", [*pictures, *broken])


def test_the_tasks_own_images_have_the_answers_of_its_own_rows(task: Task, tmp_path: Path) -> None:
    dataset = load_dataset(task)
    system = load_system(dataset, "ridge-hog")
    found = {row["id"]: row for row in Run(task, task.root, tmp_path).drive().rows()}
    assert len(found) == len(dataset.rows)
    for some in (dataset.labelled, dataset.unlabelled):
        expected = system.answer(some)
        for id_, p, decision in zip(some.ids, expected.proba, expected.decision, strict=True):
            row = found[str(id_)]
            assert (row["status"], row["label"]) == ("ok", dataset.classes[decision])
            np.testing.assert_allclose([row["p_bright"], row["p_dark"]], p, atol=1e-12)


@pytest.mark.proves("archive")
@settings(max_examples=25, deadline=None)
@given(names=st.lists(st.sampled_from(list(CONTENTS)), min_size=1, max_size=13))
def test_every_image_has_its_own_row(
    task: Task, tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    """In order, whatever mix of broken, repeated and empty files it is."""
    folder = tmp_path_factory.mktemp("mix")
    images = archive_of(folder / "images", [CONTENTS[name][0] for name in names])
    rows = Run(task, images, folder).drive().rows()
    assert [row["id"] for row in rows] == [f"{at:04}.png" for at in range(len(names))]
    firsts: dict[str, dict] = {}
    for row, name in zip(rows, names, strict=True):
        content, status = CONTENTS[name]
        assert (row["status"], row["digest"]) == (status, hashlib.sha256(content).hexdigest())
        assert (row["label"] is not None) == (row["p_dark"] is not None) == (status == "ok")
        first = firsts.setdefault(name, row)
        assert row["label"] == first["label"]
        assert row["p_dark"] == pytest.approx(first["p_dark"], abs=1e-12)


@pytest.mark.proves("archive")
def test_two_processes_write_the_very_bytes_that_one_writes(task, images, tmp_path) -> None:
    one = Run(task, images, tmp_path / "one").drive(workers=0)
    two = Run(task, images, tmp_path / "two").drive(workers=2)
    assert len(one.bytes()) == 3 and one.bytes() == two.bytes()
    assert {receipt.unit: receipt for receipt in one.receipts} == {
        receipt.unit: receipt for receipt in two.receipts
    }


def test_only_the_units_that_are_asked_for_are_read(task, images, tmp_path) -> None:
    whole = Run(task, images, tmp_path / "whole").drive()
    again = Run(task, images, tmp_path / "again").drive([2, 0])
    assert sorted(receipt.unit for receipt in again.receipts) == [0, 2]
    again.drive([1])
    assert again.bytes() == whole.bytes()
    assert Run(task, images, tmp_path / "none").drive([]).receipts == []


class Watched:
    """A source that is watched: reads that are not committed yet."""

    def __init__(self, source) -> None:
        self._source, self.read_count, self.most = source, 0, 0
        self.committed = 0

    def read(self, reference: Reference) -> bytes:
        self.read_count += 1
        self.most = max(self.most, self.read_count - self.committed)
        return self._source.read(reference)


def test_a_bounded_number_of_images_is_in_memory(task, tmp_path) -> None:
    folder = archive_of(tmp_path / "images", [picture(seed % 9) for seed in range(60)])
    work = Run(task, folder, tmp_path, unit_images=2)
    watched = Watched(work.work.source)
    work.work = replace(work.work, source=watched)

    def commit(receipt) -> None:
        work.receipts.append(receipt)
        watched.committed += receipt.rows

    local.run(work.work, work.index, range(work.index.units), commit, workers=0)
    assert watched.read_count == 60 == watched.committed
    # Two units with threads, one that waits for them, and one that is read.
    assert watched.most <= 4 * 2


@pytest.mark.proves("archive")
@pytest.mark.parametrize("fault", [KeyboardInterrupt, InputError])
def test_what_is_begun_is_committed_when_a_run_is_stopped(task, images, tmp_path, fault) -> None:
    whole = Run(task, images, tmp_path / "whole", unit_images=1).drive()
    work = Run(task, images, tmp_path / "stopped", unit_images=1)
    stopped = Stopping(work.work.source, fault)
    work.work = replace(work.work, source=stopped)
    with pytest.raises(fault):
        work.drive()
    done = {receipt.unit for receipt in work.receipts}
    # Five were decoded; one that no thread had begun is left for the next run.
    assert 3 <= len(done) <= 5
    assert len(done) == len(work.receipts) == len(work.bytes())
    stopped.left = 99
    work.drive(set(range(work.index.units)) - done)
    assert work.bytes() == whole.bytes()
    assert work.rows() == whole.rows()


class Stopping:
    """A source that fails at the sixth image."""

    def __init__(self, source, fault: type[BaseException]) -> None:
        self._source, self._fault, self.left = source, fault, 5

    def read(self, reference: Reference) -> bytes:
        if not self.left:
            raise self._fault("no credentials: give some")
        self.left -= 1
        return self._source.read(reference)


DEADLY = """
import os

class Deadly:
    def __init__(self, source):
        self.source = source

    def read(self, reference):
        if reference.id == "0005.png":
            os._exit(3)
        return self.source.read(reference)
"""


@pytest.mark.proves("images")
def test_a_decoder_that_dies_costs_one_image(task, images, tmp_path, monkeypatch) -> None:
    (tmp_path / "deadly_source.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    deadly = importlib.import_module("deadly_source")
    work = Run(task, images, tmp_path)
    expected = Run(task, images, tmp_path / "whole").drive().rows()
    work.work = replace(work.work, source=deadly.Deadly(work.work.source))
    rows = work.drive(workers=1).rows()
    sys.modules.pop("deadly_source")
    assert rows[5]["status"] == "decoder_died" and rows[5]["digest"] is None
    assert rows[5]["label"] is None and rows[5]["p_dark"] is None
    del rows[5], expected[5]
    for row, other in zip(rows, expected, strict=True):
        assert [row[name] for name in SAID] == [other[name] for name in SAID]
        assert row["p_dark"] == pytest.approx(other["p_dark"], abs=1e-12)


def test_the_spread_is_that_over_the_views(task, images, tmp_path) -> None:
    rows = Run(task, images, tmp_path / "two").drive().rows()
    spreads = [row["spread"] for row in rows]
    assert all(spread is None or spread >= 0 for spread in spreads)
    assert [spread is None for spread in spreads] == [row["status"] != "ok" for row in rows]
    # A mirrored image has the same views in another order.
    mirrored = tmp_path / "mirrored"
    mirrored.mkdir()
    for file in sorted(images.glob("000[0-7].png")):
        ImageOps.mirror(Image.open(file)).save(mirrored / file.name)
    again = [row["spread"] for row in Run(task, mirrored, tmp_path / "again").drive().rows()]
    np.testing.assert_allclose(again, spreads[:8], atol=1e-12)
    assert np.mean(again) > 1e-4


def test_one_view_has_no_spread(images, tmp_path) -> None:
    task = pictured_task(tmp_path / "task", views="center")
    fit(task, "ridge")
    rows = Run(task, images, tmp_path).drive().rows()
    assert {row["spread"] for row in rows} == {None}


@pytest.mark.proves("archive")
def test_kept_embeddings_are_the_tasks_own(task, images, tmp_path, monkeypatch) -> None:
    shutil.copytree(task.folder, tmp_path / "task")
    own = load_task(tmp_path / "task")
    first = Run(own, images, tmp_path / "first", keep_embeddings=True).drive(workers=2)
    monkeypatch.setattr("archiveprobe.embed.unit_encoder.load_backbone", refuse)
    second = Run(own, images, tmp_path / "second").drive()
    assert first.bytes() == second.bytes()
    # Without it nothing was added.
    with pytest.raises(InputError, match="loaded"):
        Run(task, images, tmp_path / "third").drive()


def refuse(*_: object) -> None:
    raise InputError("loaded")


def test_a_system_that_was_trained_again_meanwhile_is_refused(
    task, images, tmp_path, fault_of
) -> None:
    work = Run(task, images, tmp_path)
    work.work = replace(work.work, digest="0" * 64)
    fault_of(work.drive, "ridge-hog", "trained again")
    assert not work.bytes()
