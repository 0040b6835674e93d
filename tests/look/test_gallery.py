"""The gallery and the map with a million rows, and the map by pointer and by keyboard."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drawn_collection import drawn_collection

pytestmark = pytest.mark.browser
MILLION = """
() => {
  const n = 1_000_000;
  const kept = new Map();
  const make = {
    label: () => new Int8Array(n).map((_, row) => row % 3 - 1),
    "answer:0": () => new Int8Array(n).map((_, row) => row % 2),
    "p:0": () => new Float64Array(2 * n).map((_, at) => ((at * 7919) % 104729) / 104729),
    split: () => new Int8Array(n), status: () => new Int16Array(n),
    group: () => new Int32Array(n).fill(-1), suspect: () => new Float32Array(n).fill(NaN),
    "x:0": () => new Float32Array(n).map((_, row) => Math.sin(row) * (row % 1000)),
    "y:0": () => new Float32Array(n).map((_, row) => Math.cos(row * 1.7) * (row % 997)),
  };
  data.meta.count = n;
  data.column = async (name) => {
    if (!kept.has(name)) kept.set(name, make[name]());
    return kept.get(name);
  };
  data.rows = async (positions) => Array.from(positions, (position) => (
    { id: `photo-${position}.jpg`, path: "", text: "", detail: "", digest: "", observed: {} }));
  data.thumbnail = () => null;
  for (const name of Object.keys(data.meta.columns)) {
    if (!(name in make)) delete data.meta.columns[name];
  }
  data.meta.systems.length = 1;
}
"""
COUNT_TILES = """
() => {
  window.most = 0;
  const look = () => {
    window.most = Math.max(window.most, document.querySelectorAll(".tile").length);
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
}
"""


@pytest.fixture
def million(page_file: Any, open_page: Any) -> Any:
    page = open_page(page_file(drawn_collection(40, neighbours=0)))
    page.evaluate(MILLION)
    page.evaluate(COUNT_TILES)
    page.click("#tab-images")
    page.wait_for_selector(".gallery .tile")
    return page


def first_seen(page: Any) -> int:
    """Return the place in the list of the first tile that is wholly in sight, -1 before any is."""
    return int(
        page.evaluate(
            "(() => { const top = document.querySelector('.gallery').getBoundingClientRect().top;"
            " const seen = [...document.querySelectorAll('.gallery-cell')]"
            "   .filter((cell) => cell.getBoundingClientRect().top >= top - 1)"
            "   .map((cell) => Number(cell.dataset.index));"
            " return seen.length ? Math.min(...seen) : -1; })()"
        )
    )


def wait_until(page: Any, holds: Callable[[], bool]) -> None:
    """Wait for what needs several steps of the page, or several evaluations, to be seen."""
    for _ in range(300):
        if holds():
            return
        page.wait_for_timeout(100)
    assert holds()


def coloured(page: Any) -> int:
    """Return how many pixels of the map are drawn on.

    They are read from a copy: of one that is read again and again the browser warns.
    """
    return int(
        page.evaluate(
            "(() => { const c = document.querySelector('.map-canvas');"
            " const copy = new OffscreenCanvas(c.width, c.height)"
            "   .getContext('2d', { willReadFrequently: true });"
            " copy.drawImage(c, 0, 0);"
            " return copy.getImageData(0, 0, c.width, c.height).data"
            "   .filter((value, at) => at % 4 === 3 && value > 0).length; })()"
        )
    )


def test_a_million_tiles_keep_the_document_small(million) -> None:
    page = million
    assert page.evaluate("store.get('shown').length") == 1_000_000
    assert page.evaluate("document.querySelector('.gallery-ground').offsetHeight") <= 8_000_000
    columns = page.evaluate("Number(document.querySelector('.gallery').ariaColCount)")
    for share in (0.1, 0.5, 0.9):
        page.evaluate(
            "share => { const box = document.querySelector('.gallery');"
            " box.scrollTop = share * (box.scrollHeight - box.clientHeight); }",
            share,
        )
        place = pytest.approx(1_000_000 * share, rel=0.001, abs=3 * columns)
        wait_until(page, lambda place=place: first_seen(page) == place)
    before = first_seen(page)
    page.hover(".gallery")
    page.mouse.wheel(0, 300)
    wait_until(page, lambda: first_seen(page) > before)
    page.wait_for_timeout(300)
    # A small step of the wheel moves by a line or two, not by the scaled many.
    assert 0 < first_seen(page) - before <= 3 * columns
    page.select_option("#images-size", "small")
    page.locator(".gallery-cell[tabindex='0']").focus()
    page.keyboard.press("End")
    focused = "Number(document.activeElement.dataset.index)"
    assert page.evaluate(focused) == 999_999
    cell, box = (page.locator(name).bounding_box() for name in (":focus", ".gallery"))
    assert box["y"] <= cell["y"] and cell["y"] + cell["height"] <= box["y"] + box["height"] + 1
    page.keyboard.press("Home")
    assert page.evaluate(focused) == 0
    assert first_seen(page) == 0
    assert 20 < page.evaluate("window.most") <= 200


@pytest.mark.parametrize("width", [200, 360, 1280, 5000])
def test_layout_never_needs_more_than_200_tiles(page_file, open_page, width) -> None:
    page = open_page(page_file(drawn_collection(10)))
    for height in (300, 900, 3000):
        for wanted in (96, 144, 220):
            grid = page.evaluate(
                "room => gridLayout(room)",
                {"width": width, "height": height, "wanted": wanted, "count": 1_000_000},
            )
            seen = (math.ceil(height / grid["pitch"]) + 3) * grid["columns"]
            assert seen <= 200 or grid["columns"] == 1
            assert grid["columns"] * (grid["tile"] + 8) - 8 <= width
            assert grid["lines"] == math.ceil(1_000_000 / grid["columns"])


def test_a_million_points_are_drawn_and_selected(million) -> None:
    page = million
    page.click("#images-map")
    page.wait_for_function("document.querySelector('.map-canvas').width > 300")
    wait_until(page, lambda: coloured(page) > 1000)
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Select what is in sight").click()
    page.wait_for_selector(".chip[data-part=lasso]")
    assert 1000 < page.evaluate("store.get('shown').length") < 1_000_000
    assert page.evaluate("document.querySelectorAll('.tile').length") <= 200


@pytest.fixture
def map_page(page_file: Any, open_page: Any) -> tuple[Any, Any]:
    collection = drawn_collection(300, hostile=False)
    page = open_page(page_file(collection))
    page.evaluate("store.set({ map: true, tab: 'images' })")
    page.wait_for_selector(".gallery .tile")
    page.wait_for_function("document.querySelector('.map-canvas').width > 300")
    wait_until(page, lambda: coloured(page) > 0)
    return page, collection


def places(page: Any, collection: Any) -> np.ndarray:
    """Return where every row lies in the window: all are in sight, with a margin."""
    box = page.locator(".map-canvas").bounding_box()
    x, y = (collection.columns[name].astype(float) for name in ("x:0", "y:0"))
    low, high = (np.array([f(x), f(y)]) for f in (np.nanmin, np.nanmax))
    size = np.array([box["width"], box["height"]])
    scale = ((size - 32) / (high - low)).min()
    corner = (low + high - size / scale) / 2
    return (np.stack([x, y], 1) - corner) * scale + [box["x"], box["y"]]


def test_a_click_on_the_map_opens_the_nearest_image(map_page) -> None:
    page, collection = map_page
    at = places(page, collection)
    for row in (3, 44):
        click = at[row] + [2, -1]
        nearest = int(np.nanargmin(np.hypot(*(at - click).T)))
        page.mouse.click(*click)
        page.wait_for_selector("#image-dialog[open]")
        assert page.evaluate("store.get('image')") == nearest
        page.keyboard.press("Escape")
        page.wait_for_selector("#image-dialog[open]", state="hidden")
    page.mouse.move(*at[44])
    page.wait_for_selector(".map-preview .tile")
    assert page.locator(".map-preview img.archive.shown").count() == 0


def test_lasso_selects_exactly_the_points_inside(map_page) -> None:
    from matplotlib.path import Path as Outline

    page, collection = map_page
    at = places(page, collection)
    middle = np.nanmean(at, 0)
    corners = middle + np.array([[-90, -70], [100, -40], [60, 110], [0, 10], [-110, 60]])
    page.get_by_role("button", name="Select with a lasso").click()
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner)
    page.mouse.up()
    page.wait_for_selector(".chip[data-part=lasso]")
    outline = Outline(np.vstack([corners, corners[:1]]), closed=True)
    spots = np.nan_to_num(at, nan=-1e6)
    inside = outline.contains_points(spots)
    # The browser may round where the pointer is: beside the line a point may lie either way.
    clear = outline.contains_points(spots, radius=1.5) == outline.contains_points(
        spots, radius=-1.5
    )
    mask = np.array(page.evaluate("Array.from(store.get('lasso'))")) == 1
    assert (mask == inside)[clear].all()
    assert mask.sum() > 20
    assert clear.sum() > 280
    assert sorted(page.evaluate("Array.from(store.get('shown'))")) == np.flatnonzero(mask).tolist()
    page.click(".chip[data-part=lasso]")
    page.wait_for_function("store.get('lasso') === null")


def test_the_map_by_keyboard_alone(map_page) -> None:
    page, collection = map_page
    at = places(page, collection)
    page.focus(".map-canvas")
    page.keyboard.press("ArrowRight")
    box = page.locator(".map-canvas").bounding_box()
    centre = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    first = int(np.nanargmin(np.hypot(*(at - centre).T)))
    page.wait_for_selector(".map-preview .tile")
    preview = "Number(document.querySelector('.map-preview .tile').dataset.position)"
    assert page.evaluate(preview) == first
    page.keyboard.press("ArrowRight")
    second = page.evaluate(preview)
    assert at[second][0] > at[first][0]
    page.wait_for_function("document.getElementById('status').textContent.includes('photo-')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#image-dialog[open]")
    assert page.evaluate("store.get('image')") == second
    page.keyboard.press("Escape")
    page.wait_for_selector("#image-dialog[open]", state="hidden")
    assert page.evaluate("document.activeElement.matches('.map-canvas')")


@pytest.mark.parametrize("colouring", ["label", "answer", "outcome", "split"])
def test_legend_counts_what_is_drawn(map_page, colouring) -> None:
    page, collection = map_page
    columns = collection.columns
    page.select_option("#map-colour", colouring)
    on_map = ~np.isnan(columns["x:0"])
    known = on_map & (columns["label"] >= 0)
    answer = np.where(columns["status"] > 0, columns["answer:0"], columns["p:0"][:, 1] > 0.5)
    wrong = known & (answer != columns["label"])
    expected = {
        "label": {"intact": columns["label"] == 0, "destroyed": columns["label"] == 1},
        "answer": {"intact": answer == 0, "destroyed": answer == 1},
        "outcome": {"right": known & ~wrong, "wrong": wrong},
        "split": {"train": columns["split"] == 0, "test": columns["split"] == 2},
    }[colouring]
    words = page.inner_text(".map-legend")
    for name, mask in expected.items():
        assert f"{name} {(on_map & mask).sum()}" in words
    assert "PCA · explained variance 30.0 % + 10.0 %" in page.inner_text(".map-note")
    page.evaluate("store.set({ filter: { split: [0] } })")
    page.wait_for_function(
        "document.querySelector('.map-legend').textContent.includes('not in the list')"
    )
