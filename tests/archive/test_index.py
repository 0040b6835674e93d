"""The index of a source: every image once, in units that are read alone and prove themselves."""

import errno
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import archiveprobe.archive.index
from archiveprobe.archive.index import Index, write_index
from archiveprobe.archive.references import Reference
from archiveprobe.archive.source import open_source
from archiveprobe.archive.units import Share, images_per_unit
from archiveprobe.base.errors import InputError
from archiveprobe.base.files import TEMPORARY


@dataclass
class Listed:
    """A source of given references."""

    listed: list[Reference]
    name: str = "a list"
    reads: int = field(default=0)

    def identity(self) -> dict[str, Any]:
        return {"kind": "listed"}

    def references(
        self,
        *,
        notify: Callable[[str], None],  # noqa: ARG002
    ) -> Iterator[Reference]:
        yield from self.listed

    def read(self, reference: Reference) -> bytes:
        return reference.id.encode()


def many(count: int) -> list[Reference]:
    return [Reference(f"{at:07d}.jpg", f"\udcff{at}.jpg", at, at or None) for at in range(count)]


def test_every_image_comes_back_in_its_unit(tmp_path: Path) -> None:
    index = write_index(Listed(many(20_001)), tmp_path / "a" / "index.parquet", 64)
    opened = Index.open(index.file)
    assert opened == index
    assert (opened.images, opened.units, opened.unit_images) == (20_001, 313, 64)
    assert [reference for unit in opened for reference in unit.references] == many(20_001)
    assert opened.unit(312).references == tuple(many(20_001)[312 * 64 :])
    with pytest.raises(IndexError):
        opened.unit(313)
    assert not list(index.file.parent.glob(f"{TEMPORARY}*"))


def test_two_threads_never_get_the_images_of_each_other(tmp_path: Path) -> None:
    """As two images of an archive that a page asks for at once."""

    class Shared(Index):
        def __setattr__(self, name: str, value: Any) -> None:
            """Let another thread read another group as soon as this one has read its own."""
            super().__setattr__(name, (1, ["another"]) if name == "_group" and value[1] else value)

    file = write_index(Listed(many(200)), tmp_path / "index.parquet", 7).file
    assert Shared.open(file).unit(0).references == tuple(many(200)[:7])


def test_shares_are_disjoint_and_complete(tmp_path: Path) -> None:
    index = write_index(Listed(many(200)), tmp_path / "index.parquet", 7)
    shares = [Share.parse(f"{k}/3") for k in (1, 2, 3)]
    numbers = [number for share in shares for number in index.units_of(share)]
    assert sorted(numbers) == list(index.units_of())
    assert all(share.owns(number) for share in shares for number in index.units_of(share))
    assert str(shares[1]) == "2of3"


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "-1/3", "a/b", "1/3/5", "", "٣/٣"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="K/N"):
        Share.parse(text)


def test_a_unit_holds_64_images_or_64_megabytes() -> None:
    assert images_per_unit(224 * 224 * 3) == 64
    assert images_per_unit(10_000_000) == 6
    assert images_per_unit(100_000_000) == 1


def test_repeated_ids_are_said_and_no_image_is_lost(tmp_path: Path) -> None:
    said: list[str] = []
    twice = [Reference("a", "1"), Reference("a~2", "2"), Reference("a", "3"), Reference("a", "1")]
    source = Listed([*twice, Reference("b", "4"), Reference("a", "5")])
    index = write_index(source, tmp_path / "index.parquet", 2, notify=said.append)
    places = {ref.id: ref.place for unit in index for ref in unit.references}
    assert places == {"a": "1", "a~2": "2", "a~3": "3", "b": "4", "a~4": "5"}
    assert said == [
        "a list: 1 image named again, answered once: 'a'",
        "a list: 2 images with the id of another, numbered: 'a~3', 'a~4'",
    ]
    assert Index.open(index.file).digest == index.digest


def test_no_image_at_all_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image in a list"):
        write_index(Listed([]), tmp_path / "index.parquet", 64)
    assert not list(tmp_path.iterdir())


@pytest.mark.proves("disk")
def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(archiveprobe.archive.index, "fsync", full)
        with pytest.raises(
            InputError, match=r"cannot write the index .*: No space .* same command"
        ):
            write_index(Listed(many(10)), tmp_path / "index.parquet", 4)
        assert not list(tmp_path.iterdir())
    assert write_index(Listed(many(10)), tmp_path / "index.parquet", 4).images == 10


def test_the_first_of_two_writers_wins_and_another_source_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "index.parquet"
    first = write_index(Listed(many(10)), file, 4)
    before = file.stat()
    assert write_index(Listed(many(10)), file, 4) == first
    assert file.stat() == before
    with pytest.raises(InputError, match="lists other images"):
        write_index(Listed(many(11)), file, 4)
    assert file.stat() == before


@pytest.mark.proves("damage")
def test_no_flipped_bit_of_an_index_gives_another_image(tmp_path: Path) -> None:
    index = write_index(Listed(many(50)), tmp_path / "index.parquet", 8)
    content = index.file.read_bytes()
    for at in range(0, len(content), 7):
        index.file.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        try:
            opened = Index.open(index.file)
            references = [reference for unit in opened for reference in unit.references]
        except InputError as error:
            assert "damaged" in str(error)
        else:
            assert references == many(50)
    for cut in (0, 10, len(content) // 2, len(content) - 1):
        index.file.write_bytes(content[:cut])
        with pytest.raises(InputError, match="damaged"):
            Index.open(index.file)


def test_an_index_is_sent_to_another_process_without_its_rows(tmp_path: Path) -> None:
    index = write_index(Listed(many(20_000)), tmp_path / "index.parquet", 64)
    index.unit(7)
    sent = pickle.dumps(index)
    assert len(sent) < 2000
    assert pickle.loads(sent).unit(7) == index.unit(7)  # noqa: S301


def test_a_folder_is_listed_sorted_with_what_is_left_out(tmp_path: Path) -> None:
    for name in ("b/z.jpg", "a.jpg", "a/1.png", "a-.png", "c/notes.txt", ".hidden/x.jpg"):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\x89PNG\r\n\x1a\n" + name.encode())
    (tmp_path / "images" / "link").symlink_to(tmp_path)
    said: list[str] = []
    source = open_source(str(tmp_path / "images"))
    index = write_index(source, tmp_path / "index.parquet", 64, notify=said.append)
    ids = [reference.id for reference in index.unit(0).references]
    assert ids == sorted(ids) == ["a-.png", "a.jpg", "a/1.png", "b/z.jpg"]
    assert [source.read(ref)[8:].decode() for ref in index.unit(0).references] == ids
    assert [line.partition("images: ")[2] for line in said] == [
        "ignored 1 file that is no image: .txt (1)",
        "links to folders are not followed: link",
    ]
