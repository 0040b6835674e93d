"""Build the index in a process of its own, whose memory goes back to the system when it ends."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import discard, explained, make_folder
from archiveprobe.base.lock import wait_for_lock
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.reading import PRODUCT_BYTES, digest_of
from archiveprobe.embed.processes import end_with_parent, interrupt_later
from archiveprobe.look.server.index import FORM, find_index, write_index
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.corrections import corrections_file
from archiveprobe.task.rows import read_rows
from archiveprobe.task.snapshot import digest_of_words, snapshot_file

_TRIES = 3
# What the records of systems and of their trainings are called below work/.
_RECORDS = ("runs/*/run.json", "finetune/*/*/*.json")


def current_index(
    task: Task,
    *,
    partial: bool = False,
    maps: Sequence[str] = ("PCA",),
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Path:
    """Return the index of a task as it is now, built where there is none, or a damaged one.

    Raises:
        InputError: see `collect`; or the disk refuses.
    """
    folder = task.work / "look"
    with explained(f"write {folder}"):
        make_folder(folder)
    # Two commands at a time: the second one takes what the first has built.
    with wait_for_lock(folder):
        for _ in range(_TRIES):
            key = _state(task, partial, maps)
            found = find_index(folder, key)
            if found is not None:
                return found
            file = _build(Order(task.file, folder, key, partial, tuple(maps)), notify, progress)
            # What changed meanwhile may be in it or not, and that state may come back.
            if _state(task, partial, maps) == key:
                return file
            discard(file)
    raise InputError(f"{task.file} changed each time while {folder} was written: run `look` again")


@dataclass(frozen=True)
class Order:
    """What to build: the index of state `key` of the task of a file, into a folder."""

    file: Path
    folder: Path
    key: str
    partial: bool
    maps: tuple[str, ...]


def _state(task: Task, partial: bool, maps: Sequence[str]) -> str:
    """Return one digest of all that a collection is made of."""
    files = [task.file, *task.tables.values(), corrections_file(task), snapshot_file(task)]
    files += sorted(file for pattern in _RECORDS for file in task.work.glob(pattern))
    words = [version("archiveprobe"), f"{FORM}", f"{partial}", *maps]
    for file in files:
        words.append(str(file))
        with suppress(OSError):
            words.append(digest_of(file, PRODUCT_BYTES))
    if not task.tables:
        words += [row.path for row in read_rows(task)]
    return digest_of_words(*words)


def _build(order: Order, notify: Notify, progress: Progress) -> Path:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(there, order))
    with interrupt_later():
        process.start()
    there.close()
    try:
        return _follow(here, notify, progress)
    except EOFError:
        raise InputError(
            f"the process that built {order.folder} was ended: free memory, then run the same "
            "command again"
        ) from None
    finally:
        process.kill()
        process.join()


def _follow(here: Connection, notify: Notify, progress: Progress) -> Path:
    """Pass on what the process says, until it has its result. Raises EOFError: it died."""
    with ExitStack() as bars:
        advance: dict[int, Callable[[], None]] = {}
        while True:
            kind, *words = here.recv()
            match kind:
                case "say":
                    notify(*words)
                case "begin":
                    number, what, total = words
                    advance[number] = bars.enter_context(progress(what, total))
                case "advance":
                    advance[words[0]]()
                case "refuse":
                    raise InputError(*words)
                case _:
                    return Path(*words)


def _work(there: Connection, order: Order) -> None:
    end_with_parent()
    # The server does without what it loads.
    from archiveprobe.look.collect.run import collect

    begun = 0

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
        nonlocal begun
        number, begun = begun, begun + 1
        there.send(("begin", number, what, total))
        yield lambda: there.send(("advance", number))

    def notify(text: str) -> None:
        there.send(("say", text))

    try:
        collection = collect(
            load_task(order.file),
            partial=order.partial,
            # The server finds them when it is asked.
            neighbours=0,
            maps=order.maps,
            notify=notify,
            progress=progress,
        )
        there.send(("done", str(write_index(order.folder, order.key, collection))))
    except InputError as error:
        there.send(("refuse", str(error)))
