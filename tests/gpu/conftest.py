"""Tests that need a card: each is marked `gpu`, and skips with its reason where there is none."""

import pytest
from counted import archive  # noqa: F401

from archiveprobe.embed.device import default_device


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip at one place, for one reason, so that pytest shows all of them in one line."""
    if item.get_closest_marker("gpu") and default_device() != "cuda":
        pytest.skip("no GPU: torch sees none with CUDA")
