"""A tree of files in an object store: every image below a prefix."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from archiveprobe.archive.references import Named, Reference
from archiveprobe.archive.store import list_objects, read_object
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import number_of
from archiveprobe.task.find_images import Found, judge_name, printable


@dataclass(frozen=True)
class BucketSource(Named):
    """The images below a URL."""

    url: str

    def identity(self) -> dict[str, Any]:
        """Return what makes it this source."""
        return {"kind": "bucket", "place": printable(self.url)}

    def references(self, *, notify: Notify) -> Iterator[Reference]:
        """Yield every image, sorted by its name below the URL.

        Raises:
            InputError: the store fails or refuses.
        """
        found, unknown = Found(), 0
        for name, size in list_objects(self.url):
            if any(part.startswith(".") for part in name.split("/")):
                continue
            is_image, kind = judge_name(name.rpartition("/")[2])
            if is_image is False:
                found.ignored[kind] += 1
                continue
            unknown += is_image is None
            yield Reference(printable(name), name, 0, size)
        for remark in found.remarks():
            notify(f"{self.name}: {remark}")
        if unknown:
            files = number_of(unknown, "file")
            notify(f"{self.name}: taken for images in spite of unknown endings: {files}")

    def read(self, reference: Reference) -> bytes:
        """Return the bytes of an image.

        Raises:
            UnreadableError: it is gone or too large, or the store fails for it alone.
            InputError: the store fails or refuses.
        """
        return read_object(f"{self.url}/{reference.place}", reference.length)
