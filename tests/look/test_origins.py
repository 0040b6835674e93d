"""Another page in the same browser can neither read nor write, even where it knows the address."""

import pytest
from browsed import patient
from drawn_collection import PIXEL, drawn_collection
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route, Router

from archiveprobe.look.page import render_page
from archiveprobe.look.server.app import Answers, make_app
from archiveprobe.look.server.index import Index, write_index
from archiveprobe.look.server.serve import listen, serving

TOKEN = "x" * 43
pytestmark = pytest.mark.browser


STATUSES: list[int] = []


def noting(app):
    """Note what an app answers to POST."""

    async def noted(scope, receive, send):
        async def pass_on(message):
            if scope.get("method") == "POST" and message["type"] == "http.response.start":
                STATUSES.append(message["status"])
            await send(message)

        await app(scope, receive, pass_on)

    return noted


@pytest.fixture
def answered() -> list[int]:
    """The statuses that the server has answered POST with."""
    return STATUSES


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Addresses of the server and of another one on this machine; what was recorded."""
    index = Index(write_index(tmp_path_factory.mktemp("look"), "a" * 64, drawn_collection(50)))
    recorded: list[object] = []
    stand = Answers(
        page=render_page("server", index.meta),
        thumbnail=lambda *_: PIXEL,
        preview=lambda *_: PIXEL,
        neighbours=lambda *_: (),
        search=lambda *_: [0.0] * 50,
        corrections=list,
        record=lambda *sent: recorded.append(sent),
    )

    def page(_: Request) -> HTMLResponse:
        return HTMLResponse("<!DOCTYPE html><title>other</title><body></body>")

    with listen(0) as own, listen(0) as evil:
        port = own.getsockname()[1]
        app = noting(make_app(index, stand, token=TOKEN, port=port))
        elsewhere = f"http://127.0.0.1:{evil.getsockname()[1]}/"
        with serving(app, own), serving(Router([Route("/", page)]), evil):
            yield f"http://127.0.0.1:{port}/{TOKEN}/", elsewhere, recorded


@pytest.fixture
def other(servers, browser):
    """A page of the other server; the address of the first; what was recorded through that."""
    own, elsewhere, recorded = servers
    recorded.clear()
    context = browser.new_context()
    page = patient(context.new_page())
    page.goto(elsewhere)
    yield page, own, recorded
    context.close()


READABLE = ["", "rows?at=0,1", "column/label", "find?text=a", "thumb/0", "corrections"]


@pytest.mark.proves("page")
def test_fetch_reads_nothing(other) -> None:
    page, own, _ = other
    script = """async ([url, mode]) => {
        try {
            const answer = await fetch(url, { mode, credentials: "include" });
            return [answer.type, (await answer.text()).length];
        } catch (error) { return ["refused", 0]; }
    }"""
    for address in READABLE:
        assert page.evaluate(script, [own + address, "cors"]) == ["refused", 0]
        assert page.evaluate(script, [own + address, "no-cors"])[1] == 0


@pytest.mark.proves("page")
@pytest.mark.parametrize("tag", ["img", "script", "link", "audio", "object", "embed"])
def test_no_element_loads_anything(other, tag) -> None:
    page, own, _ = other
    script = """([tag, url]) => new Promise((resolve) => {
        const element = document.createElement(tag);
        if (tag === "link") { element.rel = "stylesheet"; element.href = url; }
        else if (tag === "object") element.data = url;
        else element.src = url;
        element.onerror = () => resolve("refused");
        for (const event of ["load", "loadeddata"]) {
            element.addEventListener(event, () => resolve(
                element.contentDocument?.title || element.naturalWidth || "loaded"));
        }
        document.body.append(element);
        setTimeout(() => resolve("nothing"), 700);
    })"""
    for address in ("thumb/0", "rows?at=0,1", ""):
        result = page.evaluate(script, [tag, own + address])
        frames = [frame for frame in page.frames if frame.url.startswith(own)]
        assert not [frame for frame in frames if "drawn" in frame.content()]
        # What these two show of a refused document counts as loaded.
        assert tag in ("object", "embed") or result in ("refused", "nothing")


@pytest.mark.proves("page")
def test_no_frame_shows_the_page(other) -> None:
    page, own, _ = other
    page.set_content(f'<iframe src="{own}"></iframe><iframe sandbox src="{own}"></iframe>')
    page.wait_for_timeout(300)
    assert len(page.frames) == 3
    for frame in page.frames[1:]:
        assert "drawn" not in frame.content()


def test_no_window_is_held_open_to_the_page(other) -> None:
    page, own, _ = other
    with page.context.expect_page() as opened:
        page.evaluate("(url) => { window.other = window.open(url); }", own)
    opened.value.wait_for_load_state()
    assert opened.value.title() == "drawn & <b>"
    assert page.evaluate("window.other.closed || window.other.length === 0")
    assert opened.value.evaluate("window.opener") is None


BODY = '{"remove": ["a"]}'


@pytest.mark.proves("page")
@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain", "application/x-www-form-urlencoded"]
)
@pytest.mark.parametrize("mode", ["cors", "no-cors"])
def test_fetch_writes_nothing(other, kind, mode) -> None:
    page, own, recorded = other
    script = """async ([url, mode, kind, body]) => {
        const headers = { "Content-Type": kind };
        const answer = await fetch(url, { method: "POST", mode, body, headers }).catch(() => null);
        navigator.sendBeacon(url, new Blob([body], { type: kind }));
        return answer?.ok ?? false;
    }"""
    assert page.evaluate(script, [own + "corrections", mode, kind, BODY]) is False
    page.wait_for_timeout(100)
    assert recorded == []


@pytest.mark.proves("page")
@pytest.mark.parametrize("sandbox", ["allow-forms allow-scripts", None])
@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data"])
def test_a_form_writes_nothing(other, answered, kind, sandbox) -> None:
    page, own, recorded = other
    form = (
        f"<form method=post enctype={kind} action={own}corrections>"
        """<input name='{"remove": ["a"], "who": "' value='"}'></form>"""
        "<script>document.forms[0].submit()</script>"
    )
    script = """([html, sandbox]) => {
        const frame = document.createElement("iframe");
        if (sandbox) frame.sandbox = sandbox;
        frame.srcdoc = html;
        document.body.append(frame);
    }"""
    answered.clear()
    page.evaluate(script, [form, sandbox])
    # The server is asked: a frame of another process may answer before the test can listen to it.
    for _ in range(300):
        if answered:
            break
        page.wait_for_timeout(100)
    assert answered and set(answered) <= {403, 415}
    assert recorded == []


def test_the_own_page_reads_and_writes(other) -> None:
    page, own, recorded = other
    page.goto(own)
    assert page.evaluate("data.rows([0, 1]).then((rows) => rows.length)") == 2
    page.evaluate("data.record({ remove: ['a'], who: 'Ada' })")
    assert recorded == [([], ["a"])]
