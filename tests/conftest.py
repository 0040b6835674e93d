"""What tests of every folder use."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

# One browser for all folders: a session has one loop of events.
from browsed import browser, served  # noqa: F401
from hypothesis import settings

from archiveprobe.base.cores import let_waiting_threads_sleep
from archiveprobe.base.errors import InputError

# Before a test file imports torch: tests share their cores.
let_waiting_threads_sleep()
# Beside other work an example may take any time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# A shell lets what it starts with `&` ignore Ctrl-C, and nohup SIGHUP; tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def fault_of() -> Callable[..., str]:
    def fault_of(action: Callable[[], Any], *words: str) -> str:
        """The message of the InputError that `action` raises: one line that holds `words`."""
        with pytest.raises(InputError) as caught:
            action()
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        for word in words:
            assert word in message
        return message

    return fault_of
