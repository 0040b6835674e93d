"""Serve the page of a task on this machine, until somebody ends it."""

import getpass
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress, silent
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

LOOPBACK = {"127.0.0.1": socket.AF_INET, "localhost": socket.AF_INET, "::1": socket.AF_INET6}
_BACKLOG = 128


def serve(
    task: Task,
    *,
    host: str = "127.0.0.1",
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
        InputError: a library, or the port, cannot be had; another host than this machine; see also
            `current_index`.
    """
    check_libraries()
    with listen(host, port) as listener:
        file = current_index(task, partial=partial, maps=maps, notify=notify, progress=progress)
        index = Index(file)
        token, port = secrets.token_urlsafe(32), listener.getsockname()[1]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/{token}/"
        given = answers(task, index, partial=partial, language=language)
        app = make_app(index, given, token=token, port=port, notify=notify)
        with suppress(KeyboardInterrupt), serving(app, listener) as end:
            (show or notify)(address)
            for line in advice(host, port):
                notify(line)
            end.wait()


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


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on this machine only.

    Raises:
        InputError: the host is another one, or the port is taken.
    """
    if host not in LOOPBACK:
        raise InputError(
            f"host {host!r} is not this machine: use 127.0.0.1, and from another machine "
            "`ssh -L PORT:127.0.0.1:PORT` to this one"
        )
    listener = socket.socket(LOOPBACK[host])
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InputError(
            f"port {port} on {host} cannot be had ({error.strerror}): leave --port out, and a free "
            "one is taken"
        ) from None
    return listener


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


def advice(host: str, port: int) -> Iterator[str]:
    """Say how the page is reached and ended."""
    connection = os.environ.get("SSH_CONNECTION", "").split()
    if len(connection) == 4:
        here = f"[{host}]" if ":" in host else host
        yield (
            f"from your own machine: run `ssh -L {port}:{here}:{port} "
            f"{getpass.getuser()}@{connection[2]}` there, then open the same address"
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
