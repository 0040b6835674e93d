"""Work folders: of two task files, copied without images, read-only, of another Pillow."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from shelf import LABELS, Shelf, image, killed_embed, plain

import archiveprobe.task.manifest
from archiveprobe.base.errors import InputError
from archiveprobe.embed.export import export_task
from archiveprobe.evaluate.system_status import overview
from archiveprobe.predict.images import predict
from archiveprobe.probe.audit.run import run_audit
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import load_task


def test_two_task_files_in_one_folder(shelf: Shelf) -> None:
    shelf.embed()
    shelf.probe()
    second = shelf.folder / "second.toml"
    second.write_text(shelf.task.file.read_text().replace('"center"', '"flip"'))
    before = {file: file.read_bytes() for file in shelf.work.rglob("*") if file.is_file()}
    other = load_task(second)
    words = "belongs to task.toml, not to second.toml: move second.toml into a folder of its own"
    for command in (
        lambda: shelf.bench.run(other),
        lambda: run_probes(other, Options(("ridge",))),
        lambda: run_audit(other),
        lambda: overview(other),
        lambda: export_task(other, shelf.folder / "x.h5"),
        lambda: predict(other, "ridge-eye", shelf.folder / "x.csv"),
    ):
        with pytest.raises(InputError, match=words):
            command()
    assert before == {file: file.read_bytes() for file in shelf.work.rglob("*") if file.is_file()}
    shelf.probe()


def test_a_second_task_file_waits_for_nobody_while_the_first_is_killed(shelf: Shelf) -> None:
    assert killed_embed(shelf, 5)
    second = shelf.folder / "second.toml"
    second.write_text(shelf.task.file.read_text())
    with pytest.raises(InputError, match=r"belongs to task\.toml"):
        shelf.bench.run(load_task(second))


def test_elsewhere_without_images(shelf: Shelf, tmp_path: Path) -> None:
    shelf.embed()
    board = shelf.probe()
    answers, export = shelf.prediction("ridge-eye"), shelf.export()
    laptop = shelf.copied(tmp_path / "laptop", images=False)
    (laptop.folder / "eye.bin").unlink()
    assert laptop.states() == {"ridge-eye": "ok"}
    assert laptop.probe() == board
    assert laptop.prediction("ridge-eye") == answers
    assert laptop.submission("ridge-eye") == shelf.submission("ridge-eye")
    assert laptop.export()["id"] == export["id"]
    run_audit(laptop.task)


def is_left_alone(shelf: Shelf) -> None:
    """Embed refuses in one line, and takes nothing of what stood there before."""
    before = {name: (shelf.work / name).read_bytes() for name in ("manifest.csv", "snapshot.json")}
    board = shelf.probe(kind="knn")
    with pytest.raises(InputError) as caught:
        shelf.embed()
    assert len(str(caught.value).splitlines()) == 1
    assert "images.root" in str(caught.value)
    for name, content in before.items():
        assert (shelf.work / name).read_bytes() == content
    assert shelf.probe(kind="knn") == board


@pytest.mark.parametrize("root", ["gone", "empty"])
def test_embed_where_no_image_is(shelf: Shelf, tmp_path: Path, root: str) -> None:
    shelf.embed()
    laptop = shelf.copied(tmp_path / "laptop", images=False)
    if root == "empty":
        (laptop.folder / "images").mkdir()
    is_left_alone(laptop)


def test_embed_where_none_of_the_known_images_is(shelf: Shelf, tmp_path: Path) -> None:
    """One image of somebody's own does not make the others unreadable for good."""
    shelf.embed()
    laptop = shelf.copied(tmp_path / "laptop", images=False)
    (laptop.folder / "images").mkdir()
    laptop.put("new.png", "", image(700))
    before = (laptop.work / "manifest.csv").read_bytes()
    with pytest.raises(InputError, match=r"not one of the 15 images .* is there"):
        laptop.embed()
    assert (laptop.work / "manifest.csv").read_bytes() == before


def test_some_images_gone_are_missing_rows(shelf: Shelf) -> None:
    shelf.embed()
    for name in list(shelf.lines)[1:]:
        shelf.file(name).unlink()
    shelf.embed()
    assert shelf.export()["status"].count("missing_file") == 14


def test_a_machine_with_another_pillow(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.embed()
    board, export = shelf.probe(), shelf.export()
    monkeypatch.setattr(archiveprobe.task.manifest, "DECODER", "pillow-99.0/policy-1")
    assert shelf.states() == {"ridge-eye": "ok"}
    assert shelf.probe() == board
    assert shelf.export()["status"] == export["status"]
    # Another decoder may see other pixels: embed looks at every image again.
    shelf.embed()
    assert shelf.bench.decoded == 15
    shelf.embed()
    assert shelf.bench.decoded == 0
    assert shelf.probe() == board


def test_a_killed_run_on_a_machine_with_another_pillow(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.embed()
    monkeypatch.setattr(archiveprobe.task.manifest, "DECODER", "pillow-99.0/policy-1")
    assert killed_embed(shelf, 4)
    with pytest.raises(InputError, match="of 15 rows wait for embed"):
        shelf.probe()
    shelf.embed()
    shelf.probe()


def test_work_is_read_only(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.embed()
    shelf.probe()

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "replace", "rename"):
        monkeypatch.setattr(os, name, refuse)
    assert shelf.states() == {"ridge-eye": "ok"}
    with pytest.raises(InputError, match=r"cannot write .*Read-only file system"):
        shelf.probe()


def test_folders_per_label(shelf: Shelf) -> None:
    """Without a table a row is what lies below the root; moved, it is another row."""
    root = shelf.folder / "images"
    for name, line in shelf.lines.items():
        (root / (line.label or "unlabelled")).mkdir(exist_ok=True)
        shelf.file(name).rename(root / (line.label or "unlabelled") / name)
    text = shelf.task.file.read_text().replace('table = "labels.csv"\nid = "image"\n', "")
    shelf.task.file.write_text(text)
    task = load_task(shelf.folder)
    shelf.bench.run(task)
    run_probes(task, Options(("ridge",)))
    assert [one.state for one in overview(task)] == ["ok"]
    (root / LABELS[0] / "000.png").rename(root / LABELS[1] / "000.png")
    with pytest.raises(InputError, match="1 of 15 rows waits for embed"):
        run_probes(task, Options(("ridge",)))
    shelf.bench.run(task)
    assert shelf.bench.crops == 0
    [one] = overview(task)
    assert one.state.startswith("out of date: rows, labels")
    shutil.rmtree(root)
    with pytest.raises(InputError):
        shelf.bench.run(task)


def test_without_labels_a_cache_is_exported_all_the_same(shelf: Shelf) -> None:
    for name in shelf.lines:
        shelf.put(name, "", shelf.lines[name].content)
    shelf.embed()
    assert shelf.export()["status"] == ["ok"] * 15
    with pytest.raises(InputError, match="no labelled row"):
        shelf.probe()
    shelf.put("later.png", "", image(800))
    with pytest.raises(InputError, match="1 of 16 rows waits"):
        shelf.export()


def test_new_images_have_an_archive_of_their_own(shelf: Shelf, tmp_path: Path) -> None:
    """What is asked of a folder beside the task leaves the task's own snapshot alone."""
    shelf.embed()
    shelf.probe()
    before = (shelf.work / "snapshot.json").read_bytes()
    folder = tmp_path / "new"
    folder.mkdir()
    for seed in range(4):
        (folder / f"{seed}.png").write_bytes(image(900 + seed))
    first = shelf.prediction("ridge-eye", images=folder)
    assert first.count("\n") == 5
    for seed in range(4):
        (folder / f"{seed}.png").rename(folder / f"again-{seed}.png")
    assert shelf.prediction("ridge-eye", images=folder).replace("again-", "") == first
    assert (shelf.work / "snapshot.json").read_bytes() == before
    shelf.fill(labelled=0, to_predict=1, start=101)
    with pytest.raises(InputError, match="1 of 16 rows waits"):
        shelf.prediction("ridge-eye", images=folder)


def test_two_backbones_embedded_side_by_side(shelf: Shelf) -> None:
    """Neither run forgets what the other has left, whichever ends first."""
    shelf.backbones = ("eye", "ear")
    task = shelf.task
    children = []
    for name in shelf.backbones:
        child = os.fork()
        if not child:
            try:
                shelf.bench.run(task, backbones=(name,))
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    board = plain(shelf.probe())
    shelf.embed()
    assert shelf.bench.crops == 0 and shelf.bench.decoded == 0
    assert plain(shelf.probe()) == board
