"""Who may ask the page's server: its own page, and nobody else.

Another page in the same browser does not know the token in the address, names its own origin
wherever it could write, and may neither show nor run what comes from here. A name that leads to
this machine from elsewhere (DNS rebinding) is not among the hosts.
"""

import hmac
from pathlib import Path
from typing import TYPE_CHECKING

from archiveprobe.base.progress import Notify

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "HEAD", "POST")
_POLICY = "Content-Security-Policy"
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Images that can show injury and death do not stay in the browser's files.
    "Cache-Control": "private, no-store",
    _POLICY: "default-src 'none'; frame-ancestors 'none'",
}


def own_hosts(port: int) -> frozenset[str]:
    """Return the names under which a browser on this machine asks at `port`."""
    # Browsers leave the usual port of HTTP out.
    endings = (f":{port}", "") if port == 80 else (f":{port}",)
    return frozenset(name + end for name in ("127.0.0.1", "localhost", "[::1]") for end in endings)


class Guard:
    """Hands the requests of the own page on to `app`, without the token; refuses all others.

    Every answer gets the headers that keep it from other pages. `notify` is told of faults of the
    program, in words without names from the archive.
    """

    def __init__(self, app: "ASGIApp", token: str, port: int, notify: Notify) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = own_hosts(port)
        self._notify = notify

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer a request, or refuse it."""
        from starlette.requests import ClientDisconnect

        if scope["type"] != "http":
            return
        started = False

        async def send_on(message: "Message") -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(message)
            await send(message)

        token, slash, rest = scope["path"].removeprefix("/").partition("/")
        refusal = self._refusal(scope, token if slash else "")
        if refusal is not None:
            await fault(*refusal)(scope, receive, send_on)
            return
        try:
            # With "app", Starlette raises what it refuses instead of answering in its own form.
            inner = {**scope, "path": f"/{rest}", "app": self}
            await self._app(inner, receive, send_on)
        except ClientDisconnect:
            pass
        except Exception as error:
            # The words of the exception may hold names: where it came from is enough.
            self._notify(f"fault of the server: {_place(error)}")
            if not started:
                await fault(500, "the server has a fault")(scope, receive, send_on)

    def _refusal(self, scope: "Scope", token: str) -> tuple[int, str] | None:
        """Return status and reason, where a request is not one of the page's own."""
        given: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            given.setdefault(name.lower(), []).append(value)
        hosts = [value.decode("latin-1").lower() for value in given.get(b"host", [])]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            return 403, "open the address that archiveprobe has shown, with the same port"
        own = f"http://{hosts[0]}".encode()
        if any(origin.lower() != own for origin in given.get(b"origin", [])):
            return 403, "another page may not ask"
        if scope["method"] not in _METHODS:
            return 405, "only GET, HEAD and POST"
        if not hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token):
            return 404, "open the whole address that archiveprobe has shown"
        kinds = [value.split(b";")[0].strip().lower() for value in given.get(b"content-type", [])]
        if scope["method"] == "POST" and kinds != [b"application/json"]:
            return 415, "only application/json"
        return None


def _add_headers(message: "Message") -> None:
    headers = list(message.get("headers", []))
    given = {name.lower() for name, _ in headers}
    added = ((name.lower().encode(), value.encode()) for name, value in _HEADERS.items())
    message["headers"] = [*headers, *(pair for pair in added if pair[0] not in given)]


def fault(status: int, reason: str) -> "Response":
    """Return an answer that says in short what is wrong."""
    from starlette.responses import JSONResponse

    return JSONResponse({"error": reason}, status)


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
    return f"{type(error).__name__} in {where}"
