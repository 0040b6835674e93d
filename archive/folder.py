"""A tree of files: every image below a folder."""

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.archive.references import Reference, UnreadableError
from archiveprobe.base.reading import IMAGE_BYTES, TooManyBytesError, read_ordinary
from archiveprobe.task.find_images import Found, printable, walk_images
from archiveprobe.task.scan import find_below


@dataclass(frozen=True)
class FolderSource:
    """The images below a folder on this machine; `root` is its resolved path.

    A link to a folder is not followed, one to a file is read where it stays below the root.
    """

    text: str
    root: str

    @property
    def name(self) -> str:
        """Return what the user calls it, printable."""
        return printable(self.text)

    def identity(self) -> dict[str, Any]:
        """Return what makes it this source."""
        return {"kind": "folder", "place": printable(self.root)}

    def references(self, *, notify: Callable[[str], None]) -> Iterator[Reference]:
        """Yield every image, sorted by its path below the root.

        Raises:
            InputError: a folder cannot be listed.
        """
        found = Found()
        for path in walk_images(Path(self.root), found):
            yield Reference(printable(path), path)
        # That a folder holds no image matters to a task, whose images.root is its own to mend.
        found.barren = []
        for remark in found.remarks():
            notify(f"{self.name}: {remark}")

    def read(self, reference: Reference) -> bytes:
        """Return the bytes of an image.

        Raises:
            UnreadableError: it is gone, too large, no ordinary file, or outside the root.
        """
        return read_below(Path(self.root), reference.place)


def read_below(root: Path, path: str) -> bytes:
    """Read the image at a path below a resolved root.

    Raises:
        UnreadableError: it is gone, too large, no ordinary file, or outside the root.
    """
    try:
        located = find_below(root, path, {})
        if located is None:
            raise UnreadableError("outside_root", "it must lie below the root")
        file, facts = located
        if not stat.S_ISREG(facts.st_mode):
            raise UnreadableError("not_a_file", "it is no ordinary file")
        return read_ordinary(file, IMAGE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableError("missing_file") from None
    except TooManyBytesError as error:
        raise UnreadableError("too_many_bytes", str(error.strerror), error.size) from None
    except RuntimeError:
        raise UnreadableError("unreadable_file", "links in a loop") from None
    except (OSError, ValueError) as error:
        # ValueError: names that no file can have. Paths in an OSError differ between machines.
        detail = getattr(error, "strerror", None) or str(error)
        raise UnreadableError("unreadable_file", detail) from None
