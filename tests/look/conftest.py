"""A real browser for the page: no message of the console and no request may leave it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from browsed import patient
from counted import archive, bench, draw, mixed, wordy_clip  # noqa: F401
from drawn_collection import PIXEL
from looked import copied, demo_collection, task  # noqa: F401

from archiveprobe.look.collect.collection import Collection
from archiveprobe.look.page import write_page


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page file in a context of its own; nothing may be said or fetched meanwhile."""
    faults: list[str] = []
    contexts = []

    def open_page(
        file: Path, *, context: Any = None, width: int = 1280, part: str = "", **options: Any
    ) -> Any:
        if context is None:
            context = browser.new_context(viewport={"width": width, "height": 900}, **options)
            contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", lambda request: _check(request.url, file, faults))
        page.goto(f"{file.as_uri()}{part}")
        return patient(page)

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def _check(url: str, file: Path, faults: list[str]) -> None:
    beside = f"{file.parent.as_uri()}/{file.stem}-images/"
    own = unquote(url).startswith(unquote(beside)) or url.partition("#")[0] == file.as_uri()
    if not own and not url.startswith(("data:", "blob:")):
        faults.append(f"request: {url}")


@pytest.fixture
def page_file(tmp_path: Path) -> Callable[..., Path]:
    """Write the page of a collection, with one grey pixel for every image; its file."""

    def write(collection: Collection, name: str = "page.html", **options: Any) -> Path:
        file = tmp_path / name
        digests = sorted({str(row["digest"]) for row in collection.rows} - {""})
        write_page(file, collection, ((digest, PIXEL) for digest in digests), **options)
        return file

    return write
