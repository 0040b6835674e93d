"""What the tests of archives share."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def memory() -> Callable[[Callable[[], Any]], int]:
    """Return the most bytes that an action takes of Python's memory."""

    def measure(action: Callable[[], Any]) -> int:
        tracemalloc.start()
        try:
            action()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure
