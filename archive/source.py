"""Opens what a user calls an archive: guesses what it is by looking at it, and says what it is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from archiveprobe.archive.folder import FolderSource
from archiveprobe.archive.references import Reference
from archiveprobe.base.errors import InputError

Notify = Callable[[str], None]


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
    path_column: str | None = None,  # noqa: ARG001
    bytes_column: str | None = None,  # noqa: ARG001
    id_column: str | None = None,  # noqa: ARG001
    notify: Notify = lambda _: None,  # noqa: ARG001
) -> Source:
    """Open the archive that `text` names.

    Raises:
        InputError: there is nothing, or nothing that holds images.
    """
    path = Path(text)
    if path.is_dir():
        return FolderSource(text, str(path.resolve()))
    raise InputError(f"no folder {text}: name the folder of the images")
