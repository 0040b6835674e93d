"""Pixels handed from decoder processes to this one through shared memory, a slot per photograph.

Through a pipe six crops of 384 pixels cost 4 ms of processor time, half of it here, where the
backbones are driven; through shared memory 0.3 ms (LOG.md). Where shared memory is missing or too
small, as in a container's default of 64 MB, pixels go through the pipe.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from embed.prepare import Order, Prepared, prepare
from embed.preprocess import Geometry

_LINUX = Path("/dev/shm")  # noqa: S108


@dataclass(frozen=True)
class Slot:
    """A stretch of the shared memory `name`, in bytes."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Parcel:
    """A prepared photograph whose crops lie in a slot, one geometry after the other."""

    item: Prepared
    shapes: Mapping[Geometry, tuple[int, ...]]


def slot_bytes(order: Order) -> int:
    """The most bytes that the distinct crops of one photograph can take."""
    return sum(
        3 * geometry.size**2 * len({view.crop for view in views})
        for geometry, views in order.views.items()
    )


class Slots:
    """Shared memory cut into equal slots, of which each photograph in flight holds one."""

    def __init__(self, memory: SharedMemory, count: int, size: int) -> None:
        self._memory = memory
        self._free = [Slot(memory.name, at * size, size) for at in range(count)]

    def take(self) -> Slot | None:
        """A slot, or None when all are in use."""
        return self._free.pop() if self._free else None

    def give_back(self, slot: Slot | None) -> None:
        """Let another photograph have the slot."""
        if slot is not None:
            self._free.append(slot)

    def unpack(self, parcel: Prepared | Parcel, slot: Slot | None) -> Prepared:
        """The photograph with its pixels copied out of its slot."""
        if isinstance(parcel, Prepared):
            return parcel
        assert slot is not None
        views = {}
        offset = slot.offset
        for geometry, rendered in parcel.item.views.items():
            shape = parcel.shapes[geometry]
            stored = np.ndarray(shape, np.uint8, self._memory.buf, offset)
            views[geometry] = replace(rendered, crops=stored.copy())
            offset += stored.nbytes
        return replace(parcel.item, views=views)


@contextmanager
def shared_slots(count: int, size: int) -> Iterator[Slots]:
    """`count` slots of `size` bytes; none at all where there is no room for them."""
    memory = _reserve(count * size)
    if memory is None:
        yield _NoSlots()
        return
    try:
        yield Slots(memory, count, size)
    finally:
        memory.close()
        memory.unlink()


class _NoSlots(Slots):
    def __init__(self) -> None:
        self._free = []


def _reserve(size: int) -> SharedMemory | None:
    if size == 0:
        return None
    try:
        memory = SharedMemory(create=True, size=size)
    except OSError:
        return None
    # Pages that are promised but not there would kill the decoder that touches them.
    file = _LINUX / memory.name.lstrip("/")
    if hasattr(os, "posix_fallocate") and file.exists():
        try:
            with file.open("r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, size)
        except OSError:
            memory.close()
            memory.unlink()
            return None
    return memory


def prepare_into(path: str, digest: str, order: Order, slot: Slot | None) -> Prepared | Parcel:
    """Prepare a photograph in a decoder process; its pixels go into the slot if there is one."""
    item = prepare(path, digest, order)
    needed = sum(rendered.crops.nbytes for rendered in item.views.values())
    if slot is None or not needed or needed > slot.size:
        return item
    offset = slot.offset
    shapes, views = {}, {}
    for geometry, rendered in item.views.items():
        crops = rendered.crops
        np.ndarray(crops.shape, np.uint8, _attached(slot.name).buf, offset)[...] = crops
        offset += crops.nbytes
        shapes[geometry] = crops.shape
        views[geometry] = replace(rendered, crops=crops[:0])
    return Parcel(replace(item, views=views), shapes)


@cache
def _attached(name: str) -> SharedMemory:
    return SharedMemory(name)
