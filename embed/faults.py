"""Faults of networks: told in one line; where memory runs out, fewer rows at a time are tried."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import give_back_freed_memory, is_out_of_memory, memory_for
from archiveprobe.base.progress import Notify

MEMORY_REMEDY = "free memory, or choose a smaller backbone"
# Characters of a library's own words.
_SHOWN = 200


class Parts:
    """Rows that are computed `size` at a time; `size` is halved where memory runs out."""

    def __init__(self, size: int, notify: Notify) -> None:
        self.size = size
        self._notify = notify

    def compute(self, some: Callable[[slice], np.ndarray], count: int) -> np.ndarray:
        """Return what `some` gives for parts of `count` rows, in order.

        `size` is one that fits the device's memory afterwards; what does not fit at 1 is raised.
        """
        start, parts = 0, []
        while start < count:
            left = count - start
            # As few parts as hold what is left, and even ones: 12 are 6 + 6, not 8 + 4.
            part = slice(start, start + ceil(left / ceil(left / self.size)))
            try:
                parts.append(some(part))
            except Exception as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
            else:
                start = part.stop
                continue
            # Here, since the error holds what the pass had made until its block ends.
            self.size = max(1, self.size // 2)
            self._notify(f"out of memory: batch halved to {self.size}")
            give_back_freed_memory()
        return np.concatenate(parts)


@contextmanager
def explain_faults(
    where: str, what: str = "embed", kinds: type[Exception] = Exception
) -> Iterator[None]:
    """Say in one line why a network fails: `where` names it and its device, `what` its work.

    Raises:
        InputError: whatever of these kinds was raised within the block.
    """
    try:
        yield
    except InputError:
        raise
    except kinds as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_SHOWN]
        raise InputError(
            f"{where} cannot {what} ({reason}): check its arguments and preprocess in task.toml, "
            "or try the precision fp32 or the device cpu"
        ) from error


@contextmanager
def network_at_work(where: str, what: str, *, remedy: str = MEMORY_REMEDY) -> Iterator[None]:
    """Say in one line why a network that torch runs fails, or what it lacks memory for.

    torch and the libraries of devices raise RuntimeError; faults of other kinds are let through.

    Raises:
        InputError: it fails, or memory runs out.
    """
    with (
        explain_faults(where, what, RuntimeError),
        memory_for(f"when {where} was to {what}", remedy),
    ):
        yield
