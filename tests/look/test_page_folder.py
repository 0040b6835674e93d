"""A page with too many images for one file: they lie in a folder beside it, which is its own."""

from pathlib import Path
from urllib.parse import unquote

import pytest
from drawn_collection import drawn_collection

from archiveprobe.base.errors import InputError
from archiveprobe.look import page as look_page
from archiveprobe.look import write
from archiveprobe.look.page import image_folder, write_page
from archiveprobe.look.write import write_look


@pytest.fixture(autouse=True)
def few_inlined(monkeypatch) -> None:
    monkeypatch.setattr(look_page, "MOST_INLINED", 10)


def pixels(collection) -> list[tuple[str, bytes]]:
    return [(str(row["digest"]), b"RIFF") for row in collection.rows if row["digest"]]


@pytest.mark.browser
@pytest.mark.parametrize("name", ["page.html", "a#b?.html", "page:50%.html", "صفحة <1>.html"])
def test_images_are_read_from_the_folder_beside(page_file, open_page, name) -> None:
    file = page_file(drawn_collection(40, hostile=False), name)
    page = open_page(file)
    page.click("#tab-images")
    page.wait_for_function(
        "[...document.querySelectorAll('#panel-images img.archive')].some((i) => i.naturalWidth)"
    )
    source = page.locator("#panel-images img.archive").first.get_attribute("src")
    assert unquote(source).startswith(f"{file.stem}-images/")


def test_images_that_left_the_archive_leave_the_folder(tmp_path) -> None:
    file, before, after = tmp_path / "page.html", drawn_collection(40), drawn_collection(30)
    write_page(file, before, pixels(before))
    (image_folder(file) / "note.webp").write_bytes(b"a person's")
    write_page(file, after, pixels(after))
    names = {path.stem for path in image_folder(file).glob("*.webp")}
    assert names == {digest for digest, _ in pixels(after)} | {"note"}


@pytest.mark.proves("page")
@pytest.mark.parametrize("kind", ["folder", "link", "link to a page's folder", "file"])
def test_what_no_page_has_made_stays(tmp_path, kind) -> None:
    file, collection = tmp_path / "page.html", drawn_collection(40)
    taken, own = image_folder(file), tmp_path / "own"
    if kind == "link to a page's folder":
        write_page(tmp_path / "own.html", collection, pixels(collection))
        own = image_folder(tmp_path / "own.html")
    elif kind != "file":
        own.mkdir()
        (own / f"{'ab' * 32}.webp").write_bytes(b"mine")
    if kind == "file":
        taken.write_bytes(b"mine")
    elif kind == "folder":
        own.rename(taken)
    else:
        taken.symlink_to(own)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="is there already"):
        write_page(file, collection, pixels(collection))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_folder_among_the_images_of_the_task_is_refused(archive, monkeypatch) -> None:
    archive.add_drawn(range(12))
    task = archive.task()
    monkeypatch.setattr(write, "collect", lambda *_, **__: drawn_collection(40))
    before = sorted(archive.folder.rglob("*"))
    with pytest.raises(InputError, match="a place of the task's images"):
        write_look(task, Path(task.root) / "page.html")
    assert sorted(archive.folder.rglob("*")) == before
