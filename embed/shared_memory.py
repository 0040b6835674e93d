"""Pixels handed from decoder processes to this one through shared memory, a slot per image.

Through a pipe six crops of 384 pixels cost 4 ms of processor time, half of it here, where the
backbones are driven; through shared memory 0.3 ms (LOG.md). The memory has no name, as that of
`multiprocessing.shared_memory` has, so nothing outlives its processes, however they were killed,
and it needs no /dev/shm, which a container may lack or limit to 64 MB. Where there is no such
memory, pixels go through the pipe.
"""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from archiveprobe.base.progress import Notify
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.preprocess import Geometry

# Larger files go through the pipe.
_JPEG_BYTES = 1 << 20


@dataclass(frozen=True)
class Slot:
    """A stretch of the shared memory, in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class Parcel:
    """A prepared image whose pixels lie in a slot: its crops by geometry, then its JPEG."""

    image: PreparedImage
    shapes: Mapping[Geometry, tuple[int, ...]]
    jpeg_bytes: int


def slot_bytes(preparation: Preparation) -> int:
    """Return how many bytes hold the distinct crops of any image, or most files for a GPU."""
    crops = sum(
        3 * geometry.size**2 * len({view.crop for view in views})
        for geometry, views in preparation.views.items()
    )
    for_gpu = any(geometry.decode == "gpu" for geometry in preparation.views)
    return max(crops, _JPEG_BYTES) if for_gpu else crops


class Slots:
    """Shared memory in equal slots, of which each image on its way holds one.

    `descriptor` has the same number in all processes; without one there are no slots.
    """

    def __init__(self, descriptor: int | None = None, size: int = 0, count: int = 0) -> None:
        self.descriptor = descriptor
        self._memory = None if descriptor is None else mmap.mmap(descriptor, size * count)
        self._free = [Slot(at * size, size) for at in range(count)]

    def take(self) -> Slot | None:
        """Return a slot, or None when all are in use."""
        return self._free.pop() if self._free else None

    def give_back(self, slot: Slot | None) -> None:
        """Let another image have the slot."""
        if slot is not None:
            self._free.append(slot)

    def unpack(self, parcel: PreparedImage | Parcel, slot: Slot | None) -> PreparedImage:
        """Return the image with its pixels copied out of its slot."""
        if isinstance(parcel, PreparedImage):
            return parcel
        assert slot is not None
        assert self._memory is not None
        views = {}
        offset = slot.offset
        for geometry, rendered in parcel.image.views.items():
            stored = np.ndarray(parcel.shapes[geometry], np.uint8, self._memory, offset)
            views[geometry] = replace(rendered, crops=stored.copy())
            offset += stored.nbytes
        jpeg = self._memory[offset : offset + parcel.jpeg_bytes]
        return replace(parcel.image, views=views, jpeg=jpeg)

    def close(self) -> None:
        """Give the memory back."""
        # Pixels in the frames of a traceback may still point into it.
        with suppress(BufferError):
            if self._memory is not None:
                self._memory.close()


@contextmanager
def shared_slots(count: int, size: int, notify: Notify = lambda _: None) -> Iterator[Slots]:
    """Make `count` slots of `size` bytes; none, with a message, where there is no room."""
    if count * size == 0:
        yield Slots()
        return
    descriptor = -1
    try:
        descriptor = _unnamed_file()
        if hasattr(os, "posix_fallocate"):
            # A page that is promised but not there would kill the decoder that touches it.
            os.posix_fallocate(descriptor, 0, count * size)
        else:
            os.ftruncate(descriptor, count * size)
        slots = Slots(descriptor, size, count)
    except (OSError, MemoryError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        notify(
            f"no shared memory of {count * size / 1e6:.0f} MB for pixels ({reason}): they come "
            "through a pipe, which takes longer; fewer workers need less"
        )
        slots = Slots()
    try:
        yield slots
    finally:
        if descriptor >= 0:
            os.close(descriptor)
        slots.close()


def _unnamed_file() -> int:
    """Return the descriptor of unnamed memory, or of an unnamed file where there is none."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("archiveprobe-pixels")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@dataclass
class PrepareInto:
    """Prepare images in a decoder process; pixels go into a slot where there is one."""

    prepare: Callable[..., PreparedImage]
    descriptor: int | None

    def __call__(self, slot: Slot | None, *image_named: Any) -> PreparedImage | Parcel:
        """Prepare the image that the arguments name; see embed.prepare."""
        image = self.prepare(*image_named)
        needed = sum(rendered.crops.nbytes for rendered in image.views.values()) + len(image.jpeg)
        if slot is None or not needed or needed > slot.size:
            return image
        offset = slot.offset
        shapes, views = {}, {}
        for geometry, rendered in image.views.items():
            crops = rendered.crops
            np.ndarray(crops.shape, np.uint8, self._memory, offset)[...] = crops
            offset += crops.nbytes
            shapes[geometry] = crops.shape
            views[geometry] = replace(rendered, crops=crops[:0])
        self._memory[offset : offset + len(image.jpeg)] = image.jpeg
        return Parcel(replace(image, views=views, jpeg=b""), shapes, len(image.jpeg))

    @cached_property
    def _memory(self) -> mmap.mmap:
        assert self.descriptor is not None
        return mmap.mmap(self.descriptor, 0)
