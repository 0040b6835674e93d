"""The server of a task: its page works in a real browser; it starts, ends and starts again."""

import json
import os
import shutil
import signal
import socket
import sys
import threading
from contextlib import suppress

import httpx
import numpy as np
import pytest
from drawn_collection import PIXEL, drawn_collection
from starlette.testclient import TestClient

from archiveprobe.base.progress import silent
from archiveprobe.commands.stopping import stoppable
from archiveprobe.demo.archive import write_demo
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.run import embed
from archiveprobe.look.page import render_page
from archiveprobe.look.server import build
from archiveprobe.look.server.app import Answers, make_app
from archiveprobe.look.server.build import current_index
from archiveprobe.look.server.index import Index, write_index
from archiveprobe.look.server.serve import answers, listen, serve, serving
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import load_task
from archiveprobe.task.corrections import Correction, corrections_file, read_corrections

TOKEN = "x" * 43


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "archive"
    write_demo(folder, count=60)
    task = load_task(folder)
    embed(task, EmbedOptions(workers=0))
    run_probes(task, Options(probes=("ridge",), workers=1))
    return task


@pytest.fixture
def page(tmp_path, served):
    """A page of 700 drawn rows, and what was recorded through it."""
    collection = drawn_collection(700)
    index = Index(write_index(tmp_path, "a" * 64, collection))
    recorded = []
    stand = Answers(
        page=render_page("server", index.meta),
        thumbnail=lambda digest, _: None if digest.endswith("3") else PIXEL,
        preview=lambda _, __: PIXEL,
        neighbours=lambda _, position: [(position + 1, 0.5)],
        search=lambda _, words: [len(words)] * 700,
        corrections=lambda: [
            Correction(collection.rows[47]["id"], "destroyed"),
            Correction("x", ""),
        ],
        record=lambda corrections, remove: recorded.append((corrections, remove)),
    )
    page = served(lambda port: make_app(index, stand, token=TOKEN, port=port), f"{TOKEN}/")
    return page, collection, recorded


# The page's own data


@pytest.mark.browser
def test_the_page_reads_what_was_collected(page) -> None:
    page, collection, _ = page
    assert page.title() == "drawn & <b>"
    for name in ("label", "p:1", "answer:0", "suspect", "bytes", "status"):
        script = "async (name) => Array.from(await data.column(name), (x) => x !== x ? null : x)"
        wanted = [None if x != x else x for x in collection.columns[name].ravel().tolist()]
        assert page.evaluate(script, name) == wanted
    asked = [699, 7, 0, *range(600)]
    rows = page.evaluate("async (asked) => JSON.stringify(await data.rows(asked))", asked)
    assert [row["id"] for row in json.loads(rows)] == [collection.rows[at]["id"] for at in asked]
    for text in ("<SCRIPT>", "مبنى", "a&b#c?"):
        script = "async (text) => Array.from(await data.find(text))"
        assert page.evaluate(script, text) == [
            int(text.lower() in (row["id"] + row["text"]).lower()) for row in collection.rows
        ]
    assert page.evaluate("data.neighbours(0, 3)") == [{"position": 4, "similarity": 0.5}]
    assert page.evaluate("data.search(0, 'ruin').then((found) => found[699])") == 4


@pytest.mark.browser
def test_every_tab_opens_without_a_word_on_the_console(page) -> None:
    page, _, _ = page
    tabs = page.locator("[role=tab]").all()
    assert len(tabs) >= 4
    for tab in tabs:
        tab.click()
        assert tab.get_attribute("aria-selected") == "true"
        page.wait_for_load_state("networkidle")
        assert page.locator("[role=tabpanel]:visible").inner_text()
    assert page.inner_text("#status") == ""


@pytest.mark.browser
def test_a_correction_survives_a_reload(fresh, served) -> None:
    task = fresh
    index = Index(current_index(task))
    given = answers(task, index)
    page = served(lambda port: make_app(index, given, token=TOKEN, port=port), f"{TOKEN}/")
    page.evaluate("decide([3], 0).then(() => decide([4], 'unsure'))")
    page.wait_for_function("correctionsUnsaved() === 0")
    assert {each.decision for each in read_corrections(task).values()} >= {"unsure"}
    page.reload()
    page.wait_for_function("store.get('corrections').size === 2")
    assert page.evaluate("[...store.get('corrections').values()].map((each) => each.position)") == [
        3,
        4,
    ]


@pytest.mark.browser
def test_a_column_is_fetched_once_however_many_ask(page) -> None:
    page, _, _ = page
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    script = (
        "Promise.all([1, 2, 3].map(() => data.column('fold'))).then((all) => new Set(all).size)"
    )
    assert page.evaluate(script) == 1
    assert len([url for url in asked if "fold" in url]) <= 1


@pytest.mark.browser
def test_images_are_shown_and_those_that_are_not_there_say_nothing(page) -> None:
    page, collection, _ = page
    digests = [row["digest"] for row in collection.rows]
    script = """(at) => new Promise((resolve) => {
        const image = new Image();
        image.onload = () => resolve(image.naturalWidth);
        image.onerror = () => resolve(0);
        image.src = data.thumbnail(at);
    })"""
    there = next(at for at, digest in enumerate(digests) if digest and not digest.endswith("3"))
    gone = next(at for at, digest in enumerate(digests) if digest.endswith("3"))
    assert [page.evaluate(script, at) for at in (there, gone, digests.index(""))] == [1, 0, 0]


@pytest.mark.browser
def test_decisions_arrive_in_parts_that_the_server_takes(page) -> None:
    page, collection, recorded = page
    assert page.evaluate(
        "data.corrections().then((all) => all.map((each) => each.position ?? -1))"
    ) == [
        47,
        -1,
    ]
    ids = [row["id"] for row in collection.rows if "\udcff" not in row["id"]][:600]
    ids = [id_ for id_ in ids if len(id_) < 1000]
    script = """([ids, who]) => data.record({ who, remove: ["gone"], record: ids.map((id) => (
        { id, label: "destroyed", old_label: "", decision: "change", who: "ش".repeat(90),
          when: "2026-01-01T00:00:00Z", position: 1, digest: "d" })) })"""
    page.evaluate(script, [ids, "Ada"])
    assert [each.id for corrections, _ in recorded for each in corrections] == ids
    assert [remove for _, remove in recorded][-1] == ["gone"]
    assert recorded[0][0][0].who == "ش" * 90


@pytest.mark.browser
def test_a_fault_is_said_on_the_status_line(tmp_path, browser) -> None:
    index = Index(write_index(tmp_path, "a" * 64, drawn_collection(10)))
    stand = Answers(render_page("server", index.meta), *[None] * 6)
    context = browser.new_context()
    page = context.new_page()
    with listen(0) as listener:
        port = listener.getsockname()[1]
        with serving(make_app(index, stand, token=TOKEN, port=port), listener):
            page.goto(f"http://127.0.0.1:{port}/{TOKEN}/")
            script = """data.record({ record: [{ id: "none", label: "", old_label: "",
                decision: "keep", when: "" }] }).catch((error) => error.message)"""
            assert page.evaluate(script) == "an id that no row has"
            assert page.inner_text("#status") == "an id that no row has"
    script = "data.find('a').catch((error) => error.message)"
    assert "start archiveprobe look again" in page.evaluate(script)
    assert "start archiveprobe look again" in page.inner_text("#status")
    context.close()


# A task


@pytest.fixture
def fresh(task, tmp_path):
    """A copy of the task that nobody has looked at."""
    folder = tmp_path / "copy"
    shutil.copytree(task.folder, folder)
    shutil.rmtree(folder / "work" / "look", ignore_errors=True)
    corrections_file(load_task(folder)).unlink(missing_ok=True)
    return load_task(folder)


def test_a_task_is_served_from_its_first_request_to_its_last(fresh) -> None:
    task = fresh
    said, counted = [], []

    def progress(what, total):
        counted.append(what)
        return silent(what, total)

    index = Index(current_index(task, notify=said.append, progress=progress))
    assert counted and index.meta["shell"] == "server"
    app = make_app(index, answers(task, index), token=TOKEN, port=80)
    client = TestClient(app, base_url=f"http://localhost/{TOKEN}/")
    assert b"<title>" in client.get("").content
    rows = client.get("rows?at=0,1,2").json()
    assert len({row["id"] for row in rows}) == 3
    images = [client.get(f"thumb/{at}") for at in range(len(index))]
    shown = [answer for answer in images if answer.status_code == 200]
    assert len(shown) > len(index) // 2
    assert all(answer.content[8:12] == b"WEBP" for answer in shown)
    assert client.get("preview/0").content[8:12] == b"WEBP"
    assert client.get("search/0?words=ruins").status_code == 409
    given = np.frombuffer(client.get("column/table_label").content, np.int8)[1]
    label = task.labels[1 - max(given, 0)]
    sent = {"id": rows[1]["id"], "label": label, "old_label": "", "decision": "change"}
    assert client.post("corrections", json={"record": [sent], "who": "Ada"}).status_code == 200
    [found] = client.get("corrections").json()
    assert found["position"] == 1 and found["who"] == "Ada" and found["when"]
    # Other labels, but the same images: neighbours still are those of the page.
    near = client.get(f"neighbours/0/{images.index(shown[0])}").json()
    assert near and {each["position"] for each in near} < set(range(len(index)))
    assert client.post("corrections", json={"remove": [rows[1]["id"]]}).status_code == 200
    assert client.get("corrections").json() == []


@pytest.mark.proves("corrections")
def test_two_servers_record_without_loss(fresh) -> None:
    task = fresh
    index = Index(current_index(task))
    clients = [
        TestClient(
            make_app(index, answers(task, index), token=TOKEN, port=80),
            base_url=f"http://localhost/{TOKEN}/",
        )
        for _ in range(2)
    ]
    ids = [index.row(at)["id"] for at in range(30)]

    def post(client, own) -> None:
        for id_ in own:
            sent = {"id": id_, "label": task.labels[1], "old_label": "", "decision": "change"}
            assert client.post("corrections", json={"record": [sent]}).status_code == 200

    threads = [
        threading.Thread(target=post, args=(client, ids[at::2]))
        for at, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_corrections(task)) == set(ids)


# The index of a task


@pytest.fixture
def copy(fresh, monkeypatch):
    """A copy of the task, how often its index was built, and of how many rows: one more each."""
    built = []

    def write(order, *_):
        built.append(10 + len(built))
        return write_index(order.folder, order.key, drawn_collection(built[-1]))

    monkeypatch.setattr(build, "_build", write)
    return fresh, built


def test_an_index_is_built_once_for_a_state(copy) -> None:
    task, built = copy
    file = current_index(task)
    assert current_index(task) == file and built == [10]
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert current_index(task) == file and built == [10, 11]
    assert len(Index(file)) == 11
    assert current_index(task, partial=True) != file and built == [10, 11, 12]
    assert not file.exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda task: corrections_file(task).write_text("id,label\n"),
        lambda task: task.file.write_text(task.file.read_text() + "\n# changed\n"),
        lambda task: task.table.write_bytes(task.table.read_bytes() + b"\r\n"),
        lambda task: shutil.rmtree(next((task.work / "runs").iterdir())),
    ],
    ids=["corrections", "settings", "table", "systems"],
)
def test_another_state_gets_another_index(copy, change) -> None:
    task, built = copy
    current_index(task)
    change(task)
    current_index(task)
    assert built == [10, 11]


def test_an_index_of_a_state_that_changed_meanwhile_is_not_kept(copy, monkeypatch) -> None:
    task, built = copy
    write, keys = build._build, []

    def write_while_labels_change(order, *rest):
        keys.append(order.key)
        if len(keys) == 1:
            corrections_file(task).write_text("id,label\n")
        return write(order, *rest)

    monkeypatch.setattr(build, "_build", write_while_labels_change)
    current_index(task)
    assert built == [10, 11] and keys[0] != keys[1]
    # The state before comes back; the index that was written then may have seen the other one.
    corrections_file(task).unlink()
    current_index(task)
    assert built == [10, 11, 12] and keys[2] == keys[0]


def test_a_task_that_never_rests_is_said(copy, monkeypatch, fault_of) -> None:
    task, _ = copy
    write = build._build

    def write_while_labels_change(order, *rest):
        with corrections_file(task).open("a") as file:
            file.write("id,label\n")
        return write(order, *rest)

    monkeypatch.setattr(build, "_build", write_while_labels_change)
    fault_of(lambda: current_index(task), "changed each time", "run `look` again")


def test_what_cannot_be_collected_is_said_as_elsewhere(tmp_path, fault_of) -> None:
    write_demo(tmp_path / "new", count=60)
    task = load_task(tmp_path / "new")
    fault_of(lambda: current_index(task), "nothing is embedded yet", "archiveprobe embed")
    assert not list((task.work / "look").glob("*"))


def test_a_builder_that_dies_is_said(task, monkeypatch, fault_of) -> None:
    monkeypatch.setattr(build, "find_index", lambda folder, key: None)
    monkeypatch.setattr(build, "_work", os._exit)
    fault_of(lambda: current_index(task), "was ended", "free memory")


# From start to end


@pytest.fixture
def started(task):
    """Serve the task until a signal; what was shown and said, and what it answered meanwhile."""

    def started(number: int = signal.SIGINT, **options):
        shown, said, seen = [], [], []

        def ask_and_end() -> None:
            seen.append(httpx.get(shown[0], timeout=300).status_code)
            os.kill(os.getpid(), number)

        def notify(text: str) -> None:
            said.append(text)
            if text == "Ctrl-C ends it":
                threading.Thread(target=ask_and_end).start()

        with stoppable():
            serve(task, show=shown.append, notify=notify, **options)
        [address] = shown
        return address, said, seen

    return started


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_without_a_word(started, capfd, number) -> None:
    address, said, seen = started(number)
    assert seen == [200]
    assert said == ["Ctrl-C ends it"]
    assert capfd.readouterr() == ("", "")
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_a_signal_that_comes_early_ends_it_as_well(task, capfd) -> None:
    with stoppable():
        serve(task, show=lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert capfd.readouterr() == ("", "")


def free_port() -> int:
    """Return a port of those that are given to nobody who does not ask for a number."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port
    raise AssertionError


def test_each_start_has_another_token_and_the_port_asked_for(started) -> None:
    port = free_port()
    tokens = set()
    for _ in range(2):
        address, _, seen = started(port=port)
        token = address.removesuffix("/").rpartition("/")[2]
        assert address == f"http://127.0.0.1:{port}/{token}/" and seen == [200]
        assert len(token) >= 43
        tokens.add(token)
    assert len(tokens) == 2


def test_over_ssh_it_says_how_to_reach_it(started, monkeypatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.5 50000 192.0.2.7 22")
    address, said, _ = started()
    port = address.split(":")[2].split("/")[0]
    assert f"ssh -L {port}:127.0.0.1:{port} " in said[0] and "@192.0.2.7" in said[0]


def test_no_other_machine_is_served() -> None:
    with listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_said(task, fault_of) -> None:
    with listen(0) as other:
        port = other.getsockname()[1]
        fault_of(lambda: serve(task, port=port), f"port {port}", "leave --port out")


@pytest.mark.parametrize("library", ["starlette", "uvicorn"])
def test_a_library_that_is_missing_is_said(task, monkeypatch, library, fault_of) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    fault_of(lambda: serve(task), library, "pip install 'archiveprobe[look]'")
