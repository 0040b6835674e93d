"""An S3-compatible server on loopback (moto's), and a proxy before it that makes faults."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

KEY, SECRET = "testing-key", "testing-secret"
BUCKET = "shelf"
# What a proxy does to a request: nothing, or one of these.
FAULTS = ("503", "slow", "short", "dropped", "refused", "hidden")
_REFUSAL = b"<Error><Code>%b</Code><Message>%b</Message></Error>"


@contextmanager
def s3_server() -> Iterator[str]:
    """Run moto's S3 server; yields its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def use(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Let this process find the server as a user would tell it: by AWS's own variables."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    forget()


def forget() -> None:
    """Forget connections: a process keeps one for each setting, but reads the variables once."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()


def put(address: str, files: dict[str, bytes], bucket: str = BUCKET, acl: str = "private") -> None:
    """Make the bucket anew with these files."""
    import boto3

    store = boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    _post(address, "/moto-api/reset")
    store.create_bucket(Bucket=bucket)
    for name, content in files.items():
        store.put_object(Bucket=bucket, Key=name, Body=content, ACL=acl)


def _post(address: str, path: str) -> None:
    connection = http.client.HTTPConnection(address.partition("//")[2])
    connection.request("POST", path)
    connection.getresponse().read()
    connection.close()


@dataclass
class FaultyProxy:
    """Passes requests on; `fault` says what to do to one, by its method, path and number."""

    target: str
    fault: Callable[[str, str, int], str | None] = lambda *_: None
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def __enter__(self) -> "FaultyProxy":
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy._answer(self)

            do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(f"{request.command} {request.path}")
        fault = self.fault(request.command, request.path, len(self.requests))
        if fault == "503":
            self._send(request, 503, _REFUSAL % (b"SlowDown", b"Please reduce your request rate."))
        elif fault == "refused":
            self._send(request, 403, _REFUSAL % (b"AccessDenied", b"Access Denied"))
        elif fault == "dropped":
            request.connection.close()
        else:
            if fault == "slow":
                self._wait_for_the_end(request)
                return
            status, headers, body = self._ask(request)
            self._pass_on(request, status, headers, body, short=fault == "short")

    def _wait_for_the_end(self, request: BaseHTTPRequestHandler) -> None:
        """Answer nothing until whoever asks gives up."""
        request.connection.settimeout(300)
        with suppress(OSError):
            request.connection.recv(1)
        request.close_connection = True

    def _ask(self, request: BaseHTTPRequestHandler) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection(self.target.partition("//")[2])
        connection.request(request.command, request.path, headers=dict(request.headers))
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, answer.headers, body

    def _pass_on(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: Any,
        body: bytes,
        *,
        short: bool,
    ) -> None:
        request.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                request.send_header(name, value)
        request.end_headers()
        # The length says more than what comes, as when a connection breaks.
        request.wfile.write(body[: len(body) // 2] if short else body)
        request.close_connection = True

    def _send(self, request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        request.send_response(status)
        request.send_header("Content-Type", "application/xml")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)
        request.close_connection = True
