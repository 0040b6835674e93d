"""Names of archives; and one image: where its bytes lie, and why it cannot be read."""

from dataclasses import dataclass
from typing import Self

from archiveprobe.base.reading import IMAGE_BYTES
from archiveprobe.task.find_images import printable


@dataclass(frozen=True)
class Named:
    """A source by the `text` that a user calls it."""

    text: str

    @property
    def name(self) -> str:
        """Return what the user calls it, printable."""
        return printable(self.text)


@dataclass(frozen=True, slots=True)
class Reference:
    """One image of a source.

    `id` is the path below a folder, the cell of a table or list, or the name of a tar's member
    (below its shard where there are several). `place` is where a source finds it: a path below the
    folder, a file, a URL; bytes that are not UTF-8 are escaped in it as os.fsdecode does. `offset`
    and `length` are those of a tar's member in bytes; in a table that holds bytes, `offset` is the
    number of the row.
    """

    id: str
    place: str
    offset: int = 0
    length: int | None = None


class UnreadableError(Exception):
    """One image gives no bytes; `status` is one of task/decoding.REJECTIONS."""

    def __init__(self, status: str, detail: str = "", size: int | None = None) -> None:
        super().__init__(status, detail, size)
        self.status = status
        self.detail = detail
        self.size = size

    @classmethod
    def of_size(cls, size: int) -> Self:
        """Return the error of an image of more than IMAGE_BYTES."""
        return cls("too_many_bytes", f"{size} bytes, limit {IMAGE_BYTES}", size)
