"""Work that processes of a Ray cluster do in tests, which must be able to import it."""

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

from archiveprobe.archive.references import Reference
from archiveprobe.base.errors import InputError
from archiveprobe.base.files import append_durable, explained, write_whole
from archiveprobe.embed.ray_units import Row


class Decode:
    """Stands in for decoding: gives pixels that depend on the unit."""

    def __call__(self, row: Row) -> Row:
        return {"unit": row["unit"], "images": [bytes([row["unit"] % 256]) * 1000]}


class WriteTiny:
    """Writes a tiny part for every unit, and a line into `calls` for every time it was asked."""

    def __init__(self, folder: Path, fault: str = "", seconds: float = 0.0) -> None:
        if fault == "weights":
            raise InputError("the weights are not here: fetch them")
        self.folder, self.fault, self.seconds = folder, fault, seconds

    def __call__(self, row: Row) -> Row:
        unit = row["unit"]
        append_durable(self.folder / "calls", f"{unit} {os.getpid()}\n".encode())
        time.sleep(self.seconds)
        if self.fault == "crash" and unit == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "network" and unit == 3:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        if self.fault == "disk" and unit == 3:
            with explained(f"write answers into {self.folder}"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_whole(self.folder / f"{unit:04}.part", row["images"][0])
        return {"unit": unit, "pid": os.getpid()}


class DeadlySource:
    """A source one of whose images ends every process that reads it."""

    def __init__(self, source: Any, deadly: str) -> None:
        self.source, self.deadly = source, deadly
        self.name = source.name

    def identity(self) -> dict[str, Any]:
        return dict(self.source.identity())

    def references(self, **how: Any) -> Any:
        return self.source.references(**how)

    def read(self, reference: Reference) -> bytes:
        if reference.id == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return bytes(self.source.read(reference))
