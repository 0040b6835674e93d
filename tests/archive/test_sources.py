"""What `--images` means: a folder, a list, a table, a tar or a URL, and never one for another."""

import os
import tarfile
from pathlib import Path

import pytest

from archiveprobe.archive.references import UnreadableError
from archiveprobe.archive.source import open_source, recorded_source
from archiveprobe.base.errors import InputError

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(PNG)
    return tmp_path / "images"


def kind(text: Path | str) -> str:
    return str(open_source(str(text)).identity()["kind"])


def test_each_form_is_known_by_what_it_holds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(folder / "tar of no ending", "w") as tar:
        tar.add(folder / "a.png", "a.png")
    (folder / "[1]*.txt").write_text("a.png\n")
    (folder / "table.of.txt").write_text("n,p\n1,a.png\n")
    monkeypatch.chdir(tmp_path)
    assert kind("images") == kind(f"{folder}/") == kind(f"file://{folder}") == "folder"
    assert kind(folder / "tar of no ending") == "tar"
    assert kind("images/[1]*.txt") == kind(folder / "table.of.txt") == "table"
    assert open_source("images").identity() == open_source(str(folder)).identity()


def test_every_kind_is_made_again_from_its_identity(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(folder / "a.png", "a.png")
    for place in (folder, tmp_path / "a.tar"):
        source = open_source(str(place))
        again = recorded_source(source.identity())
        assert type(again) is type(source)
        assert [again.read(each) for each in source.references(notify=print)] == [PNG]
    for place in ("ftp://host/images", "s3://bucket::file:///etc"):
        with pytest.raises(InputError, match="is in no known store"):
            recorded_source({"kind": "bucket", "place": place})


def test_a_folder_of_images_may_hold_tars_as_well(folder: Path) -> None:
    with tarfile.open(folder / "old.tar", "w") as tar:
        tar.add(folder / "a.png", "a.png")
    said: list[str] = []
    source = open_source(str(folder))
    assert [ref.id for ref in source.references(notify=said.append)] == ["a.png"]
    assert said == [f"{folder}: ignored 1 file that is no image: .tar (1)"]


REFUSED = {
    "": "no name of an archive",
    "nothing": "no file or folder .*/nothing",
    "imags": r"no file or folder .*did you mean 'images'",
    "images/a.png": "is one image: name the folder",
    "images/*.png": "is one image: name the folder",
    "images/*.tar": "no file at",
    "loop": "link that leads back to itself|no file or folder",
    "pipe": "no ordinary file",
    "packed.gz": "is compressed",
    "empty": "is empty",
    "ftp://host/x": "in no known store",
    "s3://a::file://b": "in no known store",
    "https://user:secret@host/x.tar": "holds a password",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=map(repr, REFUSED))
def test_what_holds_no_images_is_refused_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").touch()
    (tmp_path / "packed.gz").write_bytes(b"\x1f\x8b" + bytes(600))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=message) as fault:
        open_source(text)
    assert "\n" not in str(fault.value)
    assert "secret" not in str(fault.value)


def test_columns_belong_to_tables_only(folder: Path) -> None:
    with pytest.raises(InputError, match="is no table"):
        open_source(str(folder), path_column="x")


@pytest.mark.proves("images")
def test_every_image_of_a_folder_that_cannot_be_read_has_a_status(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.png").write_bytes(b"outside")
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "lost.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "large.png").touch()
    os.truncate(folder / "large.png", 300_000_000)
    (folder / os.fsdecode(b"odd\xff.png")).write_bytes(b"odd")
    source = open_source(str(folder))
    found = {}
    for reference in source.references(notify=print):
        try:
            found[reference.id] = source.read(reference)
        except UnreadableError as fault:
            found[reference.id] = fault.status.encode()
    assert found == {
        "a.png": PNG,
        "large.png": b"too_many_bytes",
        "loop.png": b"unreadable_file",
        "lost.png": b"missing_file",
        r"odd\xff.png": b"odd",
        "out.png": b"outside_root",
        "pipe.png": b"not_a_file",
    }


def test_a_folder_that_is_gone_stops_the_run(folder: Path) -> None:
    source = open_source(str(folder))
    references = list(source.references(notify=print))
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(InputError, match="is gone: bring it back"):
        source.read(references[0])
