"""The members of a tar: what each is called and where its bytes lie, whatever state the tar is in.

`tarfile` reads each header; going from one to the next is done here, because its own way ends at
the first fault, or at the first end mark of several tars put one behind the other, without a word.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from archiveprobe.base.wording import number_of

BLOCK = tarfile.BLOCKSIZE
# The largest extended header with a long name: a hostile one could ask for all memory.
_LARGEST_HEADER = 1024 * 1024
# Zeros at which the search for further members ends.
_LARGEST_GAP = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar, or a link to one (`target` is then the name that it leads to).

    `offset` is -1 where its bytes do not lie in one piece.
    """

    name: str
    offset: int
    length: int
    target: str | None = None


@dataclass
class TarState:
    """What was found on the way through a tar: bytes of no member, where it is cut, other kinds."""

    size: int
    damaged: int = 0
    cut: bool = False
    other: int = 0
    end_mark: bool = False

    def remarks(self) -> list[str]:
        """Say what is wrong with the tar."""
        said = []
        if self.damaged:
            said.append(
                f"{number_of(self.damaged, 'byte')} are no member (damaged, or no tar): members "
                "may be missing"
            )
        if self.cut:
            said.append("it is cut short: the last member has only a part, later ones are missing")
        elif not self.end_mark:
            said.append("it has no end mark: it may be cut short, and members be missing")
        return said


def tar_members(stream: BinaryIO, state: TarState) -> Iterator[Member]:
    """Yield every file and link of a tar, in its order; what is odd is added to `state`.

    A damaged header is skipped, block by block, up to the next one that is whole.
    """
    tar = _Reader(stream, state.size)
    gap = 0
    while tar.offset + BLOCK <= state.size:
        begin = tar.offset
        try:
            member = tar.next_member()
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            state.end_mark, gap = True, gap + BLOCK
            tar.offset = begin + BLOCK
            if gap > _LARGEST_GAP:
                return
            continue
        except (tarfile.TarError, ValueError, OverflowError, IndexError):
            state.damaged += BLOCK
            tar.offset = begin + BLOCK
            continue
        state.end_mark, gap = False, 0
        if member.isfile() or member.issym() or member.islnk():
            # The size of a sparse member is what it would have unpacked.
            end = tar.offset if member.issparse() else member.offset_data + member.size
            state.cut = state.cut or end > state.size
            yield _as_member(member)
        elif not member.isdir():
            state.other += 1
    state.cut = state.cut or 0 < state.size - tar.offset < BLOCK


def _as_member(member: tarfile.TarInfo) -> Member:
    offset = -1 if member.issparse() else member.offset_data
    if member.issym():
        # A symbolic link begins in its own folder, a hard one at the top.
        folder = member.name.rpartition("/")[0]
        return Member(member.name, offset, 0, f"{folder}/{member.linkname}".lstrip("/"))
    return Member(member.name, offset, member.size, member.linkname if member.islnk() else None)


class _Reader:
    """As much of a TarFile as reading a header asks for, with limits."""

    encoding, errors = "utf-8", "surrogateescape"

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.offset = 0
        self.pax_headers: dict[str, str] = {}
        self.tarinfo = tarfile.TarInfo
        self.fileobj = self
        self._stream, self._size = stream, size

    def next_member(self) -> tarfile.TarInfo:
        """Read the header at `offset`, which is behind the member's bytes then."""
        begin = self.offset
        self._stream.seek(begin)
        member = tarfile.TarInfo.fromtarfile(cast(Any, self))
        if member.size < 0 or self.offset <= begin:
            raise tarfile.InvalidHeaderError("a negative size")  # type: ignore[attr-defined]
        return member

    def read(self, length: int) -> bytes:
        """Read a header."""
        if not 0 <= length <= _LARGEST_HEADER:
            raise tarfile.InvalidHeaderError("a header too large")  # type: ignore[attr-defined]
        return self._stream.read(length)

    def tell(self) -> int:
        """Return where the next header is read."""
        return self._stream.tell()

    def seek(self, offset: int) -> None:
        """Go to a place."""
        self._stream.seek(offset)
