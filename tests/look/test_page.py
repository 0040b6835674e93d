"""The page as a file: it opens, says nothing, fetches nothing, and shows hostile words as words."""

import json
import re
from dataclasses import replace

import pytest
from drawn_collection import HOSTILE, drawn_collection

from archiveprobe.look import page as look_page
from archiveprobe.look.page import LANGUAGES, REVIEW_SCRIPTS, SCRIPTS, STYLES, render_page, strings

STATIC = look_page._HERE / "static"


@pytest.mark.proves("page")
@pytest.mark.browser
def test_page_opens_from_disk(page_file, open_page) -> None:
    page = open_page(page_file(drawn_collection(60)))
    assert page.title() == "drawn & <b>"
    assert page.inner_text("h1") == "drawn & <b>"
    assert page.locator("[role=tab]").count() == len(page.evaluate("parts.filter(p => p.tab)"))


@pytest.mark.browser
@pytest.mark.parametrize("count", [40, 0])
def test_every_tab_opens_in_both_languages(page_file, open_page, count) -> None:
    page = open_page(page_file(drawn_collection(max(count, 8), systems=2 if count else 0)))
    for language, direction in (("en", "ltr"), ("ar", "rtl")):
        if page.evaluate("document.documentElement.lang") != language:
            page.click("#language")
        assert page.evaluate("document.documentElement.dir") == direction
        for tab in page.locator("[role=tab]").all():
            tab.click()
            assert tab.get_attribute("aria-selected") == "true"
            assert page.locator("[role=tabpanel]:visible").count() == 1


@pytest.mark.browser
def test_partial_page_says_so_first(page_file, open_page) -> None:
    whole = drawn_collection(40)
    partial = replace(whole, meta={**whole.meta, "partial": "partial: 40 of 52 rows"})
    page = open_page(page_file(partial))
    assert "partial: 40 of 52 rows" in page.inner_text("#partial")
    assert open_page(page_file(whole, "whole.html")).is_hidden("#partial")


@pytest.mark.browser
def test_columns_arrive_to_the_last_bit(page_file, open_page) -> None:
    collection = drawn_collection(50)
    page = open_page(page_file(collection))
    for name, column in collection.columns.items():
        text = page.evaluate(
            "async (name) => Array.from(await data.column(name), (value) => Object.is(value, NaN)"
            " ? 'nan' : String(value))",
            name,
        )
        assert [float(value) for value in text] == pytest.approx(
            column.ravel().tolist(), rel=0, abs=0, nan_ok=True
        )


@pytest.mark.browser
def test_hostile_words_arrive_as_they_are(page_file, open_page) -> None:
    collection = drawn_collection(330)
    page = open_page(page_file(collection))
    ids = page.evaluate(
        "async () => (await data.rows(Array.from({length: data.meta.count}, (_, at) => at)))"
        ".map((row) => JSON.stringify(row.id))"
    )
    # Half a surrogate pair comes back as an escape.
    assert [json.loads(text) for text in ids] == [row["id"] for row in collection.rows]
    assert any(HOSTILE[0] in row["id"] for row in collection.rows)


@pytest.mark.proves("page")
def test_nothing_of_the_archive_can_end_a_block() -> None:
    words = "</script><script>alert(1)</script><!--&\u2028"
    text = render_page("page", {"task": words}, blocks={"rows": [words]}).decode()
    block = re.search('<script type="application/json" id="rows">(.*?)</script>', text, re.DOTALL)
    assert block is not None
    assert json.loads(block[1]) == [words]
    assert not set("<>&\u2028") & set(block[1])
    assert "<title>&lt;/script&gt;" in text


@pytest.mark.proves("page")
def test_policy_allows_no_network() -> None:
    text = render_page("page", {"task": "t"}).decode()
    policy = re.search('Content-Security-Policy" content="(.*?)"', text)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "http" not in policy[1]
    assert "unsafe" not in policy[1]


def test_every_file_of_scripts_and_styles_is_in_the_page() -> None:
    assert {file.stem for file in STATIC.glob("*.js")} <= {*SCRIPTS, *REVIEW_SCRIPTS}
    assert {file.stem for file in STATIC.glob("*.css")} <= {*STYLES}


@pytest.mark.proves("page")
def test_scripts_never_make_markup_of_text() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser"
        r"|console\.|https?://(?!www\.w3\.org/)"
    )
    for file in STATIC.glob("*.js"):
        assert not forbidden.search(file.read_text("utf-8")), file.name
        assert len(file.read_text("utf-8").splitlines()) <= 450, file.name


@pytest.mark.browser
def test_back_returns_to_the_tab_before(page_file, open_page) -> None:
    file = page_file(drawn_collection(60))
    page = open_page(file)
    page.click("#tab-images")
    page.click("#tab-data")
    shown = "document.querySelector('[role=tabpanel]:not([hidden])').id"
    for name in ("images", "results"):
        page.go_back()
        page.wait_for_function(f"{shown} === 'panel-{name}'")
    page.go_forward()
    page.wait_for_function(f"{shown} === 'panel-images'")
    page.reload()
    assert page.evaluate(shown) == "panel-images"
    other = open_page(file, part="#nonsense")
    assert other.evaluate(shown) == "panel-results"


@pytest.mark.parametrize("key", strings())
def test_every_word_is_there_in_every_language(key) -> None:
    words = strings()[key]
    assert set(words) == {*LANGUAGES}
    assert all(text.strip() for text in words.values())
    names = [sorted(set(re.findall(r"\{(\w+)\}", text))) for text in words.values()]
    assert names[0] == names[1]
    assert re.search(r"[\u0600-\u06ff]", words["ar"])


def test_words_used_are_there_and_words_there_are_used() -> None:
    sources = "".join(file.read_text("utf-8") for file in STATIC.glob("*.js"))
    sources += (look_page._HERE / "page.html.jinja").read_text("utf-8")
    used = set(re.findall(r"""\bt\(\s*["']([a-z_.]+)["']""", sources))
    used |= set(re.findall(r'data-(?:text|label)="([a-z_.]+)"', sources))
    assert used <= {*strings()}
    # Keys that are put together at run time end in what stands in `${...}`.
    made = [re.escape(key) for key in re.findall(r"\bt\(`([^`]*)`", sources)]
    patterns = [re.compile(re.sub(r"\\\$\\\{.*?\\\}", ".+", key)) for key in made]
    unused = {
        key
        for key in strings()
        if key not in used and not any(pattern.fullmatch(key) for pattern in patterns)
    }
    assert not {key for key in unused if f'"{key}"' not in sources}
