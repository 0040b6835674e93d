"""The page of a review: the queue of look/, handed out on this machine only, until it is ended."""

import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from archiveprobe.base.cores import usable_cores
from archiveprobe.base.errors import InputError
from archiveprobe.look.page import render_page
from archiveprobe.look.server.replies import (
    guarded,
    image_answer,
    json_answer,
    misread,
    page_answer,
    read_body,
)
from archiveprobe.look.server.serve import check_libraries, listen, serve_app
from archiveprobe.review.decisions import BLURRED, UNBLURRED
from archiveprobe.review.images import Images, images_of
from archiveprobe.review.queue import Queue
from archiveprobe.review.refit import Refits
from archiveprobe.review.reviewing import Given, Reviewing
from archiveprobe.review.store import Review

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

MOST_BYTES = 100_000
_MOST_ITEMS = 1000
_Name = Annotated[str, StringConstraints(max_length=200)]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Asked(BaseModel):
    """What the page sends; each address uses some of it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    reviewer: _Name
    session: _Name = ""
    count: int = Field(1, ge=1, le=_MOST_ITEMS)
    image: _Digest = ""
    images: list[_Digest] = Field(default_factory=list, max_length=_MOST_ITEMS)
    answer: _Name = ""
    part: _Name = "queue"
    unblurred: bool = False
    settles: bool = False
    settle: bool = False


class Endpoints:
    """The addresses of the page, each a function of what was asked."""

    def __init__(
        self,
        queue: Queue,
        images: Images,
        refits: Refits | None,
        notify: Callable[[str], None],
    ) -> None:
        self._queue, self._review, self._images = queue, queue.review, images
        self._refits, self._notify = refits, notify
        self._decoding = threading.BoundedSemaphore(usable_cores())

    def next(self, asked: _Asked) -> dict[str, Any]:
        """Return what comes next for a reviewer, and the counts."""
        name = Reviewing(self._queue, asked.reviewer).reviewer
        items = self._queue.next(
            name, asked.count, session=asked.session or name, settle=asked.settle
        )
        # What a system thinks is not shown: it would lead the reviewer.
        shown = [{k: v for k, v in asdict(item).items() if k != "score"} for item in items]
        return {"items": shown, "counts": self._counts(name)}

    def decide(self, asked: _Asked) -> dict[str, Any]:
        """Record an answer."""
        reviewing = Reviewing(self._queue, asked.reviewer)
        shown = UNBLURRED if asked.unblurred else BLURRED
        reviewing.decide([Given(asked.image, asked.answer, shown, settles=asked.settles)])
        if self._refits is not None:
            # Nobody waits for it: the queue is ordered anew when it is done.
            threading.Thread(target=self._refit, daemon=True).start()
        return self._counts(reviewing.reviewer)

    def _refit(self) -> None:
        assert self._refits is not None
        try:
            self._refits.run_if_due()
        except InputError as error:
            self._notify(f"the queue keeps its order: {error}")

    def undo(self, asked: _Asked) -> dict[str, Any]:
        """Take an answer back."""
        reviewing = Reviewing(self._queue, asked.reviewer)
        reviewing.undo(asked.image, asked.part)
        return self._counts(reviewing.reviewer)

    def show(self, asked: _Asked) -> dict[str, Any]:
        """Record what was shown unblurred."""
        reviewing = Reviewing(self._queue, asked.reviewer)
        reviewing.show(asked.images)
        return self._counts(reviewing.reviewer)

    def stop(self, asked: _Asked) -> dict[str, Any]:
        """Declare that reviewing ends."""
        reviewing = Reviewing(self._queue, asked.reviewer)
        reviewing.stop()
        return self._counts(reviewing.reviewer)

    def image(self, digest: str, size: str) -> bytes | None:
        """Return an image of the review, "thumb" or "preview"; None where there is none."""
        if size not in ("thumb", "preview"):
            return None
        if self._review.population.places([digest])[0] < 0:
            return None
        with self._decoding:
            make = self._images.small if size == "thumb" else self._images.large
            return make(digest)

    def _counts(self, name: str) -> dict[str, Any]:
        with self._review.log.locked():
            self._queue.sync()
            state = self._review.state
            stage = "queue" if not state.is_stopped else "stopped"
            left = self._queue.looks_left()
            if state.open_draw is not None:
                stage, left = "draw", len(state.drawn - state.parts["draw"].keys())
            return {
                "stage": stage,
                "decided": len(state.reviewed),
                "found": len(state.found),
                "left": left,
                "twice": self._queue.twice_left(),
                "disputed": len(state.disputed()),
                "unblurred": len(state.unblurred[name]),
            }


def make_review_app(
    queue: Queue,
    images: Images,
    *,
    refits: Refits | None = None,
    token: str,
    port: int,
    reviewer: str = "",
    language: str = "en",
    notify: Callable[[str], None] = lambda _: None,
) -> "ASGIApp":
    """Make the application of a review, below /<token>/ on this machine's `port`."""
    from starlette.routing import Route

    ask = Endpoints(queue, images, refits, notify)
    page = render_page("review", page_meta(queue.review, reviewer), language=language)

    def shown(request: "Request") -> "Response":
        return image_answer(ask.image(request.path_params["digest"], request.path_params["size"]))

    routes = [
        Route("/", lambda _: page_answer(page)),
        *(
            Route(f"/{each.__name__}", _posted(each), methods=["POST"])
            for each in (ask.next, ask.decide, ask.undo, ask.show, ask.stop)
        ),
        Route("/{size}/{digest}", shown),
    ]
    return guarded(routes, token, port, notify)


def _posted(act: Callable[[_Asked], dict[str, Any]]) -> Callable[..., Any]:
    """Make an address of an act: what it is asked is read and checked, its answer sent as JSON."""

    async def answer(request: "Request") -> "Response":
        from starlette.concurrency import run_in_threadpool

        try:
            asked = _Asked.model_validate_json(await read_body(request, MOST_BYTES))
        except ValidationError as error:
            raise misread("not understood", error) from None
        return json_answer(await run_in_threadpool(act, asked))

    return answer


def page_meta(review: Review, reviewer: str) -> dict[str, Any]:
    """Return what the page of a review is told about it."""
    opened = review.state.opened
    return {
        "task": f"{review.task.name} · {review.name}",
        "snapshot": opened["snapshot"],
        "made": review.log.lines[0].time,
        "version": version("archiveprobe"),
        "partial": None,
        "count": opened["images"],
        "labels": opened["classes"],
        "positive": opened["classes"].index(opened["positive"]),
        "systems": [],
        "board": {"best": None},
        "statuses": [""],
        # Positions of images begin anew with every page.
        "key": secrets.token_hex(8),
        "reviewer": reviewer,
    }


def serve_review(
    queue: Queue,
    *,
    refits: Refits | None = None,
    reviewer: str = "",
    port: int = 0,
    language: str = "en",
    show: Callable[[str], object],
    notify: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve the page of a review at an address that `show` is given once, until interrupted.

    Raises:
        InputError: a library, the port or the images cannot be had.
    """
    check_libraries()
    with listen(port) as listener:
        token, port = secrets.token_urlsafe(32), listener.getsockname()[1]
        images = images_of(queue.review)
        app = make_review_app(
            queue,
            images,
            refits=refits,
            token=token,
            port=port,
            reviewer=reviewer,
            language=language,
            notify=notify,
        )
        serve_app(app, listener, token, show=show, notify=notify)
