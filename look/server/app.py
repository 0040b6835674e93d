"""The page's server: what it answers from one index; guard.py decides who may ask.

No address holds a path: nothing can be asked for but what the index lists.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from archiveprobe.base.cores import usable_cores
from archiveprobe.base.progress import Notify
from archiveprobe.look.collect.collection import little_endian
from archiveprobe.look.server.index import Index
from archiveprobe.look.server.replies import (
    answer,
    guarded,
    image_answer,
    json_answer,
    misread,
    page_answer,
    read_body,
    refused,
)
from archiveprobe.task.corrections import Correction
from archiveprobe.task.ids import ID_LIMIT

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

MOST_ROWS = 500
MOST_BYTES = 1_000_000
_LONGEST_TEXT = 1000
_LONGEST_NAME = 100
_DIGITS = 10
_BYTES = "application/octet-stream"
_Id = Annotated[str, StringConstraints(max_length=ID_LIMIT)]
_Name = Annotated[str, StringConstraints(max_length=_LONGEST_NAME)]


@dataclass(frozen=True)
class Answers:
    """What the server asks of others.

    page: the document in UTF-8.
    thumbnail, preview: WebP of the image with a digest, at a path; None where there is none.
    neighbours: of an embedding (its number) and a position, the nearest rows and their cosines.
    search: of an embedding and words, one cosine for every row.
    corrections: what their file holds. record: add some, after those of some ids are removed.
    """

    page: bytes
    thumbnail: Callable[[str, str], bytes | None]
    preview: Callable[[str, str], bytes | None]
    neighbours: Callable[[int, int], Iterable[tuple[int, float]]]
    search: Callable[[int, str], np.ndarray]
    corrections: Callable[[], Iterable[Correction]]
    record: Callable[[Sequence[Correction], Sequence[str]], object]


class _Decision(BaseModel):
    """One correction as the page sends it."""

    model_config = ConfigDict(strict=True)
    id: _Id
    label: str
    old_label: str
    decision: Literal["keep", "change", "unsure"]
    who: _Name = ""
    when: Annotated[str, StringConstraints(max_length=40)] = ""


class _Decisions(BaseModel):
    """What the page sends: corrections to record, and ids whose corrections go."""

    model_config = ConfigDict(strict=True)
    record: list[_Decision] = Field(default_factory=list)
    remove: list[_Id] = Field(default_factory=list)
    who: _Name = ""


def make_app(
    index: Index,
    answers: Answers,
    *,
    token: str,
    port: int,
    notify: Notify = lambda _: None,
) -> "ASGIApp":
    """Make the application for `index`, below /<token>/ on this machine's `port`."""
    from starlette.routing import Route

    ask = _Endpoints(index, answers)
    routes = [
        Route("/", ask.page),
        Route("/column/{name}", ask.column),
        Route("/rows", ask.rows),
        Route("/find", ask.find),
        Route("/thumb/{position}", ask.thumbnail),
        Route("/preview/{position}", ask.preview),
        Route("/neighbours/{embedding}/{position}", ask.neighbours),
        Route("/search/{embedding}", ask.search),
        Route("/corrections", ask.corrections),
        Route("/corrections", ask.record, methods=["POST"]),
    ]
    return guarded(routes, token, port, notify)


class _Endpoints:
    """The addresses of the server, each a function of a request."""

    def __init__(self, index: Index, answers: Answers) -> None:
        self._index = index
        self._answers = answers
        # Decoding takes memory and a core for each image.
        self._decoding = threading.BoundedSemaphore(usable_cores())

    def page(self, _: "Request") -> "Response":
        """Answer with the document."""
        return page_answer(self._answers.page)

    def column(self, request: "Request") -> "Response":
        """Answer with a column, and its type in a header."""
        from starlette.responses import StreamingResponse

        name = request.path_params["name"]
        if name not in self._index.meta["columns"]:
            raise refused(404, "no such column")
        headers = {"X-Column-Type": self._index.meta["columns"][name]}
        headers["Content-Length"] = str(self._index.size(name))
        return StreamingResponse(self._index.pieces(name), headers=headers, media_type=_BYTES)

    def rows(self, request: "Request") -> "Response":
        """Answer with the words of some rows."""
        asked = [each for each in request.query_params.get("at", "").split(",") if each]
        if len(asked) > MOST_ROWS:
            raise refused(400, f"at most {MOST_ROWS} rows at once")
        records = self._index.records([self._position(each) for each in asked])
        return answer(f"[{','.join(records)}]".encode(), "application/json")

    def find(self, request: "Request") -> "Response":
        """Answer with a byte per row, 1 where its words hold a text."""
        return answer(self._index.find(_text(request, "text")).tobytes(), _BYTES)

    def thumbnail(self, request: "Request") -> "Response":
        """Answer with a small image."""
        return self._image(request, self._answers.thumbnail)

    def preview(self, request: "Request") -> "Response":
        """Answer with a larger image."""
        return self._image(request, self._answers.preview)

    def neighbours(self, request: "Request") -> "Response":
        """Answer with the rows nearest to a row."""
        embedding = self._embedding(request)
        near = self._answers.neighbours(embedding, self._position(request.path_params["position"]))
        found = [{"position": int(at), "similarity": float(cosine)} for at, cosine in near]
        return json_answer(found)

    def search(self, request: "Request") -> "Response":
        """Answer with the cosine of words and every row, f4."""
        words = _text(request, "words").strip()
        if not words:
            raise refused(400, "no words")
        cosines = self._answers.search(self._embedding(request), words)
        return answer(little_endian(np.asarray(cosines, np.float32)), _BYTES)

    def corrections(self, _: "Request") -> "Response":
        """Answer with what is recorded, each with its row's position: null for a row not here."""
        found = list(self._answers.corrections())
        places = self._index.positions([each.id for each in found])
        records = [asdict(each) | {"position": places.get(each.id)} for each in found]
        return json_answer(records)

    async def record(self, request: "Request") -> "Response":
        """Record decisions."""
        from starlette.concurrency import run_in_threadpool

        body = await read_body(request, MOST_BYTES)
        return json_answer(await run_in_threadpool(self._record, body))

    def _record(self, body: bytes) -> dict[str, int]:
        try:
            sent = _Decisions.model_validate_json(body)
        except ValidationError as error:
            raise misread("no corrections", error) from None
        labels = {*self._index.meta["labels"], ""}
        if any({each.label, each.old_label} - labels for each in sent.record):
            raise refused(400, "a label that the task does not have")
        known = self._index.positions([each.id for each in sent.record])
        if any(each.id not in known for each in sent.record):
            raise refused(400, "an id that no row has")
        corrections = [
            Correction(**each.model_dump() | {"who": each.who or sent.who}) for each in sent.record
        ]
        self._answers.record(corrections, sent.remove)
        return {"recorded": len(corrections), "removed": len(sent.remove)}

    def _image(self, request: "Request", make: Callable[[str, str], bytes | None]) -> "Response":
        row = self._index.row(self._position(request.path_params["position"]))
        with self._decoding:
            return image_answer(make(row["digest"], row["path"]) if row["digest"] else None)

    def _position(self, text: str) -> int:
        return _number(text, len(self._index), "row")

    def _embedding(self, request: "Request") -> int:
        return _number(
            request.path_params["embedding"], len(self._index.meta["embeddings"]), "embedding"
        )


def _number(text: str, count: int, what: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < _DIGITS and int(text) < count:
        return int(text)
    raise refused(404, f"no such {what}")


def _text(request: "Request", name: str) -> str:
    text = str(request.query_params.get(name, ""))
    if len(text) > _LONGEST_TEXT:
        raise refused(400, f"at most {_LONGEST_TEXT} characters")
    return text
