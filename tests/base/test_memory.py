"""The garbage collector waits while many objects are made, and goes on after a fault too."""

import gc

import pytest

from archiveprobe.base.memory import collector_paused


def test_the_collector_goes_on_as_it_did() -> None:
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="fault"), collector_paused():
        raise ValueError("fault")
    assert gc.isenabled()
