"""Units through Ray Data: tasks decode, actors that hold the networks encode and write.

Rows are small: the number of a unit on the way in, a receipt on the way out. Between a decoding
task and an actor with a GPU lie uint8 views, and nothing else. Without a GPU an actor decodes for
itself: tasks beside it would only take its core, and copy all pixels once more (LOG.md).

Not Ray's checkpoints, which hold every id in memory and hung on resuming, and not
`max_errored_blocks`, which drops whole blocks.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import one_line
from archiveprobe.embed.ray_cluster import Cluster, load_ray

Row = dict[str, Any]
Decode = Callable[[Row], Row]
Writer = Callable[..., Callable[[Row], Row]]

# One is at work while the next waits in the actor's hands.
IN_FLIGHT = 2
# A unit whose process ends so often is given up; a process may end for many reasons in a long run.
RETRIES = 8
_RESTARTS = 1000
# More at a time would make the driver's memory grow; between two lots the actors start again.
_UNITS_AT_ONCE = 50_000
_SHOWN = 300


@dataclass
class WriteUnits:
    """An actor that makes receipts of units, of decoded ones where `decode` is None.

    Its writer is made for the first unit: Ray would tell of a fault before that in words only.
    """

    decode: Decode | None
    writer: Writer
    arguments: tuple[Any, ...]

    @cached_property
    def _write(self) -> Callable[[Row], Row]:
        return self.writer(*self.arguments)

    def __call__(self, row: Row) -> Row:
        """Write a unit and return its receipt."""
        return self._write(row if self.decode is None else self.decode(row))


def map_units(
    cluster: Cluster,
    rows: Sequence[Row],
    decode: Decode,
    writer: Writer,
    arguments: tuple[Any, ...],
    *,
    on_gpu: bool,
    workers: int | None = None,
) -> Iterator[Row]:
    """Yield a receipt of every unit as soon as it is on disk, in any order.

    `decode` turns a row into one with pixels. `writer` is a class, made with `arguments` once in
    every actor; called with such a row it returns a receipt. All go to other processes. `workers`
    limits the actors.

    Raises:
        InputError: what one of them has raised, or a unit whose process ends again and again.
    """
    most = cluster.gpus if on_gpu else cluster.cpus
    rest = iter(rows)
    while some := list(islice(rest, _UNITS_AT_ONCE)):
        actors = max(1, min(most, len(some), workers or most))
        with _explained():
            yield from _receipts(some, decode, writer, arguments, actors, on_gpu)


def _receipts(
    rows: list[Row],
    decode: Decode,
    writer: Writer,
    arguments: tuple[Any, ...],
    actors: int,
    on_gpu: bool,
) -> Iterator[Row]:
    ray = load_ray()
    _quieten(ray)
    # A block of its own for every unit: it is what is handed out, and what is done again.
    units = ray.data.from_items(rows, override_num_blocks=len(rows))
    pool = {
        "compute": ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=actors,
            initial_size=actors,
            max_tasks_in_flight_per_actor=IN_FLIGHT,
        ),
        "ray_remote_args_fn": lambda: {"max_restarts": _RESTARTS, "max_task_retries": RETRIES},
    }
    if on_gpu:
        tasks = {"num_cpus": 1, "ray_remote_args_fn": lambda: {"max_retries": RETRIES}}
        units = units.map(decode, **tasks)
        actor = {"fn_constructor_args": (None, writer, arguments), "num_cpus": 0, "num_gpus": 1}
    else:
        actor = {"fn_constructor_args": (decode, writer, arguments), "num_cpus": 1}
    units = units.map(WriteUnits, **actor, **pool)
    yield from units.iter_rows()


def _quieten(ray: Any) -> None:
    """Let what this library says stand for what Ray would say."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL + 1)
    # What is deprecated there is no matter of whoever runs a command; the version is pinned.
    warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)


@contextmanager
def _explained() -> Iterator[None]:
    """Say in one line what went wrong, in whatever process it did. Raises InputError."""
    try:
        yield
    except Exception as error:
        raise InputError(_in_a_line(error)) from error


def _in_a_line(error: Exception) -> str:
    """Return what a worker says itself where it has found the fault, else what is known of it."""
    ray = load_ray()
    # Ray's own errors of a task carry what the task has raised, and are of its class as well.
    while isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, Exception):
        error = error.cause
    if isinstance(error, InputError):
        return str(error)
    reason = one_line(f"{type(error).__name__}: {error}", _SHOWN)
    ended = isinstance(error, ray.exceptions.RayActorError | ray.exceptions.WorkerCrashedError)
    what = f"ended {RETRIES + 1} times at one unit" if ended else "failed"
    return (
        f"a process of the Ray cluster {what} ({reason}): what is done is kept; look at memory and "
        "at `ray status`, then run the same command again"
    )
