"""Content is what counts here, not durability: nothing waits for a disk."""

import os

import pytest
from law import one_line

from archiveprobe.base.errors import InputError


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def fault_of():
    def fault_of(action, *words):
        """The message of the InputError that `action` raises: one line that holds `words`."""
        with pytest.raises(InputError) as caught:
            action()
        one_line(str(caught.value))
        for word in words:
            assert word in str(caught.value)
        return str(caught.value)

    return fault_of
