"""By keyboard, by ear, on a phone, on paper and from right to left; and nothing unblurred."""

from itertools import pairwise

import pytest
from drawn_collection import drawn_collection

# Every visible piece of text whose contrast with what lies below it is less than WCAG's AA.
PALE = """() => {
    const parse = (text) => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
        return text.startsWith('color(srgb') ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
    };
    const over = ([r, g, b, a], [x, y, z]) =>
        [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a), 1];
    const ground = (element) => {
        if (!element) return [255, 255, 255, 1];
        const colour = parse(getComputedStyle(element).backgroundColor);
        return colour[3] === 1 ? colour : over(colour, ground(element.parentElement));
    };
    const light = (colour) => {
        const [r, g, b] = colour.slice(0, 3).map((value) => value / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const pale = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const text = walker.currentNode.textContent.trim();
        if (!text || !element.checkVisibility() || element.closest('script, option, :disabled')) {
            continue;
        }
        // A mark whose shape says what its colour says.
        if (element.closest('svg, [aria-hidden=true]')) continue;
        const style = getComputedStyle(element), below = ground(element);
        const [one, other] = [light(over(parse(style.color), below)), light(below)];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        const size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        if (ratio < (isLarge ? 3 : 4.5)) pale.push([text.slice(0, 40), ratio.toFixed(2)]);
    }
    return pale;
}"""
# Whatever a screen reader could not name, and what is not where its reader expects it.
NAMELESS = """() => {
    const words = (id) => document.getElementById(id)?.textContent.trim();
    const labelled = (e) => e.getAttribute('aria-label')?.trim()
        || (e.getAttribute('aria-labelledby') ?? '').split(' ').some(words);
    const named = {
        'button, a, summary, [role=button], [role=tab]': (e) => e.textContent.trim() || labelled(e),
        'input, select, textarea, progress, meter':
            (e) => [...(e.labels ?? [])].some((each) => each.textContent.trim()) || labelled(e),
        'img': (e) => e.hasAttribute('alt'),
        'svg': (e) => labelled(e) || e.closest('[aria-hidden=true], button, a')
            || e.querySelector('title'),
        'canvas, dialog, [role=grid], [role=region], [role=group], section[tabindex], fieldset':
            (e) => labelled(e) || e.closest('[aria-hidden=true]') || e.querySelector('legend'),
        'th': (e) => e.textContent.trim() || labelled(e) || e.matches('thead *'),
    };
    const found = [];
    for (const [selector, test] of Object.entries(named)) {
        for (const element of document.body.querySelectorAll(selector)) {
            if (element.checkVisibility() && !test(element)) {
                found.push(element.outerHTML.slice(0, 120));
            }
        }
    }
    const ids = [...document.querySelectorAll('[id]')].map((element) => element.id);
    const ahead = document.querySelectorAll('[tabindex]:not([tabindex="0"], [tabindex="-1"])');
    return [...found, ...ids.filter((id, at) => ids.indexOf(id) !== at),
        ...[...ahead].map((element) => element.outerHTML.slice(0, 80))];
}"""
LEVELS = """() => [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')]
    .filter((element) => element.checkVisibility()).map((element) => Number(element.tagName[1]))"""
UNBLURRED = """() => [...document.querySelectorAll('img')].filter((image) =>
    !image.classList.contains('archive') || !getComputedStyle(image).filter.includes('blur')
    || !getComputedStyle(image).filter.includes('grayscale(1)')).map((image) => image.outerHTML)"""
FOCUS = """() => {
    const element = document.activeElement, style = getComputedStyle(element);
    const all = [...document.querySelectorAll('*')];
    const isSeen = (each) => each && parseFloat(getComputedStyle(each).outlineWidth) > 0
        && getComputedStyle(each).outlineStyle !== 'none';
    const at = element === document.body ? -1 : all.indexOf(element);
    const around = element.closest('[role=gridcell], .tile, label, figure');
    return { at, tag: element.outerHTML.slice(0, 90), isSeen: isSeen(element) || isSeen(around) };
}"""
COLLECTION = drawn_collection(120, labels=("intact", "destroyed"), views=3)


@pytest.fixture
def page(page_file, open_page):
    return open_page(page_file(COLLECTION))


def _tabs(page):
    """Show one tab after another, each as far as it goes by itself."""
    for tab in page.locator("[role=tab]").all():
        tab.click()
        name = tab.get_attribute("id").removeprefix("tab-")
        if name == "review" and page.locator("input[name=who]").is_visible():
            page.fill("input[name=who]", "Amal")
            page.keyboard.press("Enter")
        if name in ("review", "images"):
            page.locator(f"#panel-{name} img.archive").first.wait_for()
        yield name


@pytest.mark.proves("page")
@pytest.mark.browser
def test_nothing_is_unblurred_in_any_tab(page) -> None:
    seen = 0
    for media in ("screen", "print"):
        page.emulate_media(media=media)
        page.reload()
        page.emulate_media(media="screen")
        for _ in _tabs(page):
            page.emulate_media(media=media)
            assert page.evaluate(UNBLURRED) == []
            seen += page.locator("img.archive").count()
            page.emulate_media(media="screen")
    assert seen > 20
    # The image by itself, and the one after it.
    page.click("#tab-images")
    page.locator("#panel-images .tile-open").first.click()
    page.locator("dialog[open] img.archive").first.wait_for()
    assert page.evaluate(UNBLURRED) == []
    page.locator("dialog[open]").get_by_role("button", name="Next").click()
    assert page.evaluate(UNBLURRED) == []
    assert page.inner_text(".care-count").endswith(": 0")


@pytest.mark.browser
@pytest.mark.parametrize("language", ["en", "ar"])
def test_everything_has_a_name_and_enough_contrast(page, language) -> None:
    if language == "ar":
        page.click("#language")
    for name in _tabs(page):
        assert page.evaluate(NAMELESS) == [], name
        assert page.evaluate(PALE) == [], name


@pytest.mark.browser
def test_landmarks_and_headings_lead_through_the_page(page) -> None:
    for role in ("banner", "main", "contentinfo", "tablist"):
        assert page.get_by_role(role).count() == 1
    for name in _tabs(page):
        levels = page.evaluate(LEVELS)
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels)), (name, levels)
        assert page.get_by_role("tabpanel").count() == 1


@pytest.mark.browser
@pytest.mark.parametrize("tab", ["results", "review", "images", "data"])
def test_keyboard_goes_through_the_tab_in_order_and_is_seen(page, tab) -> None:
    for name in _tabs(page):
        if name == tab:
            break
    page.evaluate("document.activeElement.blur(); getSelection().removeAllRanges()")
    page.evaluate("document.body.prepend(el('button', { id: 'start' }, 'start'))")
    page.focus("#start")
    places = []
    for _ in range(150):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus["at"] < 0 or 'id="start"' in focus["tag"]:
            break
        assert focus["isSeen"], focus["tag"]
        places.append(focus["at"])
    assert len(places) > 8
    assert places == sorted(places)


@pytest.mark.browser
def test_skip_link_leads_past_the_header(page) -> None:
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate("document.activeElement.className")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'main'")


@pytest.mark.browser
@pytest.mark.parametrize("language", ["en", "ar"])
def test_phone_shows_all_without_scrolling_sideways(page_file, open_page, language) -> None:
    page = open_page(page_file(COLLECTION, language=language), width=360)
    for name in _tabs(page):
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, name
    assert page.inner_text("h1") == COLLECTION.meta["task"]
