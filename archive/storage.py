"""Files on this machine or in a store, by one name: a path or a URL."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from archiveprobe.archive.references import UnreadableError
from archiveprobe.archive.store import open_object, protocol_of, read_object, read_range
from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import IMAGE_BYTES, TooManyBytesError, read_ordinary
from archiveprobe.task.find_images import printable
from archiveprobe.task.scan import find_below


def read_place(place: str) -> bytes:
    """Read the image at a path or a URL.

    Raises:
        UnreadableError: it is gone, too large, or no ordinary file.
        InputError: the store fails or refuses.
    """
    if protocol_of(place):
        return read_object(place)
    with _one_image():
        return read_ordinary(place, IMAGE_BYTES)


def read_below(root: Path, path: str) -> bytes:
    """Read the image at a path below a resolved root on this machine.

    Raises:
        UnreadableError: it is gone, too large, no ordinary file, or outside the root.
        InputError: the root is gone.
    """
    try:
        with _one_image():
            located = find_below(root, path, {})
            if located is None:
                raise UnreadableError("outside_root", "it must lie below the root")
            return read_ordinary(located[0], IMAGE_BYTES)
    except UnreadableError as error:
        check_folder(root, error)
        raise


def check_folder(folder: Path, error: UnreadableError) -> None:
    """Raise an InputError where a file is missing because its whole folder is gone."""
    if error.status == "missing_file" and not folder.is_dir():
        raise InputError(
            f"the folder {printable(str(folder))} is gone: bring it back, and run the same "
            "command again (what is finished is kept)"
        ) from None


@contextmanager
def _one_image() -> Iterator[None]:
    """Turn what can be wrong with one file into its status."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableError("missing_file") from None
    except IsADirectoryError:
        raise UnreadableError("not_a_file", "it is a folder") from None
    except TooManyBytesError as error:
        raise UnreadableError("too_many_bytes", str(error.strerror), error.size) from None
    except RuntimeError:
        raise UnreadableError("unreadable_file", "links in a loop") from None
    except (OSError, ValueError) as error:
        # ValueError: names that no file can have. Paths in an OSError differ between machines.
        status = "not_a_file" if getattr(error, "errno", 0) == errno.EINVAL else "unreadable_file"
        raise UnreadableError(status, getattr(error, "strerror", None) or str(error)) from None


def open_place(place: str) -> BinaryIO:
    """Open an ordinary file for reading at any place.

    Raises:
        InputError: it is missing, no ordinary file, or the store fails or refuses.
    """
    if protocol_of(place):
        return cast(BinaryIO, open_object(place))
    try:
        # Without O_NONBLOCK a pipe waits here for a writer.
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        stream = os.fdopen(descriptor, "rb")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            stream.close()
            raise OSError(errno.EINVAL, "it is no ordinary file")
    except (OSError, ValueError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {printable(place)} ({detail}): correct its name") from None
    return stream


def read_part(place: str, offset: int, length: int) -> bytes:
    """Read a part of a file that many images lie in; it is shorter where a local file ends.

    Raises:
        UnreadableError: this part cannot be read.
        InputError: the file is gone, or the store fails or refuses.
    """
    if protocol_of(place):
        return read_range(place, offset, length)
    with open_place(place) as stream, _one_image():
        stream.seek(offset)
        return stream.read(length)
