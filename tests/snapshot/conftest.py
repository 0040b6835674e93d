"""A shelf of twelve labelled images and three to predict, and a bench that embeds them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from shelf import Shelf, WeighedBench, weighed_bench


@pytest.fixture
def bench() -> Iterator[WeighedBench]:
    with weighed_bench() as bench:
        yield bench


@pytest.fixture
def shelf(tmp_path: Path, bench: WeighedBench) -> Shelf:
    shelf = Shelf(tmp_path / "shelf", bench)
    shelf.fill()
    return shelf
