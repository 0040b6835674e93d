"""The tab of images in a real browser: filters, chips, threshold, gallery, one image, search."""

from typing import Any

import numpy as np
import pytest
from drawn_collection import drawn_collection

from archiveprobe.look.collect.collection import Collection

pytestmark = pytest.mark.browser
WHOLE_ID = """async (position) => {
  const [row] = await data.rows([position]);
  const place = document.querySelector("#image-dialog[open] .facts");
  return store.get("image") === position && place?.textContent.includes(row.id);
}"""
TOO_WIDE = """() => {
  const dialog = document.querySelector("#image-dialog");
  return dialog.scrollWidth - dialog.clientWidth;
}"""
FIRST = "Array.from(store.get('shown')).slice(0, 8)"


@pytest.fixture
def collection() -> Any:
    return drawn_collection(330, systems=2, views=3)


@pytest.fixture
def page(collection: Any, page_file: Any, open_page: Any) -> Any:
    return open_tab(open_page(page_file(collection)))


def open_tab(page: Any) -> Any:
    page.click("#tab-images")
    page.wait_for_selector(".gallery .tile")
    return page


def amount(page: Any) -> int:
    return int(page.evaluate("store.get('shown').length"))


def outcomes(collection: Any, threshold: float, system: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the answers at a threshold, and which rows are mistakes."""
    columns = collection.columns
    score = columns[f"p:{system}"][:, 1]
    stored = columns[f"answer:{system}"]
    answer = np.where(np.isnan(score), stored, score > threshold)
    return answer, (columns["label"] >= 0) & (answer != columns["label"])


def settle(page: Any) -> None:
    """Wait until the listing has followed the store."""
    page.evaluate("async () => { await updateListing(); }")


def test_text_is_found_in_all_cases_and_forms_of_unicode(page_file, open_page) -> None:
    drawn = drawn_collection(12, hostile=False)
    ids = ["Trümmer 1", "Tru\u0308mmer 2", "Straße_1", "STRASSE", "ΟΔΟΣ ΟΔΟΣΕΙΣ"]
    rows = [{**row, "id": id_} for row, id_ in zip(drawn.rows, ids, strict=False)]
    page = open_page(page_file(Collection(drawn.meta, drawn.columns, rows + list(drawn.rows[5:]))))
    texts = ["trümmer", "TRU\u0308MMER", "strasse", "STRAẞE", "οδοσ", "tru"]
    script = "async (texts) => (await Promise.all(texts.map(data.find))).map((found) => [...found])"
    found = [np.flatnonzero(each).tolist() for each in page.evaluate(script, texts)]
    assert found == [[0, 1], [0, 1], [2, 3], [2, 3], [4], []]


def test_mistakes_come_first_the_surest_first(page, collection) -> None:
    answer, wrong = outcomes(collection, 0.5)
    sureness = collection.columns["p:0"][np.arange(330), answer.astype(int)].astype("f4")
    rows = np.flatnonzero(wrong & ~np.isnan(sureness))
    expected = rows[np.argsort(-sureness[rows], kind="stable")]
    assert page.evaluate("Array.from(store.get('shown'))")[: len(expected)] == expected.tolist()
    tiles = page.locator(".gallery .tile")
    assert tiles.nth(0).get_attribute("data-position") == str(expected[0])
    words = tiles.nth(0).inner_text()
    names = ["intact", "destroyed"]
    for word in (
        names[collection.columns["label"][expected[0]]],
        names[int(answer[expected[0]])],
        f"{collection.columns['p:0'][expected[0], 1]:.3f}",
        ["train", "validation"][expected[0] % 2],
    ):
        assert word in words


def test_filters_are_chips_with_counts_and_can_be_removed(page, collection) -> None:
    columns = collection.columns
    _, wrong = outcomes(collection, 0.5)
    page.get_by_role("checkbox", name="wrong").check()
    page.wait_for_selector(".chip[data-part=outcome]")
    assert amount(page) == wrong.sum()
    page.get_by_role("group", name="Split").get_by_label("validation").check()
    page.wait_for_selector(".chip[data-part=split]")
    in_split = columns["split"] == 1
    assert amount(page) == (wrong & in_split).sum()
    assert page.inner_text(".chip[data-part=split] .chip-count") == str(in_split.sum())
    assert page.inner_text(".chip[data-part=outcome] .chip-count") == str(wrong.sum())
    assert page.inner_text(".images-amount") == f"Images: {(wrong & in_split).sum()} of 330"
    # A choice says how many rows it would give beside the other parts.
    train = page.get_by_role("group", name="Split").locator(".choice").nth(0)
    assert train.locator(".choice-count").inner_text() == str(
        (wrong & (columns["split"] == 0)).sum()
    )
    page.click(".chip[data-part=outcome]")
    page.wait_for_selector(".chip[data-part=outcome]", state="detached")
    assert amount(page) == in_split.sum()
    page.click(".chip[data-part=split]")
    page.wait_for_selector(".chip", state="hidden")
    assert amount(page) == 330


def test_marks_filter_duplicates_suspects_and_status(page, collection) -> None:
    columns = collection.columns
    expected = {
        "has near-duplicates": columns["group"] >= 0,
        "suspect label": ~np.isnan(columns["suspect"]),
        "truncated": columns["status"] == 1,
    }
    for name, mask in expected.items():
        box = page.get_by_role("checkbox", name=name)
        box.check()
        page.wait_for_selector(".chip")
        assert amount(page) == mask.sum() > 0, name
        box.uncheck()
        page.wait_for_selector(".chip", state="hidden")


def test_text_is_found_in_ids_and_captions(page, collection) -> None:
    for words in ("المطر", "PHOTO-00001", "<script>"):
        page.fill("#images-text", words)
        page.wait_for_function("words => store.get('filter').text === words", arg=words)
        settle(page)
        expected = [
            words.lower() in f"{row['id']}\n{row['text']}".lower() for row in collection.rows
        ]
        assert amount(page) == sum(expected) > 0
        assert words in page.inner_text(".chip[data-part=text]")
    page.fill("#images-text", "nothing is called this")
    page.wait_for_selector(".gallery-empty:not([hidden])")
    page.click(".gallery-empty button")
    page.wait_for_selector(".gallery .tile")


def test_threshold_moves_answers_and_outcomes_at_once(page, collection) -> None:
    for threshold in (0.2, 0.77):
        page.evaluate(
            "threshold => store.set({ threshold, filter: { outcome: 'wrong' } })", threshold
        )
        settle(page)
        assert amount(page) == outcomes(collection, threshold)[1].sum()
        assert f"{threshold:.3f}, where the slider stands" in page.inner_text(".answer-note")
    page.click(".answer-note button")
    settle(page)
    stored = collection.columns["answer:0"]
    label = collection.columns["label"]
    assert amount(page) == ((label >= 0) & (stored != label)).sum()
    assert "did not see the image" in page.inner_text(".answer-note")
    page.evaluate("store.set({ filter: {}, threshold: 0.5 })")
    page.focus("#images-threshold")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert page.evaluate("store.get('threshold')") == pytest.approx(0.51)


def test_a_cell_of_the_matrix_lists_its_images(page, collection) -> None:
    answer, _ = outcomes(collection, 0.5)
    page.evaluate("store.set({ filter: { label: [1], answer: [0] }, tab: 'images' })")
    settle(page)
    assert amount(page) == ((collection.columns["label"] == 1) & (answer == 0)).sum()
    assert page.locator(".chip[data-part]").count() == 2


def test_every_cell_of_the_results_opens_as_many_images_as_it_counts(page) -> None:
    page.evaluate("store.set({ lasso: new Uint8Array(330).fill(1, 0, 50) })")
    for threshold in ("0.5", "0.31", "NaN"):
        page.evaluate(f"store.set({{ threshold: {threshold}, tab: 'results' }})")
        page.wait_for_selector(".matrix .cell .count")
        for cell in range(4):
            page.click("#tab-results")
            words = page.locator(".matrix .cell .count").nth(cell).inner_text()
            page.locator(".matrix .cell").nth(cell).click()
            settle(page)
            assert amount(page) == int(words) > 0


def test_sorts_and_direction(page, collection) -> None:
    scores = collection.columns["p:0"][:, 1].astype("f4")
    keys = np.where(np.isnan(scores), -np.inf, scores)
    page.select_option("#images-sort", "score")
    settle(page)
    assert page.evaluate(FIRST) == np.argsort(-keys, kind="stable")[:8].tolist()
    page.get_by_role("button", name="Highest first").click()
    settle(page)
    keys = np.where(np.isnan(scores), np.inf, scores)
    assert page.evaluate(FIRST) == np.argsort(keys, kind="stable")[:8].tolist()
    page.select_option("#images-sort", "table")
    settle(page)
    assert page.evaluate(FIRST) == list(range(8))


def test_another_system_gives_other_answers(page, collection) -> None:
    page.select_option("#images-system", "1")
    page.evaluate("store.set({ filter: { outcome: 'wrong' } })")
    settle(page)
    assert amount(page) == outcomes(collection, 0.5, system=1)[1].sum()


def test_one_image_tells_all_that_is_known(page, collection) -> None:
    page.evaluate("openImage(40)")
    page.wait_for_selector("#image-dialog[open]")
    words = page.inner_text("#image-dialog")
    columns = collection.columns
    for system in (0, 1):
        assert f"{columns[f'p:{system}'][40, 1]:.3f}" in words
        for view in columns[f"views:{system}"][40]:
            assert f"{view:.3f}" in words
    for word in (collection.rows[40]["id"], "شارع بعد المطر", "640 × 480 px", "Near-duplicates: 2"):
        assert word in words
    near = page.locator("#image-dialog .near .tile")
    page.wait_for_selector("#image-dialog .near .tile")
    found = [int(box.get_attribute("data-position")) for box in near.all()]
    assert found == columns["near:0"][40].tolist()
    group = page.locator("#image-dialog .image-near section").first.locator(".tile")
    assert [box.get_attribute("data-position") for box in group.all()] == ["40", "41"]


def test_an_image_that_cannot_be_read_says_why(page, collection) -> None:
    broken = int(np.flatnonzero(collection.columns["status"] > 0)[0])
    page.evaluate("position => openImage(position)", broken)
    page.wait_for_selector("#image-dialog[open]")
    assert "the file ends early" in page.inner_text("#image-dialog")
    assert page.locator("#image-dialog .image-figure img").count() == 0


def test_similar_images_and_the_group_are_listed(page, collection) -> None:
    page.evaluate("openImage(40)")
    page.get_by_role("button", name="List them in the gallery").click()
    page.wait_for_selector(".chip[data-part=ranking]")
    columns = collection.columns
    near, similarity = columns["near:0"][40], columns["similarity:0"][40]
    expected = {40} | set(near.tolist())
    shown = page.evaluate("Array.from(store.get('shown'))")
    assert set(shown) == expected
    assert shown[0] == 40
    assert collection.rows[40]["id"] in page.inner_text(".chip[data-part=ranking]")
    assert shown[1] == int(near[np.argmax(np.where(near == 40, -1, similarity))])
    page.evaluate("openImage(40)")
    page.get_by_role("button", name="List the group in the gallery").click()
    page.wait_for_selector(".chip[data-part=group]")
    page.click(".chip[data-part=ranking]")
    settle(page)
    assert page.evaluate("Array.from(store.get('shown')).sort((a, b) => a - b)") == [40, 41]
    assert page.evaluate("store.get('sort').by") == "mistake"


def test_words_find_images(page, collection) -> None:
    page.select_option("#images-stored", label="a destroyed building · hog")
    page.wait_for_selector(".chip[data-part=ranking]")
    words = collection.columns["words:0:0"]
    assert page.evaluate(FIRST) == np.argsort(-words, kind="stable")[:8].tolist()
    assert "a destroyed building" in page.inner_text(".chip[data-part=ranking]")


def test_keyboard_alone_opens_moves_and_comes_back(page) -> None:
    order = page.evaluate("Array.from(store.get('shown'))")
    page.focus("#images-size")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.gallery-cell')"):
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#image-dialog[open]")
    assert page.evaluate("store.get('image')") == order[1]
    assert page.evaluate("document.activeElement.matches('.image-figure')")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("position => store.get('image') === position", arg=order[2])
    page.wait_for_function("document.querySelector('.image-place').textContent.startsWith('3 of')")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.image-place').textContent.startsWith('2 of')")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.image-place').textContent.startsWith('3 of')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#image-dialog[open]", state="hidden")
    focused = "document.activeElement.querySelector('.tile')?.dataset.position"
    # The browser gives the focus back to the image opened first; the close event moves it later.
    page.wait_for_function(f"position => {focused} === position", arg=str(order[2]))
    page.keyboard.press("End")
    assert page.evaluate(focused) == str(order[-1])
    page.keyboard.press("Home")
    assert page.evaluate(focused) == str(order[0])
    page.keyboard.press("ArrowDown")
    columns = page.evaluate("Number(document.querySelector('.gallery').ariaColCount)")
    assert page.evaluate(focused) == str(order[columns])


@pytest.mark.parametrize("is_late", [False, True])
def test_an_image_asked_for_while_another_closes_is_shown(page, is_late) -> None:
    page.evaluate("openImage(40)")
    page.wait_for_selector("#image-dialog[open]")
    page.evaluate(
        """async (isLate) => {
          const dialog = document.getElementById("image-dialog"), rows = data.rows;
          const closed = new Promise((resolve) => dialog.addEventListener("close", resolve));
          if (isLate) data.rows = async (asked) => { await closed; return rows(asked); };
          known.clear();
          dialog.close();
          openImage(41);
          await closed;
        }""",
        is_late,
    )
    page.wait_for_selector("#image-dialog[open]")
    assert page.evaluate("store.get('image')") == 41


def test_nothing_is_shown_or_enlarged_by_itself(page) -> None:
    blurred = (
        "[...document.querySelectorAll('img.archive')]"
        ".every((image) => getComputedStyle(image).filter.includes('blur'))"
    )
    page.hover(".gallery .tile >> nth=0")
    page.click("#images-map")
    page.evaluate("openImage(40)")
    page.wait_for_selector("#image-dialog .near .tile")
    assert page.evaluate(blurred)
    page.click("#image-dialog button:has-text('Enlarge')")
    assert page.evaluate(blurred)
    size = page.locator("#image-dialog .image-figure .care").bounding_box()
    assert size["width"] > 600
    page.locator("#image-dialog .image-figure").focus()
    page.keyboard.press("v")
    assert page.locator("img.archive.shown").count() == 1
    page.keyboard.press("ArrowRight")
    page.wait_for_function("!document.querySelector('img.archive.shown')")
    assert page.evaluate(blurred)


def test_corrections_of_this_session_can_be_listed(page) -> None:
    page.evaluate(
        "store.set({ corrections: new Map([['a', { id: 'a', decision: 'change', position: 5 }],"
        " ['b', { id: 'b', decision: 'keep', position: 6 }]]), filter: { corrected: true } })"
    )
    settle(page)
    assert page.evaluate("Array.from(store.get('shown'))") == [5]


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("language", ["en", "ar"])
def test_hostile_words_are_text_and_nothing_is_wider_than_the_window(
    collection, page_file, open_page, width, language
) -> None:
    collection.meta["labels"][0] = "<img src=x onerror=alert(1)> " + "ا" * 3_000
    page = open_tab(open_page(page_file(collection, language=language), width=width))
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) <= width
    page.evaluate(
        "store.set({ sort: { by: 'table', descending: false }, filter: { label: [0, 1] } })"
    )
    page.evaluate("store.set({ filter: { ...store.get('filter'), text: 'x'.repeat(9000) } })")
    settle(page)
    assert page.evaluate(wide) <= width
    page.evaluate("store.set({ filter: {} })")
    page.click("#images-map")
    settle(page)
    assert page.evaluate(wide) <= width
    for position in range(7, 330, 40):
        page.evaluate("position => openImage(position)", position)
        page.wait_for_function(WHOLE_ID, arg=position)
        dialog = page.locator("#image-dialog").bounding_box()
        assert dialog["x"] >= 0 and dialog["x"] + dialog["width"] <= width
        assert page.evaluate(TOO_WIDE) <= 0
        assert page.locator("#image-dialog script, #image-dialog img[onerror]").count() == 0
    assert page.evaluate(wide) <= width


def test_without_systems_the_table_is_listed(page_file, open_page) -> None:
    page = open_tab(open_page(page_file(drawn_collection(40, systems=0))))
    assert page.evaluate(FIRST) == list(range(8))
    assert "No system has answered yet" in page.inner_text(".answer-note")
    page.evaluate("openImage(3)")
    page.wait_for_selector("#image-dialog[open]")


def test_several_classes(page_file, open_page) -> None:
    collection = drawn_collection(60, labels=("a", "b", "c"))
    page = open_tab(open_page(page_file(collection)))
    columns = collection.columns
    page.evaluate("store.set({ filter: { outcome: 'wrong' } })")
    settle(page)
    assert (
        amount(page) == ((columns["label"] >= 0) & (columns["answer:0"] != columns["label"])).sum()
    )
    assert page.locator("#images-threshold").is_hidden()


def test_another_language_keeps_the_state(page) -> None:
    page.get_by_role("checkbox", name="wrong").check()
    page.wait_for_selector(".chip")
    before = amount(page)
    page.click("#language")
    page.wait_for_selector(".gallery .tile")
    assert page.locator(".chip").count() == 1
    page.evaluate("store.set({ filter: {} })")
    settle(page)
    assert amount(page) > before
    assert page.inner_text(".images-amount") == "الصور: \u2068330\u2069 من \u2068330\u2069"
