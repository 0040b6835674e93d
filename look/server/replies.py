"""What the servers of pages share: bodies read up to a limit, answers, one application."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.look.server.guard import Guard, fault

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp

_PAGE_POLICY = "connect-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'"


def guarded(routes: Sequence["BaseRoute"], token: str, port: int, notify: Notify) -> "ASGIApp":
    """Make the application of some addresses, below /<token>/ on this machine's `port`."""
    from starlette.exceptions import HTTPException
    from starlette.middleware.exceptions import ExceptionMiddleware
    from starlette.routing import Router

    app = ExceptionMiddleware(Router(routes, redirect_slashes=False))
    app.add_exception_handler(
        HTTPException, lambda _, error: fault(error.status_code, error.detail)
    )
    app.add_exception_handler(InputError, lambda _, error: fault(409, str(error)))
    return Guard(app, token, port, notify)


async def read_body(request: "Request", most: int) -> bytes:
    """Read what was sent; refuse more than so many bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise refused(413, f"at most {most} bytes")
    return bytes(body)


def refused(status: int, reason: str) -> Exception:
    """Return what to raise for a request that is refused."""
    from starlette.exceptions import HTTPException

    return HTTPException(status, reason)


def misread(what: str, error: ValidationError) -> Exception:
    """Return what to raise for a body that is not in its form: the first field is named."""
    where = ".".join(map(str, error.errors()[0]["loc"]))
    return refused(400, f"{what}: {where or 'no JSON object'}")


def page_answer(page: bytes) -> "Response":
    """Answer with the document."""
    from starlette.responses import HTMLResponse

    return HTMLResponse(page, headers={"Content-Security-Policy": _PAGE_POLICY})


def json_answer(value: Any) -> "Response":
    """Answer with JSON."""
    return answer(json.dumps(value, allow_nan=False).encode(), "application/json")


def image_answer(content: bytes | None) -> "Response":
    """Answer with an image in WebP, or with none."""
    # Browsers write a missing image (404) on the console, and one that is empty not.
    return answer(content or b"", "image/webp", 200 if content else 204)


def answer(content: bytes, media_type: str, status: int = 200) -> "Response":
    """Answer with bytes."""
    from starlette.responses import Response

    return Response(content, status, media_type=media_type)
