import os
from pathlib import Path

import pytest

from archiveprobe.task.file_kind import HEAD, may_be_image
from archiveprobe.task.find_images import find_images, has_image_extension, printable

FORMS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000"]


@pytest.fixture
def put(tmp_path):
    def put(path, content=b"no image"):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    return put


@pytest.mark.parametrize("form", FORMS)
def test_images_are_known_by_their_first_bytes(draw, encode, form):
    content = encode(draw(1), form)
    assert may_be_image(content[:HEAD])
    assert may_be_image(content[:HEAD][: len(content) // 2])
    assert not may_be_image(content[1:])


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif"])
def test_boxed_images_are_known(brand):
    assert may_be_image(b"\0\0\0\x18ftyp" + brand + bytes(12))


@pytest.mark.parametrize(
    "head",
    [
        *(b"", b"BM", b"BMW drove past, and nobody saw it come", b"{}", b"%PDF-1.7", b"PK\3\4"),
        *(b"RIFF\0\0\0\0WAVE", b"\0\0\0\x18ftypisom", b"version https://git-lfs", bytes(64)),
    ],
)
def test_other_first_bytes(head):
    assert not may_be_image(head)


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "a.JPG", "a.b.jpeg", "a.jpg_large", "a.jpg ", "a.png-orig", ".x.webp", "a.heic"],
)
def test_names_of_images(name):
    assert has_image_extension(name)


@pytest.mark.parametrize(
    "name", ["jpg", "a", "a.", "a.txt", "a.jpg.txt", "a.jpgs", "a.st", "a. jpg"]
)
def test_other_names(name):
    assert not has_image_extension(name)


def test_name_or_content_makes_a_image(put, tmp_path, draw, encode):
    content = encode(draw(1))
    put("broken.jpg")
    put("empty.png", b"")
    put("deep/er/whole", content)
    put("deep/whole.dat", content[:100])
    put("other.dat")
    put("void", b"")
    put("page.html", content)
    found = find_images(tmp_path)
    assert sorted(found.paths) == ["broken.jpg", "deep/er/whole", "deep/whole.dat", "empty.png"]
    assert found.ignored == {".dat": 1, "others": 1, ".html": 1}
    assert (found.barren, found.linked) == ([], [])


def test_companions_are_not_opened(put, tmp_path, monkeypatch):
    put("a.txt")
    put("b.jpg")
    monkeypatch.setattr(type(tmp_path), "open", lambda *_, **__: pytest.fail("opened"))
    assert find_images(tmp_path).paths == ["b.jpg"]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = find_images(tmp_path)
    assert (found.paths, found.ignored) == (["pipe.jpg"], {"others": 1})


def test_a_file_that_cannot_be_opened_is_kept(put, tmp_path, monkeypatch):
    put("unknown")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "open", refuse)
    assert find_images(tmp_path).paths == ["unknown"]


def test_own_files_and_hidden_ones_are_passed_over(put, tmp_path):
    for path in (
        "work/a.jpg",
        "deep/work/b.jpg",
        "task.toml",
        "task.toml.txt",
        ".c.jpg",
        ".d/e.jpg",
    ):
        put(path)
    found = find_images(tmp_path, [tmp_path / "work", tmp_path / "task.toml"])
    assert found.paths == ["deep/work/b.jpg"]
    assert found.ignored == {".txt": 1}


def test_remarks(put, tmp_path):
    assert list(find_images(tmp_path).remarks()) == []
    put("a.jpg")
    put("notes.txt")
    assert list(find_images(tmp_path).remarks()) == ["ignored 1 file that is no image: .txt (1)"]
    for kind in "bcdefg":
        put(f"{kind}/x.{kind}{kind}{kind}")
    put("b/more.bbb")
    put("c/image.jpg")
    kinds = ".bbb (2), .ccc (1), .ddd (1), .eee (1), .fff (1) and 2 more"
    assert list(find_images(tmp_path).remarks()) == [
        f"ignored 8 files, no images: {kinds}",
        "no image lies in b, d, e, f, g: move it out of images.root",
    ]


def test_odd_names_do_not_reach_a_terminal(put, tmp_path):
    for name in ("a.\x1b[31m", "b.ab\nc", "c.é", "d." + "x" * 50, os.fsdecode(b"e.\xff")):
        put(name)
    put(os.fsdecode(b"caf\xe9/x.txt"))
    found = find_images(tmp_path)
    assert found.ignored == {".ab": 1, ".txt": 1, "others": 4}
    for remark in found.remarks():
        assert remark.isprintable()
        assert remark.isascii()


def test_readable():
    assert printable("بيت.jpg") == "بيت.jpg"
    assert printable(os.fsdecode(b"caf\xe9.jpg")) == "caf\\xe9.jpg"
    assert printable("a\rb\0.jpg") == "a\\x0db\\x00.jpg"


def test_a_link_that_leads_back_to_itself_is_a_file_whose_row_says_so(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "loop").symlink_to("loop")
    found = find_images(tmp_path)
    assert found.paths == ["loop.jpg"]


def test_paths_are_sorted_whole(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "a.jpg", "a-.jpg", "a0/1.jpg", "b/a/1.jpg", "b/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    paths = find_images(tmp_path).paths
    assert paths == sorted(paths)
    assert len(paths) == 6
