"""One image of an archive: what it is called, where its bytes lie, and why it cannot be read."""

from dataclasses import dataclass


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
