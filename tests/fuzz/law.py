"""The law that every reader keeps: the right content, or one line that says what is wrong."""

import contextlib
from collections.abc import Iterator

from hypothesis import HealthCheck, settings

from archiveprobe.base.errors import InputError

# The same examples every time; a folder is used again by all examples of a test.
STEADY = settings(
    derandomize=True,
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Inside, a fault of the file may be told, in one line; any other exception passes through."""
    try:
        yield
    except InputError as fault:
        one_line(str(fault))


def one_line(message: str) -> None:
    """Check that a message is one line, and that there is one."""
    assert message.strip()
    assert len(message.splitlines()) == 1, repr(message)
