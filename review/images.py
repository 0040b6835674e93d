"""The images of a review: their bytes, found by their digests, and small ones for the page."""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from archiveprobe.archive.index import Index
from archiveprobe.archive.references import Reference, UnreadableError
from archiveprobe.archive.source import Source, recorded_source
from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import IMAGE_BYTES, read_ordinary
from archiveprobe.evaluate.task_state import read_state
from archiveprobe.look.thumbnails import (
    PAGE_SIZE,
    PREVIEW_SIZE,
    preview,
    thumbnail,
    webp_of_image,
)
from archiveprobe.predict.answers.layout import INDEX
from archiveprobe.predict.answers.read import open_record
from archiveprobe.review.store import Review
from archiveprobe.task.decoding import digest
from archiveprobe.task.manifest import paths_by_digest
from archiveprobe.task.rows import locate


class Images(Protocol):
    """Finds images by the SHA-256 of their bytes, in hex."""

    def content(self, image: str) -> bytes:
        """Return the bytes of an image. Raises InputError: they are gone, or others."""
        ...

    def small(self, image: str) -> bytes | None:
        """Return a small image as WebP; None where there is none."""
        ...

    def large(self, image: str) -> bytes | None:
        """Return a larger image as WebP; None where there is none."""
        ...


def images_of(review: Review) -> Images:
    """Return the images of a review. Raises InputError: nothing says where they are."""
    return ImagesOfTask(review) if review.source is None else ImagesOfArchive(review)


def compare_bytes(review: Review, images: Sequence[str]) -> int:
    """Read images again, and return how many were compared: none where the images are not here.

    Raises:
        InputError: one is gone, or has other bytes than when the review was opened.
    """
    if review.source is None and not review.task.root.is_dir():
        return 0
    found = images_of(review)
    for image in images:
        try:
            found.content(image)
        except InputError as error:
            raise InputError(
                f"{error}: bring it back as it was, or begin a new review with --name"
            ) from None
    return len(images)


def _proved(image: str, content: bytes, place: str) -> bytes:
    now = digest(content)
    if now != image:
        raise InputError(f"{place} has other bytes than were answered: {now} instead of {image}")
    return content


class ImagesOfTask:
    """The images of the rows to predict."""

    def __init__(self, review: Review) -> None:
        self._task = review.task

    @cached_property
    def _paths(self) -> dict[str, str]:
        state = read_state(self._task)
        return dict(paths_by_digest(state.rows, state.entries))

    def content(self, image: str) -> bytes:
        """See Images."""
        path = self._paths.get(image)
        if path is None:
            raise InputError(f"no row of {self._task.file} has the image {image}")
        try:
            read = read_ordinary(locate(self._task.root, path), IMAGE_BYTES)
        except OSError as error:
            raise InputError(f"cannot read the image {path}: {error.strerror or error}") from None
        return _proved(image, read, path)

    def small(self, image: str) -> bytes | None:
        """See Images."""
        return thumbnail(self._task, image, self._paths.get(image))

    def large(self, image: str) -> bytes | None:
        """See Images."""
        return preview(self._task, self._paths.get(image, ""), image)


class ImagesOfArchive:
    """The images that a folder of answers is about, read where they lie.

    Raises:
        InputError: the folder of answers or the archive is gone.
    """

    def __init__(self, review: Review) -> None:
        self._review = review
        folder = review.source
        assert folder is not None
        self._index = Index.open(folder / INDEX)
        self._record = open_record(folder)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {reference.id: unit.number for unit in self._index for reference in unit.references}

    @cached_property
    def _source(self) -> Source:
        return recorded_source(self._record.source)

    def content(self, image: str) -> bytes:
        """See Images."""
        population = self._review.population
        [place] = population.places([image])
        name = population.name(int(place)) if place >= 0 else ""
        if name not in self._ids:
            raise InputError(f"{self._review.source} has no image {image}")
        reference = self._reference(name)
        try:
            return _proved(image, self._source.read(reference), name)
        except UnreadableError as error:
            raise InputError(f"cannot read the image {name}: {error.status}") from None

    def small(self, image: str) -> bytes | None:
        """See Images."""
        return self._shown(image, PAGE_SIZE)

    def large(self, image: str) -> bytes | None:
        """See Images."""
        return self._shown(image, PREVIEW_SIZE)

    def _shown(self, image: str, size: int) -> bytes | None:
        try:
            return webp_of_image(self.content(image), size)
        except InputError:
            return None

    def _reference(self, name: str) -> Reference:
        unit = self._index.unit(self._ids[name])
        return next(reference for reference in unit.references if reference.id == name)
