"""The page of a review: what its server answers and refuses, and a review in a real browser."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from reviewed import OPEN, begin, digest_of_image, truth
from starlette.testclient import TestClient

from archiveprobe.cli import main
from archiveprobe.look.server.serve import serving
from archiveprobe.review.images import images_of
from archiveprobe.review.queue import Queue
from archiveprobe.review.serve import MOST_BYTES, make_review_app
from archiveprobe.review.store import find_review
from archiveprobe.task.config import Task

TOKEN, PORT = "t" * 43, 8765


class Page:
    """Asks the server of a review as its page does."""

    def __init__(self, task: Task, **wish: Any) -> None:
        queue = Queue(begin(task, **wish))
        app = make_review_app(queue, images_of(queue.review), token=TOKEN, port=PORT)
        self.client = TestClient(app, base_url=f"http://127.0.0.1:{PORT}")

    def ask(self, address: str, reviewer: str = "Ann", **content: Any) -> Any:
        answer = self.post(address, json.dumps({"reviewer": reviewer, **content}))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, address: str, body: str, kind: str = "application/json") -> Any:
        return self.client.post(f"/{TOKEN}/{address}", content=body, headers={"content-type": kind})


@pytest.fixture
def page(task: Task) -> Page:
    return Page(task)


def test_images_are_decided_and_counted(page: Page, task: Task) -> None:
    found = page.ask("next", count=3)
    assert [item["position"] for item in found["items"]] == [1, 2, 3]
    assert "score" not in found["items"][0]
    image = found["items"][0]["image"]
    assert page.ask("show", images=[image, image])["unblurred"] == 1
    counts = page.ask("decide", image=image, answer="dark", unblurred=True)
    assert counts["decided"] == found["items"][0]["images"]
    assert counts["left"] == OPEN - 1
    assert page.ask("undo", image=image)["decided"] == 0
    page.ask("decide", image=image, answer="unsure")
    assert page.ask("stop")["stage"] == "stopped"
    state = find_review(task).state
    assert state.reviewed[image].shown == "blurred"
    assert state.unblurred == {"Ann": {image}}


def test_two_browsers_of_one_name_see_different_images(page: Page) -> None:
    first = page.ask("next", count=5, session="a")["items"]
    second = page.ask("next", count=5, session="b")["items"]
    assert not {item["image"] for item in first} & {item["image"] for item in second}


def test_only_images_of_the_review_are_handed_out(page: Page) -> None:
    digest = digest_of_image("40.png")
    for size in ("thumb", "preview"):
        answer = page.client.get(f"/{TOKEN}/{size}/{digest}")
        assert answer.status_code == 200
        assert answer.content[8:12] == b"WEBP"
    labelled = digest_of_image("00.png")
    for wrong in (labelled, "0" * 64, "x"):
        assert page.client.get(f"/{TOKEN}/thumb/{wrong}").status_code == 204
    assert page.client.get(f"/{TOKEN}/thumb/..%2f..%2ftask.toml").status_code == 404
    assert page.client.get(f"/{'u' * 43}/thumb/{digest}").status_code == 404


@pytest.mark.parametrize(
    ("address", "body", "status"),
    [
        ("decide", "{}", 400),
        ("decide", "[", 400),
        ("decide", '{"reviewer": "A", "image": "x", "answer": "dark"}', 400),
        ("decide", json.dumps({"reviewer": "A", "image": "0" * 64, "answer": "dark"}), 409),
        ("decide", json.dumps({"reviewer": " ", "image": "0" * 64, "answer": "dark"}), 409),
        ("next", '{"reviewer": "A", "count": 1000000}', 400),
        ("next", '{"reviewer": "A", "other": 1}', 400),
        ("show", " " * (MOST_BYTES + 1), 413),
    ],
)
def test_what_is_not_understood_is_refused(
    page: Page, address: str, body: str, status: int
) -> None:
    answer = page.post(address, body)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert page.post(address, body, "text/plain").status_code == 415


@pytest.mark.browser
@pytest.mark.proves("page")
def test_a_review_in_a_browser(task: Task, served: Any) -> None:
    queue = Queue(begin(task))

    def make(port: int) -> Any:
        return make_review_app(queue, images_of(queue.review), token=TOKEN, port=port)

    page = served(make, f"{TOKEN}/")
    page.fill("input[name=who]", "Ann")
    page.click("button[type=submit]")
    page.wait_for_selector("#queue-image img")
    shown = "document.querySelector('#queue-image img')"
    assert "blur" in page.evaluate(f"getComputedStyle({shown}).filter")
    first = page.inner_text("#queue-image bdi")
    page.keyboard.press("v")
    page.wait_for_function("queue.counts.unblurred === 1")
    page.keyboard.press("1" if truth(first) == "bright" else "2")
    page.wait_for_function("queue.counts.decided > 0")
    page.wait_for_function(f"document.querySelector('#queue-image bdi').textContent !== '{first}'")
    assert "blur" in page.evaluate(f"getComputedStyle({shown}).filter")
    state = find_review(task).state
    decided = next(iter(state.reviewed.values()))
    assert (decided.id, decided.answer, decided.shown) == (first, truth(first), "unblurred")
    page.keyboard.press("z")
    page.wait_for_function("queue.counts.decided === 0")
    page.click("#language")
    assert page.evaluate("document.documentElement.dir") == "rtl"
    assert page.inner_text("#queue-image bdi") == first
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("button[data-action=stop]")
    page.wait_for_function("queue.counts.stage === 'stopped'")
    assert find_review(task).state.is_stopped


def test_the_command_serves_until_it_is_interrupted(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses, answers = list[str](), list[int]()

    class Interrupted:
        """Asks for the page, and is interrupted then."""

        def wait(self) -> None:
            answers.append(httpx.get(addresses[-1], timeout=300).status_code)
            raise KeyboardInterrupt

    @contextmanager
    def interrupted(app: Any, listener: Any) -> Iterator[Interrupted]:
        with serving(app, listener):
            yield Interrupted()

    monkeypatch.setattr("archiveprobe.commands.review.print_line", addresses.append)
    monkeypatch.setattr("archiveprobe.look.server.serve.serving", interrupted)
    words = ["review", str(task.folder), "--system", "ridge-hog", "--refit", "5"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert answers == [200]
    assert "review ridge-hog to find dark: open, 30 looks left" in done.stderr
