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
from itertools import islice
from typing import Any

from archiveprobe.base.errors import InputError
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


class DecodeAndWrite:
    """An actor that makes a receipt of a unit from start to end."""

    def __init__(self, decode: Decode, writer: Writer, *arguments: Any) -> None:
        self._decode, self._write = decode, writer(*arguments)

    def __call__(self, row: Row) -> Row:
        """Decode and write a unit."""
        return self._write(self._decode(row))


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
        units = units.map(writer, fn_constructor_args=arguments, num_cpus=0, num_gpus=1, **pool)
    else:
        arguments = (decode, writer, *arguments)
        units = units.map(DecodeAndWrite, fn_constructor_args=arguments, num_cpus=1, **pool)
    yield from units.iter_rows()


def _quieten(ray: Any) -> None:
    """Let what this library says stand for what Ray would say."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL + 1)
    # What is deprecated there is no matter of whoever runs a command; the version is pinned.
    warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)


@contextmanager
def _explained() -> Iterator[None]:
    """Say in one line what went wrong, wherever it did. Raises InputError."""
    ray = load_ray()
    try:
        yield
    except (InputError, GeneratorExit):
        raise
    except Exception as error:
        causes = list(_causes(error))
        for cause in causes:
            # A fault that a worker has found carries its class along.
            if isinstance(cause, InputError) and not isinstance(cause, ray.exceptions.RayTaskError):
                raise InputError(str(cause)) from None
        died = any(
            isinstance(cause, ray.exceptions.RayActorError | ray.exceptions.WorkerCrashedError)
            for cause in causes
        )
        reason = " ".join(str(causes[-1]).split())[:_SHOWN]
        what = (
            f"a process of the cluster ended {RETRIES + 1} times at one unit"
            if died
            else "a process of the cluster failed"
        )
        raise InputError(
            f"{what} ({type(causes[-1]).__name__}: {reason}): what is done is kept; look at memory "
            "and `ray status`, then run the same command again"
        ) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised for, across processes."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = getattr(cause, "cause", None) or cause.__cause__
