"""Tars: listed once by reading through them, then read member by member where each one lies."""

import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from archiveprobe.archive.references import Named, Reference, UnreadableError
from archiveprobe.archive.several import common_folder, expand
from archiveprobe.archive.storage import open_place, read_part
from archiveprobe.archive.tar_members import BLOCK, Member, TarState, tar_members
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.reading import IMAGE_BYTES
from archiveprobe.base.wording import first_few, number_of
from archiveprobe.task.file_kind import HEAD, may_be_image
from archiveprobe.task.find_images import Found, judge_name, printable

# Instead of an offset: a member that is listed, but whose bytes cannot be read.
_SPARSE, _LOST_LINK = -1, -2
_MOST_LINKS = 40
_SHOWN = 5


@dataclass(frozen=True)
class TarSource(Named):
    """The images in one tar, or in several; `place` is absolute, and may be a pattern or folder."""

    place: str

    def identity(self) -> dict[str, Any]:
        """Return what makes it this source."""
        return {"kind": "tar", "place": printable(self.place)}

    def references(self, *, notify: Notify) -> Iterator[Reference]:
        """Yield the images of every tar, in the order of the members.

        Raises:
            InputError: a tar is missing, or none at all.
        """
        shards = expand(self.place, (".tar",))
        folder, total = common_folder(shards), Found()
        for shard in shards:
            below = printable(shard[len(folder) :])
            listing = _Listing(shard, f"{below}/" if len(shards) > 1 else "")
            yield from listing.references()
            total.ignored += listing.ignored
            for remark in listing.remarks():
                notify(f"{below}: {remark}")
        for remark in total.remarks():
            notify(f"{self.name}: {remark}")

    def read(self, reference: Reference) -> bytes:
        """Return the bytes of a member.

        Raises:
            UnreadableError: it lies beyond the end of its tar, is too large, sparse, or a link to
                no member.
            InputError: the tar is gone or has changed since it was listed, or the store fails.
        """
        length = reference.length or 0
        if reference.offset == _SPARSE:
            raise UnreadableError("unreadable_file", "a sparse file: pack it without --sparse")
        if reference.offset == _LOST_LINK:
            raise UnreadableError("missing_file", "a link to no member of the tar")
        if length > IMAGE_BYTES:
            raise UnreadableError.of_size(length)
        content = read_part(reference.place, reference.offset - BLOCK, BLOCK + length)
        _check_header(reference, content[:BLOCK])
        if len(content) < BLOCK + length:
            raise UnreadableError("truncated", "the tar ends within it", len(content) - BLOCK)
        return content[BLOCK:]


def _check_header(reference: Reference, header: bytes) -> None:
    """Check that the member is still there; a tar that was packed anew has others."""
    try:
        size = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
    except tarfile.TarError:
        size = -1
    if size != reference.length:
        raise InputError(
            f"{printable(reference.place)} has changed since it was listed: bring the old one "
            "back, or name another output"
        )


@dataclass
class _Listing:
    """The images of one tar, whose ids begin with `before`."""

    shard: str
    before: str
    ignored: Counter[str] = field(default_factory=Counter)
    _links: dict[str, str] = field(default_factory=dict)
    _lost: list[str] = field(default_factory=list)
    _sparse: int = 0
    _state: TarState = field(default_factory=lambda: TarState(0))

    def references(self) -> Iterator[Reference]:
        """Yield an image for each member that may be one, then those that are links to others."""
        with open_place(self.shard) as stream:
            self._state = TarState(stream.seek(0, 2))
            for member in tar_members(stream, self._state):
                if self._is_image(member, stream):
                    self._sparse += member.offset == _SPARSE
                    yield self._reference(member.name, member.offset, member.length)
            if self._links:
                yield from self._linked(stream)
        if self._state.other:
            self.ignored["devices and pipes"] += self._state.other

    def remarks(self) -> Iterator[str]:
        """Yield what the user should know about the tar, a sentence each."""
        yield from self._state.remarks()
        if self._sparse:
            yield f"{number_of(self._sparse, 'sparse file')} cannot be read: pack without --sparse"
        if self._lost:
            yield f"links that lead to no member: {first_few(self._lost, _SHOWN)}"

    def _reference(self, name: str, offset: int, length: int) -> Reference:
        return Reference(f"{self.before}{printable(_plain(name))}", self.shard, offset, length)

    def _is_image(self, member: Member, stream: BinaryIO) -> bool:
        """Judge a member as a file in a folder is judged; remember it where it is a link."""
        name = _plain(member.name)
        if any(part.startswith(".") and part != ".." for part in name.split("/")):
            self.ignored["hidden"] += 1
            return False
        is_image, kind = judge_name(name.rpartition("/")[2])
        if member.target is not None and is_image is not False:
            self._links[name] = posixpath.normpath(member.target)
            return False
        if is_image is None and member.offset >= 0:
            stream.seek(member.offset)
            is_image = may_be_image(stream.read(min(HEAD, member.length)))
        if not is_image:
            self.ignored[kind] += 1
        return bool(is_image)

    def _linked(self, stream: BinaryIO) -> Iterator[Reference]:
        """Yield the images that links lead to, which a second way through the tar finds."""
        ends = {name: self._end_of(name) for name in self._links}
        wanted, found = set(ends.values()), {}
        for member in tar_members(stream, TarState(self._state.size)):
            name = posixpath.normpath(_plain(member.name))
            if name in wanted and member.target is None:
                found[name] = member
        for name, end in ends.items():
            is_image, kind = judge_name(name.rpartition("/")[2])
            target = found.get(end)
            if target is not None:
                yield self._reference(name, target.offset, target.length)
            elif is_image:
                self._lost.append(printable(name))
                yield self._reference(name, _LOST_LINK, 0)
            else:
                self.ignored[kind] += 1

    def _end_of(self, name: str) -> str:
        for _ in range(_MOST_LINKS):
            name = self._links.get(name, name)
        return name


def _plain(name: str) -> str:
    """Leave out the `./` at the beginning of names, which depends on how a tar was packed."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name
