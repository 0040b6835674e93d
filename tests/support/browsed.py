"""A real browser: no message of the console and no request may leave it."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

# In milliseconds; far more than any test needs, since a machine may be busy.
PATIENCE = 60_000
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


def patient(page: Any) -> Any:
    """Let a page wait long, and for words as for a function.

    Words are evaluated again each time, which the policy of the page forbids from the second on.
    """
    page.set_default_timeout(PATIENCE)
    wait = page.wait_for_function

    def wait_for(words: str, **options: Any) -> Any:
        is_function = re.match(r"(\(\w*\)|\w+) =>", words)
        return wait(words if is_function else f"() => {words}", **options)

    page.wait_for_function = wait_for
    return page


@pytest.fixture
def served(browser: Any) -> Iterator[Callable[..., Any]]:
    """Serve an application and open its page; it may ask its own server only, and say nothing."""
    from archiveprobe.look.server.serve import listen, serving

    faults: list[str] = []
    stack = ExitStack()

    def serve(make: Callable[[int], Any], path: str, **options: Any) -> Any:
        listener = stack.enter_context(listen(0))
        port = listener.getsockname()[1]
        stack.enter_context(serving(make(port), listener))
        own = f"http://127.0.0.1:{port}/"
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        stack.callback(context.close)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", lambda request: _check_own(request.url, own, faults))
        page.goto(f"{own}{path}")
        return patient(page)

    with stack:
        yield serve
    assert faults == []


def _check_own(url: str, own: str, faults: list[str]) -> None:
    if not url.startswith((own, "data:", "blob:")):
        faults.append(f"request: {url}")
