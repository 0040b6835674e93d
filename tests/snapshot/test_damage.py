"""Nothing in work/ is believed unproved: damaged files give no figure, and there is a way out."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from shelf import Shelf, image, plain

from archiveprobe.base.errors import InputError
from archiveprobe.probe.audit.run import run_audit
from archiveprobe.task.manifest import read_manifest
from archiveprobe.task.snapshot import read_snapshot


@pytest.fixture
def probed(shelf: Shelf) -> Shelf:
    shelf.embed()
    shelf.probe()
    return shelf


def damages(content: bytes, count: int) -> Iterator[bytes]:
    """Flips and cuts at `count` places, the first and the last ones among them."""
    rng = random.Random(0)
    places = {0, 1, len(content) - 1, *rng.sample(range(len(content)), min(count, len(content)))}
    for at in sorted(places):
        flipped = bytearray(content)
        flipped[at] ^= 1 << rng.randrange(8)
        yield bytes(flipped)
        yield content[:at]
    yield content + b"\n"
    yield b""


def figures_refuse(shelf: Shelf, *words: str) -> None:
    for command in (shelf.probe, shelf.export, lambda: shelf.submission("ridge-eye"),
                    lambda: run_audit(shelf.task)):  # fmt: skip
        with pytest.raises(InputError) as caught:
            command()
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert all(word in message for word in words), message


@pytest.mark.parametrize("name", ["manifest.csv", "snapshot.json"])
def test_every_byte_of_what_embed_leaves_is_proved(probed: Shelf, name: str) -> None:
    file = probed.work / name
    read = read_manifest if name == "manifest.csv" else read_snapshot
    whole, task = file.read_bytes(), probed.task
    for at in range(len(whole)):
        for damaged in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at]):
            file.write_bytes(damaged)
            with pytest.raises(InputError, match="archiveprobe embed"):
                read(task)


@pytest.mark.parametrize("name", ["manifest.csv", "snapshot.json"])
def test_a_damaged_record_gives_no_figure_and_embed_mends_it(probed: Shelf, name: str) -> None:
    file, board = probed.work / name, plain(probed.probe())
    for damaged in damages(file.read_bytes(), 3):
        file.write_bytes(damaged)
        figures_refuse(probed, "archiveprobe embed")
        probed.embed()
        assert probed.bench.crops == 0
        assert plain(probed.probe()) == board


def test_a_damaged_manifest_is_said_and_looked_at_anew(probed: Shelf) -> None:
    file = probed.work / "manifest.csv"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"ok", b"no", 1))
    probed.embed()
    assert "every image is looked at again" in probed.bench.text()
    assert probed.bench.decoded == len(probed.lines)
    assert read_manifest(probed.task)[0].status == "ok"


def test_an_old_manifest_under_a_newer_snapshot(probed: Shelf, tmp_path: Path) -> None:
    old = (probed.work / "manifest.csv").read_bytes()
    probed.put("003.png", "destroyed", image(500))
    probed.embed()
    new = plain(probed.probe())
    (probed.work / "manifest.csv").write_bytes(old)
    figures_refuse(probed, "is not the one that the last embed left", "archiveprobe embed")
    probed.embed()
    assert plain(probed.probe()) == new


def test_an_old_snapshot_over_a_newer_manifest(probed: Shelf) -> None:
    old = (probed.work / "snapshot.json").read_bytes()
    probed.fill(labelled=2, to_predict=0, start=100)
    probed.embed()
    new = plain(probed.probe())
    (probed.work / "snapshot.json").write_bytes(old)
    figures_refuse(probed, "is not the one that the last embed left", "archiveprobe embed")
    probed.embed()
    assert plain(probed.probe()) == new


def test_damaged_folds_are_refused_with_a_way_out(probed: Shelf) -> None:
    file = probed.work / "folds.csv"
    whole, board = file.read_bytes(), plain(probed.probe())
    for damaged in damages(whole, 20):
        file.write_bytes(damaged)
        try:
            # A line end more or less, or a quotation mark, says nothing else than before.
            assert plain(probed.probe()) == board
        except InputError as error:
            assert "restore it from a copy, or delete it" in str(error)
    file.write_bytes(whole)
    assert plain(probed.probe()) == board
    file.unlink()
    probed.embed()
    probed.probe()
    assert probed.states() == {"ridge-eye": "ok"}


def test_a_named_pipe_in_the_place_of_the_folds(probed: Shelf) -> None:
    """Opened as a file, it would be waited for without an end."""
    import os

    file = probed.work / "folds.csv"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(InputError, match=r"folds\.csv"):
        probed.probe()


def test_folds_of_older_days(probed: Shelf, tmp_path: Path) -> None:
    """A whole copy is an input like any other; systems of other folds are out of date."""
    old = (probed.work / "folds.csv").read_bytes()
    first = plain(probed.probe())
    (probed.work / "folds.csv").unlink()
    probed.fill(labelled=6, to_predict=0, start=100)
    probed.embed()
    probed.probe()
    for name in list(probed.lines):
        if int(name[:3]) >= 100:
            probed.drop(name)
    probed.embed()
    probed.probe()
    (probed.work / "folds.csv").write_bytes(old)
    assert probed.states()["ridge-eye"].startswith("out of date: folds")
    with pytest.raises(InputError, match=r"out of date \(folds"):
        probed.submission("ridge-eye")
    assert plain(probed.probe()) == first


def test_a_damaged_shift_is_measured_anew(shelf: Shelf) -> None:
    shelf.fill(labelled=24, to_predict=12)
    shelf.embed()
    board, file = shelf.probe(), shelf.work / "audit" / "shift.json"
    whole = file.read_bytes()
    for damaged in damages(whole, 6):
        file.write_bytes(damaged)
        assert shelf.probe() == board
        assert file.read_bytes() == whole


def test_a_damaged_system_is_listed_as_such_and_answers_nothing(probed: Shelf) -> None:
    answers = probed.submission("ridge-eye")
    for file in sorted((probed.work / "runs" / "ridge-eye").iterdir()):
        whole = file.read_bytes()
        for damaged in damages(whole, 12):
            file.write_bytes(damaged)
            try:
                assert probed.submission("ridge-eye") == answers
            except InputError:
                assert probed.states().get("ridge-eye") != "ok"
        file.write_bytes(whole)
    assert probed.submission("ridge-eye") == answers


def test_a_system_restored_from_older_days(probed: Shelf, tmp_path: Path) -> None:
    run = probed.work / "runs" / "ridge-eye"
    shutil.copytree(run, tmp_path / "old")
    probed.corrections["003.png"] = "intact"
    assert probed.states() == {"ridge-eye": "out of date: labels"}
    probed.probe()
    shutil.rmtree(run)
    shutil.copytree(tmp_path / "old", run)
    assert probed.states() == {"ridge-eye": "out of date: labels"}
    with pytest.raises(InputError, match=r"out of date \(labels"):
        probed.submission("ridge-eye")


def test_a_damaged_cache_is_mended_as_its_message_says(probed: Shelf) -> None:
    from archiveprobe.embed.inventory import verify_all

    before = probed.export()["eye"]
    for file in sorted((probed.work / "cache").rglob("*")):
        if not file.is_file() or not file.stat().st_size:
            continue
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2] ^= 4
        file.write_bytes(whole)
        for _ in range(3):
            try:
                np.testing.assert_array_equal(probed.export()["eye"], before)
                break
            except InputError as error:
                if "cache verify" in str(error):
                    verify_all(probed.task, deep=True)
                probed.embed()
        else:
            raise AssertionError(f"{file.name} is not mended")
