"""Opens what a user calls an archive: guesses what it is by looking at it, and says what it is."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from archiveprobe.archive.bucket import BucketSource
from archiveprobe.archive.folder import FolderSource
from archiveprobe.archive.guess import table_source
from archiveprobe.archive.references import Reference
from archiveprobe.archive.rows import open_rows
from archiveprobe.archive.several import expand, is_pattern
from archiveprobe.archive.storage import open_place
from archiveprobe.archive.store import check_url, is_file, list_objects, protocol_of
from archiveprobe.archive.table import TableSource
from archiveprobe.archive.tars import TarSource
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.task.config import nearest
from archiveprobe.task.file_kind import may_be_image
from archiveprobe.task.find_images import (
    Found,
    has_image_extension,
    judge_name,
    printable,
    walk_images,
)

_HEAD = 512
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")


class Source(Protocol):
    """A set of images: lists them once, and reads any of them. Small, and can be pickled."""

    @property
    def name(self) -> str:
        """What the user calls it, printable."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return what makes it this source, for JSON: its kind, absolute place and columns."""
        ...

    def references(self, *, notify: Notify) -> Iterator[Reference]:
        """Yield every image once, in an order that is always the same.

        Raises:
            InputError: the source cannot be listed.
        """
        ...

    def read(self, reference: Reference) -> bytes:
        """Return the bytes of an image, at most IMAGE_BYTES.

        Raises:
            UnreadableError: this image cannot be read.
            InputError: nothing of the source can be read.
        """
        ...


def open_source(
    text: str,
    *,
    path_column: str | None = None,
    bytes_column: str | None = None,
    id_column: str | None = None,
    notify: Notify = lambda _: None,
) -> Source:
    """Open the archive that `text` names: a path, a URL, or a pattern of several.

    Columns are those of a table; they are guessed, and the guess is said, where they are not given.

    Raises:
        InputError: there is nothing, or nothing that holds images.
    """
    place = _absolute(text)
    if is_pattern(place) and not os.path.lexists(place):
        first = expand(place, ())[0]
    elif not _is_folder(place):
        first = place
    elif (inner := _first_of_folder(place, notify)) is not None:
        first = inner
    else:
        _refuse_columns(text, path_column, bytes_column, id_column)
        return BucketSource(text, place) if protocol_of(place) else FolderSource(text, place)
    with open_place(first) as stream:
        head = stream.read(_HEAD)
    if _is_tar(first, head):
        _refuse_columns(text, path_column, bytes_column, id_column)
        return TarSource(text, place)
    _refuse_others(first, head)
    return table_source(
        text,
        place,
        open_rows(first),
        path_column=path_column,
        bytes_column=bytes_column,
        id_column=id_column,
        notify=notify,
    )


def recorded_source(identity: Mapping[str, Any]) -> Source:
    """Make the source of a recorded identity: as it was opened, since a second guess may differ.

    Raises:
        InputError: it is in no known store.
    """
    about = dict(identity)
    make, place = _KINDS[about.pop("kind")], about.pop("place")
    if protocol_of(place):
        check_url(place)
    return make(place, place, **about)


_KINDS: Mapping[str, Callable[..., Source]] = {
    "bucket": BucketSource,
    "folder": FolderSource,
    "tar": TarSource,
    "table": TableSource,
}


def _absolute(text: str) -> str:
    """Return the URL, or the resolved path, that a text means."""
    text = text.removeprefix("file://") if text.startswith("file:///") else text
    if protocol_of(text):
        check_url(text)
        return text.rstrip("/")
    if not text.strip() or "\0" in text:
        raise InputError("no name of an archive: name a folder, a list, a table, a tar or a URL")
    try:
        # In a pattern a link is left as it is.
        return str(Path(text).absolute() if is_pattern(text) else Path(text).resolve())
    except (OSError, RuntimeError):
        raise InputError(f"{printable(text)} is a link that leads back to itself") from None


def _is_folder(place: str) -> bool:
    """Return whether a place is a folder, or files below a URL.

    Raises:
        InputError: there is nothing, or the store fails or refuses.
    """
    if protocol_of(place):
        if is_file(place):
            return False
        if next(list_objects(place), None) is None:
            raise InputError(f"nothing at {printable(place)}: correct its name")
        return True
    path = Path(place)
    if not path.exists():
        there = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputError(
            f"no file or folder {printable(place)}{nearest(path.name, there)}: name the folder, "
            "list, table or tar of the images"
        )
    return path.is_dir()


def _first_of_folder(place: str, notify: Notify) -> str | None:
    """Return the first tar, or else Parquet file, of a folder that has no image; None for others.

    A folder of images may have such files as well, which are none of its images then.
    """
    kinds = _kinds_of_no_image(place)
    for ending in (".tar", ".parquet"):
        if ending in kinds:
            notify(f"{printable(place)}: no image, but files in {ending}, which are read")
            return expand(place, (ending,))[0]
    return None


def _kinds_of_no_image(place: str) -> Collection[str]:
    """Return which kinds of files a folder has if none of them may be an image; else nothing."""
    if not protocol_of(place):
        found = Found()
        is_empty = next(walk_images(Path(place), found), None) is None
        return found.ignored if is_empty else ()
    kinds = set()
    for name, _ in list_objects(place):
        is_image, kind = judge_name(name.rpartition("/")[2])
        if is_image is not False and "/." not in f"/{name}":
            return ()
        kinds.add(kind)
    return kinds


def _is_tar(place: str, head: bytes) -> bool:
    return head[257:262] == b"ustar" or (place.lower().endswith(".tar") and len(head) == _HEAD)


def _refuse_columns(text: str, *columns: str | None) -> None:
    if any(columns):
        raise InputError(f"{printable(text)} is no table, so it has no columns: leave the name out")


def _refuse_others(place: str, head: bytes) -> None:
    """Refuse what holds no rows: an image itself, or something compressed."""
    name = printable(place)
    if has_image_extension(place.rpartition("/")[2]) or may_be_image(head):
        raise InputError(
            f"{name} is one image: name the folder of the images, or a list with a path in every "
            "line"
        )
    if head.startswith(_COMPRESSED):
        raise InputError(
            f"{name} is compressed, so no part of it can be read alone: unpack it once, as with "
            "gunzip; a tar need not be unpacked further"
        )
