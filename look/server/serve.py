"""Serve the page of a task on this machine, until somebody ends it."""

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import user_name
from archiveprobe.look.embeddings.similar import Similar
from archiveprobe.look.page import render_page
from archiveprobe.look.server.app import Answers, make_app
from archiveprobe.look.server.build import current_index
from archiveprobe.look.server.index import Index
from archiveprobe.look.thumbnails import preview, thumbnail
from archiveprobe.task.config import Task
from archiveprobe.task.corrections import read_corrections, record_corrections

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# From another machine a page is reached through `ssh -L`, which `advice` tells.
HOST = "127.0.0.1"
_BACKLOG = 128


def serve(
    task: Task,
    *,
    port: int = 0,
    partial: bool = False,
    maps: Sequence[str] = ("PCA",),
    language: str = "en",
    show: Callable[[str], object] | None = None,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> None:
    """Serve the page of a task at an address that `show` is given once; returns when interrupted.

    `port` 0 takes a free one. `notify` is told how to reach and end it, and what was guessed.

    Raises:
        InputError: a library, or the port, cannot be had; see also `current_index`.
    """
    check_libraries()
    with listen(port) as listener:
        file = current_index(task, partial=partial, maps=maps, notify=notify, progress=progress)
        index = Index(file)
        token, port = secrets.token_urlsafe(32), listener.getsockname()[1]
        given = answers(task, index, partial=partial, language=language)
        app = make_app(index, given, token=token, port=port, notify=notify)
        serve_app(app, listener, token, show=show or notify, notify=notify)


def answers(task: Task, index: Index, *, partial: bool = False, language: str = "en") -> Answers:
    """Return what a server of `index` asks of the task and its work/."""
    meta = index.meta
    similar = Similar(task, meta["rows"], meta["embeddings"], partial=partial)
    return Answers(
        page=render_page("server", meta, language=language),
        thumbnail=lambda digest, path: thumbnail(task, digest, path),
        preview=lambda digest, path: preview(task, path, digest),
        neighbours=similar.neighbours,
        search=similar.search,
        corrections=lambda: read_corrections(task).values(),
        record=lambda corrections, remove: record_corrections(task, corrections, remove=remove),
    )


def listen(port: int) -> socket.socket:
    """Return a socket that listens on this machine only, at a free port for 0.

    Raises:
        InputError: the port is taken.
    """
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(
            f"port {port} on {HOST} cannot be had ({error.strerror}): leave --port out, and a free "
            "one is taken"
        ) from None
    return listener


def serve_app(
    app: "ASGIApp",
    listener: socket.socket,
    token: str,
    *,
    show: Callable[[str], object],
    notify: Notify,
) -> None:
    """Answer on `listener` until interrupted; `show` is given the address once."""
    port = listener.getsockname()[1]
    with suppress(KeyboardInterrupt), serving(app, listener) as end:
        show(f"http://{HOST}:{port}/{token}/")
        for line in advice(port):
            notify(line)
        end.wait()


@contextmanager
def serving(app: "ASGIApp", listener: socket.socket) -> Iterator[threading.Event]:
    """Answer on `listener` by a thread of its own within this context; yield its end."""
    import uvicorn

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        # Addresses hold the token, faults the names of the archive: guard.py tells of faults.
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server, end = uvicorn.Server(config), threading.Event()

    def run() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            end.set()

    thread = threading.Thread(target=run, name="server", daemon=True)
    thread.start()
    try:
        # Not the thread itself: Python 3.11 takes it for ended once an interrupt ends its `join`.
        yield end
    finally:
        server.should_exit = True
        thread.join()


def advice(port: int) -> Iterator[str]:
    """Say how the page is reached and ended."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) == 4:
        yield (
            f"from your own machine: run `ssh -L {port}:{HOST}:{port} "
            f"{user_name()}@{connection[2]}` there, then open the same address"
        )
    yield "Ctrl-C ends it"


def check_libraries() -> None:
    """Refuse to begin where the libraries of a server are not installed. Raises InputError."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the page's server needs {error.name}: pip install 'archiveprobe[look]', or write a "
            "file with -o page.html, which needs no server"
        ) from None
