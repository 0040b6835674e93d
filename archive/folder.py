"""A tree of files: every image below a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.archive.references import Named, Reference
from archiveprobe.archive.storage import read_below
from archiveprobe.base.progress import Notify
from archiveprobe.task.find_images import Found, printable, walk_images


@dataclass(frozen=True)
class FolderSource(Named):
    """The images below a folder on this machine; `root` is its resolved path.

    A link to a folder is not followed, one to a file is read where it stays below the root.
    """

    root: str

    def identity(self) -> dict[str, Any]:
        """Return what makes it this source."""
        return {"kind": "folder", "place": printable(self.root)}

    def references(self, *, notify: Notify) -> Iterator[Reference]:
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
            InputError: the root is gone.
        """
        return read_below(Path(self.root), reference.place)
