"""Care: no image is unblurred, enlarged or counted before a key or a click asks for it."""

import re

import pytest
from drawn_collection import drawn_collection

BLUR = """() => [...document.querySelectorAll('img')].map((image) =>
    [image.classList.contains('archive'), getComputedStyle(image).filter])"""
# What a tab of images does, made by hand: tiles of rows.
TILES = """() => {
    document.getElementById('tiles')?.remove();
    const place = el('div', { id: 'tiles' }, ...Array.from({ length: 12 },
        (_, at) => el('div', { tabindex: 0, style: { display: 'inline-block' } },
            careImage(at, { alt: `image ${at}` }))));
    document.querySelector('[role=tabpanel]:not([hidden])').prepend(place);
}"""


@pytest.fixture
def page(page_file, open_page):
    opened = open_page(page_file(drawn_collection(60, hostile=False)))
    opened.click("#tab-review")
    opened.evaluate(TILES)
    opened.wait_for_function("[...document.images].every((image) => image.complete)")
    return opened


def _blurred(page) -> bool:
    states = page.evaluate(BLUR)
    assert states
    assert all(archive for archive, _ in states)
    return all("blur" in style and "grayscale(1)" in style for _, style in states)


def _shown(page) -> int:
    return sum("blur" not in style for _, style in page.evaluate(BLUR))


def _counted(page, number: int) -> None:
    page.wait_for_function(
        "number => document.querySelector('.care-count').textContent.endsWith(`: ${number}`)",
        arg=number,
    )


@pytest.mark.browser
def test_everything_is_blurred_until_asked_for(page) -> None:
    assert _blurred(page)
    _counted(page, 0)
    page.mouse.move(100, 400)
    page.emulate_media(media="print")
    assert _blurred(page)


@pytest.mark.browser
def test_a_click_and_a_key_show_one_image_and_blur_it_again(page) -> None:
    frames = page.locator("#tiles .care:has(img)")
    frames.nth(0).locator("button").click()
    assert _shown(page) == 1
    page.locator("#tiles > div:has(img)").nth(1).focus()
    page.keyboard.press("v")
    assert _shown(page) == 2
    page.keyboard.press("v")
    frames.nth(0).locator("button").click()
    assert _blurred(page)
    # The same image a second time is no further one.
    frames.nth(0).locator("button").click()
    _counted(page, 2)


@pytest.mark.browser
def test_the_page_is_shown_by_its_switch_and_its_key(page) -> None:
    images = page.locator("#tiles img").count()
    page.get_by_role("switch").check()
    assert _shown(page) == images
    _counted(page, images)
    page.keyboard.press("b")
    assert _blurred(page)
    page.keyboard.press("b")
    assert page.get_by_role("switch").is_checked()
    page.get_by_role("switch").focus()
    page.keyboard.press("Space")
    assert _blurred(page)


@pytest.mark.browser
@pytest.mark.parametrize("leave", ["tab", "language", "reload", "back"])
def test_what_was_asked_for_ends_with_the_tab_and_the_page(page, leave) -> None:
    page.locator("#tiles .care button").first.click()
    page.keyboard.press("b")
    assert _shown(page) > 1
    if leave == "tab":
        page.click("#tab-results")
    elif leave == "language":
        page.click("#language")
    elif leave == "back":
        page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    else:
        page.reload()
    page.click("#tab-review")
    page.evaluate(TILES)
    assert _blurred(page)
    assert not page.get_by_role("switch").is_checked()


@pytest.mark.browser
def test_the_counter_goes_on_after_a_reload(page) -> None:
    page.keyboard.press("b")
    number = page.locator("#tiles img").count()
    _counted(page, number)
    page.reload()
    _counted(page, number)


@pytest.mark.browser
def test_only_what_is_within_the_window_counts(page) -> None:
    page.evaluate("document.getElementById('tiles').style.marginTop = '3000px'")
    page.wait_for_function("careVisible.size === 0")
    page.keyboard.press("b")
    _counted(page, 0)
    page.locator("#tiles").scroll_into_view_if_needed()
    _counted(page, page.locator("#tiles img").count())


@pytest.mark.browser
def test_keys_do_nothing_with_modifiers_or_where_text_is_written(page) -> None:
    for key in ("Control+b", "Alt+b", "Meta+b", "Shift+B"):
        page.keyboard.press(key)
    page.evaluate("document.getElementById('main').append(el('input', { id: 'text' }))")
    page.fill("#text", "x")
    page.keyboard.press("b")
    assert page.input_value("#text") == "xb"
    assert _blurred(page)


@pytest.mark.browser
def test_keys_of_an_arabic_keyboard_act_by_their_place(page) -> None:
    # The key B writes two letters there.
    page.evaluate(
        "document.body.dispatchEvent(new KeyboardEvent('keydown',"
        " { key: 'لا', code: 'KeyB', bubbles: true }))"
    )
    assert _shown(page) > 0


@pytest.mark.browser
def test_a_row_without_an_image_has_a_place_that_says_why(page_file, open_page) -> None:
    collection = drawn_collection(200, hostile=False)
    missing = next(at for at, row in enumerate(collection.rows) if not row["digest"])
    page = open_page(page_file(collection))
    page.evaluate("at => document.getElementById('main').append(careImage(at))", missing)
    status = collection.meta["statuses"][collection.columns["status"][missing]]
    page.locator(".care-none", has_text=status).wait_for()
    assert page.locator("#main img").count() == 0


@pytest.mark.browser
def test_the_page_says_why_in_both_languages(page) -> None:
    assert "injury and death" in page.inner_text("#care-why")
    page.click("#language")
    assert "إصابات ووفيات" in page.inner_text("#care-why")
    assert page.locator("#care-why").count() == 1


@pytest.mark.browser
def test_words_for_screen_readers_are_the_given_ones(page) -> None:
    names = [image.get_attribute("alt") for image in page.locator("#tiles img").all()]
    assert all(re.fullmatch(r"image \d+", name) for name in names)
    for name in names:
        assert page.get_by_role("button", name=f"Show {name}", exact=True).count() == 1
