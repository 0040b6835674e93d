"""The page's server answers its own page, and nobody else; what it is asked and sent is checked."""

import json
import logging

import numpy as np
import pytest
from drawn_collection import drawn_collection
from starlette.testclient import TestClient

from archiveprobe.base.errors import InputError
from archiveprobe.look.collect.collection import little_endian
from archiveprobe.look.server.app import MOST_BYTES, MOST_ROWS, Answers, make_app
from archiveprobe.look.server.guard import own_hosts
from archiveprobe.look.server.index import Index, write_index
from archiveprobe.task.corrections import Correction

TOKEN, PORT = "t0ken-" + "x" * 40, 8123
HOST = f"127.0.0.1:{PORT}"
WEBP = b"RIFF....WEBP"


class Stand:
    """What a task answers, and what was recorded."""

    def __init__(self) -> None:
        self.recorded: list[tuple[list[Correction], list[str]]] = []
        self.stored: list[Correction] = []
        self.fault: Exception | None = None
        self.said: list[str] = []

    def record(self, corrections, remove) -> None:
        if self.fault:
            raise self.fault
        self.recorded.append((list(corrections), list(remove)))

    def thumbnail(self, digest: str, _: str) -> bytes | None:
        return None if digest.endswith("3") else WEBP + digest.encode()

    def neighbours(self, _: int, position: int):
        if self.fault:
            raise self.fault
        return [(np.int64(position + 1), np.float32(0.5))]


@pytest.fixture(scope="module")
def collection():
    return drawn_collection(700)


@pytest.fixture(scope="module")
def index(collection, tmp_path_factory):
    return Index(write_index(tmp_path_factory.mktemp("look"), "a" * 64, collection))


@pytest.fixture
def stand():
    return Stand()


@pytest.fixture
def client(index, stand):
    answers = Answers(
        page=b"<!DOCTYPE html>page",
        thumbnail=stand.thumbnail,
        preview=lambda digest, path: path.encode(),
        neighbours=stand.neighbours,
        search=lambda embedding, words: np.full(700, len(words), np.float64),
        corrections=lambda: stand.stored,
        record=stand.record,
    )
    app = make_app(index, answers, token=TOKEN, port=PORT, notify=stand.said.append)
    return TestClient(app, base_url=f"http://{HOST}/{TOKEN}/", follow_redirects=False)


def correction(id_: str, **changes: str) -> dict[str, str]:
    plain = {"id": id_, "label": "destroyed", "old_label": "intact", "decision": "change"}
    return {**plain, "who": "Ada", "when": "2026-01-01T00:00:00Z", **changes}


def check_guarded(answer, status: int) -> None:
    """Every answer, a refusal too, keeps other pages out and says its fault as short JSON."""
    assert answer.status_code == status
    headers = answer.headers
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == "private, no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert not [name for name in headers if name.startswith("access-control")]
    assert "set-cookie" not in headers and "server" not in headers
    if status >= 400:
        assert set(answer.json()) == {"error"} and len(answer.text) < 200


# What is answered


def test_page(client) -> None:
    answer = client.get("")
    check_guarded(answer, 200)
    assert answer.text == "<!DOCTYPE html>page"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy == ("connect-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'")


def test_columns(client, collection) -> None:
    for name, column in collection.columns.items():
        answer = client.get(f"column/{name}")
        check_guarded(answer, 200)
        assert answer.content == little_endian(column)
        assert answer.headers["x-column-type"] == collection.types[name]
        assert int(answer.headers["content-length"]) == column.nbytes
    for name in ("none", "p:9", "..", "%2e%2e%2f", "p:0/x"):
        check_guarded(client.get(f"column/{name}"), 404)


def test_rows(client, collection) -> None:
    answer = client.get("rows?at=7,699,47,7")
    check_guarded(answer, 200)
    assert answer.json() == [collection.rows[at] for at in (7, 699, 47, 7)]
    assert client.get("rows?at=").json() == []
    assert client.get("rows").json() == []
    most = ",".join(map(str, range(MOST_ROWS)))
    assert len(client.get(f"rows?at={most}").json()) == MOST_ROWS
    check_guarded(client.get(f"rows?at={most},0"), 400)


@pytest.mark.parametrize(
    "at", ["700", "-1", "1.5", "x", "1e2", "9" * 400, "٣", "1_0", "0x1", "%00"]
)
def test_positions_that_no_row_has(client, at) -> None:
    check_guarded(client.get(f"rows?at={at}"), 404)
    check_guarded(client.get(f"thumb/{at}"), 404)
    check_guarded(client.get(f"preview/{at}"), 404)
    check_guarded(client.get(f"neighbours/0/{at}"), 404)
    check_guarded(client.get(f"neighbours/{at}/0"), 404)
    check_guarded(client.get(f"search/{at}?words=a"), 404)


def test_find(client, index) -> None:
    for text in ("PHOTO", "<script>", "شارع", "a&b=c", ""):
        answer = client.get("find", params={"text": text})
        check_guarded(answer, 200)
        assert answer.content == index.find(text).tobytes()
    check_guarded(client.get("find", params={"text": "x" * 1001}), 400)


def test_images_come_by_position(client, collection) -> None:
    digests = [row["digest"] for row in collection.rows]
    there = next(at for at, digest in enumerate(digests) if digest and not digest.endswith("3"))
    answer = client.get(f"thumb/{there}")
    check_guarded(answer, 200)
    assert answer.content == WEBP + digests[there].encode()
    assert answer.headers["content-type"] == "image/webp"
    assert client.get(f"preview/{there}").content == collection.rows[there]["path"].encode()


def test_images_that_are_not_there_are_empty(client, collection) -> None:
    digests = [row["digest"] for row in collection.rows]
    gone = next(at for at, digest in enumerate(digests) if digest.endswith("3"))
    for address in (f"thumb/{gone}", f"thumb/{digests.index('')}", f"preview/{digests.index('')}"):
        answer = client.get(address)
        check_guarded(answer, 204)
        assert answer.content == b""


def test_neighbours_and_words(client) -> None:
    assert client.get("neighbours/0/41").json() == [{"position": 42, "similarity": 0.5}]
    answer = client.get("search/0", params={"words": "ruins"})
    check_guarded(answer, 200)
    assert np.frombuffer(answer.content, "<f4").tolist() == [5.0] * 700
    check_guarded(client.get("search/0?words=%20"), 400)
    check_guarded(client.get("search/0", params={"words": "x" * 1001}), 400)


def test_head_has_no_body(client) -> None:
    for address in ("", "column/label", "rows?at=1", "find?text=a", "thumb/0", "corrections"):
        answer = client.head(address)
        check_guarded(answer, 200)
        assert answer.content == b""


# Corrections


def test_corrections_are_recorded(client, stand, collection) -> None:
    ids = [collection.rows[at]["id"] for at in (0, 7, 87)]
    sent = {
        "record": [correction(ids[0]), {**correction(ids[1], who=""), "position": 7, "digest": ""}],
        "remove": [ids[2]],
        "who": "Noor",
    }
    answer = client.post("corrections", json=sent)
    check_guarded(answer, 200)
    assert answer.json() == {"recorded": 2, "removed": 1}
    [(recorded, removed)] = stand.recorded
    assert recorded == [
        Correction(ids[0], "destroyed", "intact", "change", "Ada", "2026-01-01T00:00:00Z"),
        Correction(ids[1], "destroyed", "intact", "change", "Noor", "2026-01-01T00:00:00Z"),
    ]
    assert removed == [ids[2]]


def test_recorded_corrections_come_with_their_positions(client, stand, collection) -> None:
    stand.stored = [
        Correction(collection.rows[47]["id"], "destroyed"),
        Correction("gone", "intact"),
    ]
    answer = client.get("corrections")
    check_guarded(answer, 200)
    assert [(each["id"], each["position"]) for each in answer.json()] == [
        (collection.rows[47]["id"], 47),
        ("gone", None),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"record"',
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"record": {}}',
        b'{"record": [1]}',
        b'{"record": [{"id": "a"}]}',
        b'{"remove": [1]}',
        b'{"who": 1}',
        json.dumps({"who": "x" * 101}).encode(),
        json.dumps({"remove": ["x" * 1025]}).encode(),
        json.dumps({"record": [correction("x" * 1025)]}).encode(),
        json.dumps({"record": [correction("no such id")]}).encode(),
        json.dumps({"record": [correction("\udcff")]}).encode(),
    ],
)
def test_what_is_no_correction_is_refused(client, stand, body) -> None:
    answer = client.post("corrections", content=body, headers={"content-type": "application/json"})
    check_guarded(answer, 400)
    assert stand.recorded == []


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "ruined"},
        {"old_label": "ruined"},
        {"decision": "maybe"},
        {"when": "x" * 41},
        {"label": None},
        {"id": 0},
    ],
)
def test_a_correction_has_known_words(client, stand, collection, changes) -> None:
    known = collection.rows[0]["id"]
    sent = {"record": [correction(known), {**correction(known), **changes}]}
    check_guarded(client.post("corrections", json=sent), 400)
    assert stand.recorded == []


def test_a_body_has_a_largest_size(client, stand) -> None:
    for more, status in ((0, 200), (1, 413)):
        body = b'{"remove": ["a"]}'.ljust(MOST_BYTES + more)
        kind = {"content-type": "application/json"}
        check_guarded(client.post("corrections", content=body, headers=kind), status)
    assert len(stand.recorded) == 1


def test_what_the_task_refuses_is_said(client, stand) -> None:
    stand.fault = InputError("cannot write corrections.csv: the disk is full")
    answer = client.post("corrections", json={"remove": ["a"]})
    check_guarded(answer, 409)
    assert answer.json() == {"error": "cannot write corrections.csv: the disk is full"}


# Who may ask


def test_hosts_of_this_machine(client) -> None:
    for host in (HOST, f"localhost:{PORT}", f"[::1]:{PORT}", f"LOCALHOST:{PORT}"):
        check_guarded(client.get("rows?at=1", headers={"host": host}), 200)
    assert "localhost" in own_hosts(80) and "localhost" not in own_hosts(8080)


@pytest.mark.parametrize(
    "host",
    ["", "127.0.0.1", "127.0.0.1:1", f"evil.example:{PORT}", f"127.0.0.1.evil.example:{PORT}",
     f"0.0.0.0:{PORT}", f"127.0.0.1:{PORT}.evil.example", f"evil@127.0.0.1:{PORT}"],
)  # fmt: skip
def test_a_name_that_leads_here_from_elsewhere_is_refused(client, stand, host) -> None:
    for answer in (
        client.get("", headers={"host": host}),
        client.get("rows?at=1", headers={"host": host}),
        client.post("corrections", json={"remove": ["a"]}, headers={"host": host}),
    ):
        check_guarded(answer, 403)
        assert TOKEN not in answer.text
    assert stand.recorded == []


def test_two_hosts_are_none(client) -> None:
    check_guarded(client.get("rows?at=1", headers=[("host", HOST), ("host", "evil")]), 403)


@pytest.mark.parametrize(
    "origin",
    ["null", "", "http://evil.example", "http://127.0.0.1:9", "https://" + HOST, "http://127.0.0.1",
     f"http://localhost:{PORT}", f"http://{HOST}.evil.example", "file://"],
)  # fmt: skip
def test_another_origin_is_refused(client, stand, origin) -> None:
    headers = {"origin": origin}
    for answer in (
        client.get("rows?at=1", headers=headers),
        client.get("thumb/0", headers=headers),
        client.post("corrections", json={"remove": ["a"]}, headers=headers),
        client.options("corrections", headers=headers),
    ):
        check_guarded(answer, 403)
    assert stand.recorded == []


def test_the_own_origin_may_ask(client, stand) -> None:
    headers = {"origin": f"http://{HOST}"}
    check_guarded(client.get("rows?at=1", headers=headers), 200)
    check_guarded(client.post("corrections", json={"remove": ["a"]}, headers=headers), 200)
    assert len(stand.recorded) == 1


@pytest.mark.parametrize(
    "path",
    ["/", "", f"/{TOKEN}", f"/{TOKEN[:-1]}/", f"/{TOKEN}x/", f"/{TOKEN.upper()}/", "/é/", "/%ff/",
     "//", f"//{TOKEN}/", "/rows?at=1", f"/x/{TOKEN}/", "/favicon.ico", "/robots.txt"],
)  # fmt: skip
def test_without_the_token_there_is_nothing(client, path) -> None:
    for method in ("GET", "HEAD", "POST"):
        answer = client.request(method, f"http://{HOST}{path}")
        if method != "HEAD":
            check_guarded(answer, 404)
        assert answer.status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "X"])
def test_other_methods_are_refused(client, stand, method) -> None:
    for address in ("corrections", "rows?at=1", ""):
        check_guarded(client.request(method, address), 405)


def test_addresses_to_read_take_no_post(client) -> None:
    for address in ("", "rows?at=1", "column/label", "find?text=a", "thumb/0"):
        check_guarded(client.post(address, json={}), 405)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", None]
)
def test_a_form_cannot_write(client, stand, kind) -> None:
    headers = {} if kind is None else {"content-type": kind}
    check_guarded(client.post("corrections", content=b'{"remove": ["a"]}', headers=headers), 415)
    assert stand.recorded == []


@pytest.mark.parametrize(
    "address",
    ["..", "../", "../..", "thumb/../../task.toml", "thumb/%2e%2e%2ftask.toml", "thumb//etc/passwd",
     "column/..%2f..%2ftask.toml", "preview/0/../../x", "static/base.js", "index.json",
     "thumb/0.webp"],
)  # fmt: skip
def test_no_address_leads_to_a_file(client, address) -> None:
    answer = client.get(f"http://{HOST}/{TOKEN}/{address}")
    check_guarded(answer, 404)


# Faults


def test_a_fault_of_the_program_names_nothing_of_the_archive(client, stand, caplog) -> None:
    stand.fault = RuntimeError("photo of Ada.jpg")
    with caplog.at_level(logging.DEBUG):
        answer = client.get("neighbours/0/1")
    check_guarded(answer, 500)
    assert answer.json() == {"error": "the server has a fault"}
    assert len(stand.said) == 1 and stand.said[0].startswith(
        "fault of the server: RuntimeError in "
    )
    assert not [record for record in caplog.records if "Ada" in record.getMessage()]
