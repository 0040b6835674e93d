"""Corrections of a page: they survive a reload, lose nothing, and are read by the next probe."""

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from drawn_collection import HOSTILE, drawn_collection
from striped_archive import result_of, striped_archive

from archiveprobe.look.collect.collection import Collection
from archiveprobe.look.collect.run import collect
from archiveprobe.look.server.app import make_app
from archiveprobe.look.server.build import current_index
from archiveprobe.look.server.index import Index
from archiveprobe.look.server.serve import answers
from archiveprobe.task.config import load_task
from archiveprobe.task.corrections import read_corrections

DECIDE = """async ([positions, choice, who]) => {
    await correctionsLoaded;
    store.set({ who });
    return await decide(positions, choice);
}"""
DECIDED = "[...store.get('corrections').values()].map((each) => [each.id, each.decision])"
SENT = "correctionsWaiting.size === 0 && correctionsSending === null"
# As where a person has forbidden all sites to keep data.
REFUSED = """() => {
    const refuse = () => { throw new DOMException('The quota is used up.', 'QuotaExceededError'); };
    Storage.prototype.setItem = refuse;
    Storage.prototype.getItem = refuse;
}"""


def _decide(page, positions, choice="unsure", who="Amal"):
    step = page.evaluate(DECIDE, [positions, choice, who])
    page.wait_for_function(f"{SENT} || store.get('correctionsFailure') !== null")
    return step


def _download(page, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name="Download corrections.csv").click()
    assert download.value.suggested_filename == "corrections.csv"
    file = folder / "corrections.csv"
    download.value.save_as(file)
    return file


def _with(collection, **meta):
    return Collection({**collection.meta, **meta}, collection.columns, collection.rows)


def _correction(id_, when="2026-01-01T00:00:00Z", **more):
    return {
        "id": id_,
        "label": "destroyed",
        "old_label": "intact",
        "decision": "change",
        "who": "Zoé",
        "when": when,
    } | more


@pytest.mark.browser
def test_decision_changes_the_next_probe(tmp_path, page_file, open_page) -> None:
    folder = striped_archive(tmp_path / "archive")
    before = result_of("probe", folder, "--probe", "ridge")
    page = open_page(page_file(collect(load_task(folder / "task.toml"))))
    page.click("#tab-review")
    page.fill("input[name=who]", "Amal")
    page.keyboard.press("Enter")
    page.locator(".review-figure").first.wait_for()
    steps = page.evaluate("review.steps.map((step) => step.positions)")
    labels = page.evaluate("async () => Array.from(await data.column('label'))")
    # The other one of two labels, for every suspicious image.
    for positions in steps:
        page.wait_for_function("!review.isBusy")
        page.keyboard.press(str(2 - labels[positions[0]]))
    page.wait_for_function(f"store.get('corrections').size === {len(steps)} && {SENT}")
    page.reload()
    page.wait_for_function(f"store.get('corrections').size === {len(steps)}")
    file = _download(page, tmp_path)
    shutil.copy(file, folder / "corrections.csv")
    task = load_task(folder / "task.toml")
    corrections = read_corrections(task)
    ids = [row["id"] for row in collect(task).rows]
    assert {*corrections} == {ids[positions[0]] for positions in steps}
    assert {each.who for each in corrections.values()} == {"Amal"}
    assert {each.decision for each in corrections.values()} == {"change"}
    after = result_of("probe", folder, "--probe", "ridge")
    scores = [result["leaderboard"][0]["macro_f1"] for result in (before, after)]
    assert scores[1] > scores[0]
    # A new page knows the decisions and shows the new labels.
    again = open_page(page_file(collect(task), "again.html"))
    again.wait_for_function(f"store.get('corrections').size === {len(steps)}")
    changed = again.evaluate(
        "async () => { const [now, old] = [await data.column('label'),"
        " await data.column('table_label')]; return now.filter((v, at) => v !== old[at]).length; }"
    )
    assert changed == len(steps)
    assert "Not downloaded" not in again.inner_text("#corrections")


@pytest.mark.browser
def test_server_writes_every_decision_at_once(tmp_path, served) -> None:
    folder = striped_archive(tmp_path / "archive", labelled=24)
    result_of("probe", folder, "--probe", "ridge")
    task = load_task(folder / "task.toml")
    index = Index(current_index(task))
    app = partial(make_app, index, answers(task, index), token="x" * 43)
    page = served(lambda port: app(port=port), f"{'x' * 43}/")
    page.click("#tab-review")
    page.fill("input[name=who]", "Amal")
    page.keyboard.press("Enter")
    page.locator(".review-figure").first.wait_for()
    kinds = []
    news = page.locator("#corrections")
    for key in "k1uz":
        page.wait_for_function(f"() => !review.isBusy && {SENT}")
        page.keyboard.press(key)
        page.wait_for_function(f"() => !review.isBusy && {SENT}")
        kinds.append([each.decision for each in read_corrections(task).values()])
        assert f"Decisions: {len(kinds[-1])}." in news.inner_text()
        assert "Not recorded" not in news.inner_text()
    assert [len(each) for each in kinds] == [1, 2, 3, 2]
    assert kinds[2][2] == "unsure"
    page.reload()
    page.wait_for_function("() => store.get('corrections').size === 2")
    assert "Not recorded" not in page.inner_text("#corrections")
    # In the server's page the decided rows are known, too.
    positions = page.evaluate("[...store.get('corrections').values()].map((e) => e.position)")
    places = index.positions([*read_corrections(task)])
    assert {*places.values()} == {*positions}


@pytest.mark.browser
def test_decisions_survive_a_reload_and_are_counted(tmp_path, page_file, open_page) -> None:
    page = open_page(page_file(drawn_collection(60, hostile=False)))
    news = page.locator("#corrections")
    assert not news.is_visible()
    _decide(page, [0, 1, 2])
    page.reload()
    news.wait_for()
    assert "Decisions: 3. Not downloaded yet: 3." in news.inner_text()
    file = _download(page, tmp_path)
    assert "Not downloaded" not in news.inner_text()
    page.reload()
    news.wait_for()
    assert "Decisions: 3." in news.inner_text()
    assert "Not downloaded" not in news.inner_text()
    _decide(page, [2], 1)
    assert "Not downloaded yet: 1." in news.inner_text()
    content = file.read_bytes()
    assert content.startswith(b"\xef\xbb\xbfid,label,old_label,decision,who,when\r\n")
    assert content.count(b"\r\n") == 4


@pytest.mark.browser
def test_hostile_words_are_read_back_as_they_are(tmp_path, page_file, open_page) -> None:
    names = [name for name in HOSTILE if "\udcff" not in name]
    names = [name.replace("\r", "").replace("x" * 10_000, "x" * 900) for name in names]
    names += ['a","b\r\n"c', " space ", "a;b", "'", "-1", "@x", "ar\u200cabic"]
    labels = ('=1+1,"x"\n<b>', "<img src=x onerror=alert(1)>")
    drawn = drawn_collection(60, labels=labels, hostile=False)
    rows = [dict(row) for row in drawn.rows]
    for at, name in enumerate(names):
        rows[at] |= {"id": name, "text": f"{name}</script><script>alert(1)</script>"}
    page = open_page(page_file(Collection(drawn.meta, drawn.columns, rows)))
    who = "=Amal\u202e\x07\n <b>K\u200cz</b> " + "y" * 200
    _decide(page, [*range(len(names))], 1, who)
    file = _download(page, tmp_path)
    (tmp_path / "task.toml").write_text(f'name = "t"\nlabels = {json.dumps(labels)}\n')
    found = read_corrections(load_task(tmp_path / "task.toml"))
    assert list(found) == names
    assert {each.label for each in found.values()} == {labels[1]}
    assert {each.old_label for each in found.values()} <= {*labels}
    with file.open(encoding="utf-8-sig", newline="") as stream:
        assert [line[0] for line in csv.reader(stream)] == ["id", *names]
    (name,) = {each.who for each in found.values()}
    assert name == ("Amal <b>K\u200cz</b> " + "y" * 200)[:100]
    # In the review they are words, and nothing else.
    page.evaluate("rows => store.set({ shown: Int32Array.from(rows) })", [*range(len(names))])
    page.evaluate("review.again = true; reviewSelection()")
    for _ in names:
        page.wait_for_function("!review.isBusy")
        page.keyboard.press("s")
    assert page.locator("#main b, #main script, #main img:not(.archive)").count() == 0


@pytest.mark.browser
def test_what_the_browser_refuses_waits_and_can_be_saved(tmp_path, page_file, open_page) -> None:
    page = open_page(page_file(drawn_collection(60, hostile=False)))
    page.evaluate(REFUSED)
    _decide(page, [3, 4])
    news = page.locator("#corrections")
    assert "does not keep them" in news.inner_text()
    assert "quota" in news.inner_text()
    assert page.evaluate("!dispatchEvent(new Event('beforeunload', { cancelable: true }))")
    assert len(_download(page, tmp_path).read_text("utf-8-sig").splitlines()) == 3
    _decide(page, [4], 1)
    assert len(page.evaluate(DECIDED)) == 2


@pytest.mark.browser
def test_failure_is_said_and_tried_again_by_a_button(page_file, open_page) -> None:
    page = open_page(page_file(drawn_collection(60, hostile=False)))
    page.evaluate(
        """() => {
            data.meta.shell = 'server';
            window.sent = [];
            window.isDown = true;
            data.corrections = async () => [];
            data.record = async (body) => {
                if (window.isDown) throw new Error('the server does not answer <b>');
                window.sent.push(body);
            };
        }"""
    )
    _decide(page, [0])
    _decide(page, [1], 1)
    undone = _decide(page, [2])
    page.evaluate("step => undoDecision(step)", undone)
    news = page.locator("#corrections")
    page.wait_for_function("correctionsSending === null")
    assert "Not recorded yet: 3." in news.inner_text()
    assert "the server does not answer <b>" in news.inner_text()
    assert page.locator("#corrections b").count() == 0
    page.evaluate("isDown = false")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_function(SENT)
    (body,) = page.evaluate("sent")
    assert len(body["record"]) == 2
    assert len(body["remove"]) == 1
    assert {*body["record"][0]} == {"id", "label", "old_label", "decision", "who", "when"}
    assert "Not recorded" not in news.inner_text()
    assert page.get_by_role("button", name="Try again").count() == 0


@pytest.mark.browser
def test_decisions_of_other_rows_are_kept_and_not_shown(tmp_path, page_file, open_page) -> None:
    drawn = drawn_collection(60, hostile=False)
    ids = [row["id"] for row in drawn.rows]
    old = [_correction("gone.jpg"), _correction(ids[5]), _correction(ids[6])]
    page = open_page(page_file(_with(drawn, corrections=old)))
    later = _correction(ids[5], "2026-02-01T00:00:00Z", label="intact", decision="unsure")
    earlier = _correction(ids[6], "2025-02-01T00:00:00Z", label="intact", decision="unsure")
    stored = [
        _correction("other.jpg", digest="ab"),
        # Another image has this id now.
        _correction(ids[8], digest="ab"),
        _correction(ids[9], digest=drawn.rows[9]["digest"]),
        # Later and earlier than what the page came with.
        later | {"digest": drawn.rows[5]["digest"]},
        earlier | {"digest": drawn.rows[6]["digest"]},
    ]
    page.evaluate("text => localStorage.setItem('archiveprobe drawn', text)", json.dumps(stored))
    page.reload()
    page.wait_for_function("store.get('corrections').size === 3")
    shown = {ids[5]: "unsure", ids[6]: "change", ids[9]: "change"}
    assert dict(page.evaluate(DECIDED)) == shown
    with _download(page, tmp_path).open(encoding="utf-8-sig", newline="") as stream:
        lines = {line["id"]: line["decision"] for line in csv.DictReader(stream)}
    # Of the file that it came with, all; of the browser, what was decided of these images.
    assert lines == shown | {"gone.jpg": "change"}
    assert "other pages or other images, not used here: 2." in page.inner_text("#corrections")


@pytest.mark.browser
def test_archives_of_one_name_keep_their_decisions_apart(tmp_path, page_file, open_page) -> None:
    drawn = drawn_collection(60, hostile=False)
    other = [{**row, "digest": f"f{row['digest']}"[:64]} for row in drawn.rows]
    other[1] |= {"id": "2024.jpg"}
    one = open_page(page_file(drawn))
    _decide(one, [0, 2, 4])
    file = page_file(Collection(drawn.meta, drawn.columns, other), "other.html")
    two = open_page(file, context=one.context)
    news = two.locator("#corrections")
    assert "Decisions: 0." in news.inner_text() and "not used here: 3." in news.inner_text()
    assert not two.get_by_role("button", name="Download corrections.csv").is_visible()
    _decide(two, [0, 1], 1)
    assert "Decisions: 2. Not downloaded yet: 2." in news.inner_text()
    lines = _download(two, tmp_path).read_text("utf-8-sig").splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [other[0]["id"], "2024.jpg"]
    # What the first page knows is as it was, the same id included.
    one.reload()
    one.wait_for_function("store.get('corrections').size === 3")
    assert {kind for _, kind in one.evaluate(DECIDED)} == {"unsure"}
    assert "not used here: 2." in one.inner_text("#corrections")


@pytest.mark.browser
def test_a_file_that_was_edited_replaces_what_was_downloaded(
    tmp_path, page_file, open_page
) -> None:
    drawn = _with(drawn_collection(60, hostile=False), made="2000-01-01T00:00:00Z")
    page = open_page(page_file(drawn))
    _decide(page, [0, 2, 4])
    with _download(page, tmp_path).open(encoding="utf-8-sig", newline="") as stream:
        lines = list(csv.DictReader(stream))
    # A page of before knows nothing of the file yet.
    page.reload()
    page.wait_for_function("store.get('corrections').size === 3")
    _decide(page, [6])
    edited = [lines[0], lines[1] | {"decision": "keep"}]
    later = _with(drawn, made="2100-01-01T00:00:00Z", corrections=edited)
    again = open_page(page_file(later, "again.html"), context=page.context)
    again.wait_for_function("store.get('corrections').size === 3")
    ids = [row["id"] for row in drawn.rows]
    assert dict(again.evaluate(DECIDED)) == {ids[0]: "unsure", ids[2]: "keep", ids[6]: "unsure"}
    news = again.locator("#corrections")
    assert "as they were, not used: 2." in news.inner_text()
    assert "Not downloaded yet: 1." in news.inner_text()
    again.get_by_role("button", name="Use them again").click()
    again.wait_for_function("store.get('corrections').size === 4")
    assert {kind for _, kind in again.evaluate(DECIDED)} == {"unsure"}
    assert "not used" not in news.inner_text()
    assert "Not downloaded yet: 3." in news.inner_text()


def test_new_images_leave_the_place_of_decisions_as_it_is(copied) -> None:
    before = collect(copied()).meta["key"]
    table = copied().table
    head, first, *rest = table.read_text().splitlines(keepends=True)
    table.write_text("".join([head, *rest]))
    result_of("embed", copied().file)
    assert collect(copied()).meta["key"] == before
    table.write_text("".join([head, first, *rest]))
    table.rename(table.with_name("other.csv"))
    settings = copied().file
    settings.write_text(settings.read_text().replace(table.name, "other.csv"))
    result_of("embed", settings)
    assert collect(copied()).meta["key"] != before


@pytest.mark.browser
def test_two_tabs_of_a_page_know_of_each_other(page_file, open_page) -> None:
    file = page_file(drawn_collection(60, hostile=False))
    one = open_page(file)
    other = open_page(file, context=one.context)
    _decide(one, [0])
    other.wait_for_function("store.get('corrections').size === 1")
    _decide(other, [1])
    one.wait_for_function("store.get('corrections').size === 2")


@pytest.mark.browser
@pytest.mark.parametrize("text", ["{", "[1, null]", '"x"', "{}", '[{"id": 5}]'])
def test_damaged_storage_hurts_nothing(page_file, open_page, text) -> None:
    page = open_page(page_file(drawn_collection(60, hostile=False)))
    page.evaluate("text => localStorage.setItem('archiveprobe drawn', text)", text)
    page.reload()
    _decide(page, [0])
    assert [kind for _, kind in page.evaluate(DECIDED)] == ["unsure"]
