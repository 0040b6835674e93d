"""Faults of networks, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import memory_for

MEMORY_REMEDY = "free memory, or choose a smaller backbone"
# Characters of a library's own words.
_SHOWN = 200


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
