"""Memory that runs out, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from embed.memory import is_out_of_memory
from task.errors import InputError


@contextmanager
def memory_for(what: str, remedy: str) -> Iterator[None]:
    """Say what there was too little memory for, and what helps.

    Raises:
        InputError: the device or the machine has no more memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"out of memory {what}: {remedy}") from None
