"""A real browser for the page: no message of the console and no request may leave it."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from counted import archive, bench, draw, mixed, wordy_clip  # noqa: F401
from drawn_collection import PIXEL
from looked import copied, demo_collection, task  # noqa: F401

from archiveprobe.look.collect.collection import Collection
from archiveprobe.look.page import write_page
from archiveprobe.look.server.serve import listen, serving

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start Chromium once."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(CHROMIUM)} is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its own sandbox cannot be had inside many containers; what it opens is the test's own.
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


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
        page.set_default_timeout(10_000)
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", lambda request: _check(request.url, file, faults))
        page.goto(f"{file.as_uri()}{part}")
        return _patient(page)

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def _patient(page: Any) -> Any:
    """Let a page wait for words as for a function.

    Words are evaluated again each time, which the policy of the page forbids from the second on.
    """
    wait = page.wait_for_function

    def wait_for(words: str, **options: Any) -> Any:
        is_function = re.match(r"(\(\w*\)|\w+) =>", words)
        return wait(words if is_function else f"() => {words}", **options)

    page.wait_for_function = wait_for
    return page


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


@pytest.fixture
def served(browser: Any) -> Iterator[Callable[..., Any]]:
    """Serve an application and open its page; it may ask its own server only, and say nothing."""
    faults: list[str] = []
    stack = ExitStack()

    def serve(make: Callable[[int], Any], path: str, **options: Any) -> Any:
        listener = stack.enter_context(listen("127.0.0.1", 0))
        port = listener.getsockname()[1]
        stack.enter_context(serving(make(port), listener))
        own = f"http://127.0.0.1:{port}/"
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        stack.callback(context.close)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", lambda request: _check_own(request.url, own, faults))
        page.goto(f"{own}{path}")
        return _patient(page)

    with stack:
        yield serve
    assert faults == []


def _check_own(url: str, own: str, faults: list[str]) -> None:
    if not url.startswith((own, "data:", "blob:")):
        faults.append(f"request: {url}")
