"""Has units answered by a Ray cluster: many processes or hosts, one commit log.

The folder of answers, the task and its work folder must lie where all hosts see them under one
path; so must the images, unless they come from an object store.
"""

import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache

from archiveprobe.archive.index import Index
from archiveprobe.archive.source import Source
from archiveprobe.archive.units import Receipt
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.embed.decoding import ReferenceDecoders
from archiveprobe.embed.prepare import Preparation
from archiveprobe.embed.ray_cluster import device_of, ray_cluster
from archiveprobe.embed.ray_units import Row, map_units
from archiveprobe.predict.drivers.local import Commit, count_images
from archiveprobe.predict.units import UnitWork


def run(
    work: UnitWork,
    index: Index,
    todo: Iterable[int],
    commit: Commit,
    *,
    workers: int | None = None,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> None:
    """Answer the units with the numbers in `todo`; `commit` gets a receipt as each is on disk.

    `workers` is how many cores a cluster that is started here has; of another one, how many
    processes compute at most.

    Raises:
        InputError: there is no cluster, or what the local driver raises.
    """
    numbers = list(todo)
    if not numbers:
        return
    with ray_cluster(workers, notify) as cluster:
        # On the device of this host, which need not have a GPU where others do.
        asked = replace(work, keep_embeddings=False)
        with asked.open(passes=1, notify=notify) as opened:
            decode = DecodeUnit(secrets.token_hex(8), index, work.source, opened.preparation)
        work = replace(work, device=device_of(work.device, cluster))
        receipts = map_units(
            cluster,
            [{"unit": number} for number in numbers],
            decode,
            AnswerUnit,
            (work, index),
            on_gpu=work.device != "cpu",
            workers=workers,
        )
        with progress("answering", count_images(index, numbers)) as advance:
            for row in receipts:
                receipt = Receipt(**row)
                commit(receipt)
                for _ in range(receipt.rows):
                    advance()


@dataclass(frozen=True)
class DecodeUnit:
    """Decodes a unit in whatever process it is sent to; equal in all tasks of a `run`."""

    run: str
    index: Index = field(compare=False)
    source: Source = field(compare=False)
    preparation: Preparation = field(compare=False)

    def __call__(self, row: Row) -> Row:
        """Add its images to the row of a unit.

        Raises:
            InputError: the source gives nothing, the index is gone, or no process can start.
        """
        index, decoders = _opened(self)
        unit = index.unit(row["unit"])
        return {"unit": unit.number, "images": list(decoders.images(unit.references))}


@lru_cache(maxsize=1)
def _opened(decode: DecodeUnit) -> tuple[Index, ReferenceDecoders]:
    """Keep the index and a decoder process open from unit to unit.

    The decoder is a process of its own also here: an image at which it dies or hangs costs itself
    only, and not the unit. It ends with the process of the task.
    """
    decoders = ReferenceDecoders(decode.source, decode.preparation, workers=1)
    return decode.index, decoders.__enter__()


class AnswerUnit:
    """An actor that answers decoded units; its networks are loaded once."""

    def __init__(self, work: UnitWork, index: Index) -> None:
        # One pass at a time, of one thread, as everywhere: an actor has one core.
        self._opened = work.open(passes=1, beside_others=True).__enter__()
        self._index = index

    def __call__(self, row: Row) -> Row:
        """Write the part of a unit and return its receipt."""
        return asdict(self._opened.answer(self._index.unit(row["unit"]), row["images"]))
