"""Tars: every member that may be an image has a row, whatever state the tar is in."""

import io
import pickle
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from archiveprobe.archive.references import Reference, UnreadableError
from archiveprobe.archive.source import open_source
from archiveprobe.archive.tars import TarSource
from archiveprobe.base.errors import InputError
from archiveprobe.task.decoding import REJECTIONS

PNG = b"\x89PNG\r\n\x1a\n"
Said = list[str]


def pack(file: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=form) as tar:
        for name, content in members.items():
            add(tar, name, content)
    return file


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **facts: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in facts.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def listed(text: Path | str) -> tuple[TarSource, list[Reference], Said]:
    said: Said = []
    source = open_source(str(text), notify=said.append)
    assert isinstance(source, TarSource)
    return source, list(source.references(notify=said.append)), said


def contents(text: Path | str) -> dict[str, bytes]:
    source, references, _ = listed(text)
    return {reference.id: source.read(reference) for reference in references}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_in_any_order_of_any_length_of_name(tmp_path: Path, form: int) -> None:
    names = [f"{'deep/' * depth}é{depth}.jpg" for depth in range(0, 45, 9)]
    if form != tarfile.USTAR_FORMAT:
        names += ["long" * 70 + ".png", "/absolute.png", "../../up.png", "b.png"]
    random.Random(0).shuffle(names)
    members = {name: PNG + name.encode() * 50 for name in names}
    assert contents(pack(tmp_path / "a.tar", members, form)) == members


def test_the_way_of_packing_changes_no_name(tmp_path: Path) -> None:
    members = {"./x/a.jpg": b"1", "./b.jpg": b"2"}
    assert contents(pack(tmp_path / "a.tar", members)) == {"x/a.jpg": b"1", "b.jpg": b"2"}


def test_members_are_judged_as_files_in_a_folder_are(tmp_path: Path) -> None:
    members = {
        "photo": PNG + b"1",
        "photo.cls": b"7",
        "a.json": b"{}",
        "b.json": b"{}",
        "broken.jpg": b"",
        "._b.jpg": b"resource fork",
        "c.webp_large": PNG,
    }
    file = pack(tmp_path / "a.tar", members)
    with tarfile.open(file, "a") as tar:
        add(tar, "folder", type=tarfile.DIRTYPE)
        add(tar, "pipe.jpg", type=tarfile.FIFOTYPE)
    _, references, said = listed(file)
    assert [reference.id for reference in references] == ["photo", "broken.jpg", "c.webp_large"]
    assert said == [
        f"{file}: ignored 5 files, no images: "
        ".json (2), .cls (1), devices and pipes (1), hidden (1)"
    ]


def test_links_lead_to_the_bytes_of_other_members(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as tar:
        add(tar, "first/link.jpg", type=tarfile.SYMTYPE, linkname="../second/real.jpg")
        add(tar, "second/real.jpg", b"bytes")
        add(tar, "hard.jpg", type=tarfile.LNKTYPE, linkname="second/real.jpg")
        add(tar, "again.jpg", type=tarfile.SYMTYPE, linkname="first/link.jpg")
        add(tar, "lost.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "loop.jpg", type=tarfile.SYMTYPE, linkname="loop.jpg")
    source, references, said = listed(file)
    good = {ref.id: source.read(ref) for ref in references if ref.offset >= 0}
    names = ("second/real.jpg", "first/link.jpg", "hard.jpg", "again.jpg")
    assert good == dict.fromkeys(names, b"bytes")
    for reference in references[-2:]:
        with pytest.raises(UnreadableError) as fault:
            source.read(reference)
        assert fault.value.status == "missing_file"
    assert said == ["a.tar: links that lead to no member: lost.jpg, loop.jpg"]


def test_a_sparse_member_has_a_status(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as tar:
        facts = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9000"}
        add(tar, "s.jpg", b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512, pax_headers=facts)
        add(tar, "t.jpg", b"plain")
    source, references, said = listed(file)
    assert [reference.id for reference in references] == ["s.jpg", "t.jpg"]
    with pytest.raises(UnreadableError, match="sparse"):
        source.read(references[0])
    assert source.read(references[1]) == b"plain"
    assert said == ["a.tar: 1 sparse file cannot be read: pack without --sparse"]


@pytest.mark.proves("images")
def test_a_tar_cut_short_keeps_what_is_whole_and_says_so(tmp_path: Path) -> None:
    members = {f"{at}.jpg": bytes([at]) * 1000 for at in range(10)}
    whole = pack(tmp_path / "a.tar", members).read_bytes()
    step = 512 + 1024
    for cut in range(0, 10 * step + 512, 300):
        file = tmp_path / "cut.tar"
        file.write_bytes(whole[:cut])
        if cut < 262:
            with pytest.raises(InputError):
                open_source(str(file))
            continue
        source, references, said = listed(file)
        states = []
        for reference in references:
            try:
                assert source.read(reference) == members[reference.id]
                states.append("ok")
            except UnreadableError as fault:
                states.append(fault.status)
        begun, within = divmod(cut, step)
        assert states.count("ok") == min(10, begun + (within >= 512 + 1000)), cut
        assert states.count("truncated") == (512 <= within < 512 + 1000 and begun < 10), cut
        if begun < 10:
            assert len(said) == 1, cut
            assert "cut short" in said[0], cut


def test_a_damaged_header_costs_its_own_member_only(tmp_path: Path) -> None:
    members = {f"{at}.jpg": bytes([at + 1]) * 700 for at in range(5)}
    file = pack(tmp_path / "a.tar", members)
    content = bytearray(file.read_bytes())
    content[2 * 1536 + 150] ^= 255
    file.write_bytes(content)
    source, references, said = listed(file)
    assert [reference.id for reference in references] == ["0.jpg", "1.jpg", "3.jpg", "4.jpg"]
    assert said == ["a.tar: 1536 bytes are no member (damaged, or no tar): members may be missing"]
    assert source.read(references[2]) == members["3.jpg"]


def test_tars_put_one_behind_the_other_are_all_read(tmp_path: Path) -> None:
    parts = [pack(tmp_path / f"{at}.tar", {f"{at}.jpg": b"x"}).read_bytes() for at in range(3)]
    file = tmp_path / "all.tar"
    file.write_bytes(b"".join(parts))
    _, references, said = listed(file)
    assert [reference.id for reference in references] == ["0.jpg", "1.jpg", "2.jpg"]
    assert not said


def forged(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[124:136], header[156:157], header[148:156] = size, kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.proves("hostile")
@pytest.mark.parametrize(
    "header",
    [
        forged("huge.jpg", b"\x80" + b"\x7f" * 11),
        forged("negative.jpg", b"\xff" * 11 + b"\x00"),
        forged("77.jpg", b"77777777777 "),
        forged("not octal.jpg", b"99999999999 "),
        forged("x", b"77777777777 ", b"x"),
        forged("L", b"\xff" * 12, b"L"),
    ],
    ids=range(6),
)
def test_a_hostile_size_takes_no_memory_and_no_other_member(tmp_path: Path, header: bytes) -> None:
    good = pack(tmp_path / "good.tar", {"good.jpg": b"good"}).read_bytes()
    file = tmp_path / "a.tar"
    file.write_bytes(good[:1024] + header + good)
    source, references, said = listed(file)
    assert source.read(references[0]) == b"good"
    assert said
    for reference in references[1:]:
        if reference.id != "good.jpg":
            with pytest.raises(UnreadableError):
                source.read(reference)


def test_random_bytes_under_the_name_of_a_tar_end_soon(tmp_path: Path) -> None:
    chance = random.Random(1)
    for _ in range(30):
        file = tmp_path / "a.tar"
        file.write_bytes(chance.randbytes(chance.randrange(512, 5000)))
        _, references, said = listed(file)
        assert not references
        assert "damaged, or no tar" in said[0]


def test_shards_have_their_names_in_the_ids(tmp_path: Path) -> None:
    for at in range(12):
        pack(tmp_path / "shards" / f"s-{at:02}.tar", {"same.jpg": b"%d" % at, "x.txt": b""})
    (tmp_path / "shards" / "README.md").write_text("shards")
    everything = contents(tmp_path / "shards")
    assert everything == {f"s-{at:02}.tar/same.jpg": b"%d" % at for at in range(12)}
    assert contents(f"{tmp_path}/shards/s-*.tar") == everything
    assert contents(f"{tmp_path}/shards/s-{{00..11}}.tar") == everything
    some = contents(f"{tmp_path}/{{shards,shards}}/s-0[12].tar")
    assert list(some) == ["s-01.tar/same.jpg", "s-02.tar/same.jpg"]
    with pytest.raises(InputError, match=r"no file .*s-12\.tar, which the braces name"):
        open_source(f"{tmp_path}/shards/s-{{00..12}}.tar")
    with pytest.raises(InputError, match="too many files"):
        open_source(f"{tmp_path}/{{0..99999999}}.tar")
    _, _, said = listed(tmp_path / "shards")
    assert said == [
        f"{tmp_path}/shards: no image, but files in .tar, which are read",
        f"{tmp_path}/shards: ignored 12 files, no images: .txt (12)",
    ]


def test_a_tar_packed_anew_is_refused(tmp_path: Path) -> None:
    file = pack(tmp_path / "a.tar", {"a.jpg": b"1" * 100, "b.jpg": b"2" * 900})
    source, references, _ = listed(file)
    pack(file, {"b.jpg": b"2" * 900, "a.jpg": b"1" * 100})
    with pytest.raises(InputError, match="has changed since it was listed"):
        source.read(references[0])
    file.unlink()
    with pytest.raises(InputError, match="cannot read"):
        source.read(references[0])


def test_a_source_of_many_shards_is_small_to_send(tmp_path: Path) -> None:
    for at in range(50):
        pack(tmp_path / "s" / f"{at}.tar", {"a.jpg": b"1"})
    source, references, _ = listed(tmp_path / "s")
    sent = pickle.dumps(source)
    assert len(sent) < 400
    assert pickle.loads(sent).read(references[7]) == b"1"  # noqa: S301


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz"])
def test_a_compressed_tar_is_refused_with_the_way_out(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"a{ending}"
    with tarfile.open(file, "w:gz") as tar:
        add(tar, "a.jpg", b"1")
    with pytest.raises(InputError, match=r"compressed.*gunzip"):
        open_source(str(file))


def test_memory_does_not_grow_with_the_members(tmp_path: Path, memory: Callable[..., int]) -> None:
    file = pack(tmp_path / "a.tar", {f"{at}.jpg": b"" for at in range(4_000)})
    source = open_source(str(file))
    assert memory(lambda: sum(1 for _ in source.references(notify=print))) < 500_000


@pytest.mark.proves("hostile")
def test_no_change_of_bytes_makes_a_tar_stop_or_raise(tmp_path: Path) -> None:
    chance = random.Random(2)
    members = {"a.jpg": b"1" * 600, "b" * 120 + ".jpg": b"2", "c.json": b"{}"}
    whole = pack(tmp_path / "a.tar", members, tarfile.GNU_FORMAT).read_bytes()[:6144]
    file = tmp_path / "changed.tar"
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 1, 1, 5, 100))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        file.write_bytes(content)
        source = TarSource("changed", str(file))
        for reference in source.references(notify=lambda _: None):
            try:
                assert len(source.read(reference)) == reference.length
            except UnreadableError as fault:
                assert fault.status in REJECTIONS
