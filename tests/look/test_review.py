"""Review by keyboard: order, groups, undo, and that nobody is led."""

import numpy as np
import pytest
from drawn_collection import drawn_collection

from archiveprobe.look.collect.collection import Collection

STEPS = "review.steps.map((step) => step.positions)"
DECIDED = "[...store.get('corrections').values()].map((each) => [each.position, each.decision])"


def _drawn(count=120, **options):
    return drawn_collection(count, hostile=False, **options)


def _with(collection, **columns):
    return Collection(collection.meta, {**collection.columns, **columns}, collection.rows)


@pytest.fixture
def begun(page_file, open_page):
    """Open a page at its first step, the reviewer named."""

    def begin(collection, who="Amal"):
        page = open_page(page_file(collection))
        page.click("#tab-review")
        page.fill("input[name=who]", who)
        page.keyboard.press("Enter")
        page.locator(".review-figure").first.wait_for()
        return page

    return begin


def _press(page, keys):
    """Press keys one after another, each once the step before is there."""
    for key in keys:
        page.wait_for_function("!review.isBusy")
        page.keyboard.press(key)
    page.wait_for_function("!review.isBusy")


def _order(collection, others=False):
    """Order rows as the page has to: a second reading of the rule, with numpy."""
    columns = collection.columns
    label, suspect, answer = columns["label"], columns["suspect"], columns["answer:0"]
    of = columns["p:0"][np.arange(len(label)), np.maximum(label, 0)]
    sure = columns["p:0"][np.arange(len(label)), answer]
    doubted = (label >= 0) & np.isfinite(suspect)
    wrong = (label >= 0) & ~doubted & (answer != label)
    rest = (label >= 0) & ~doubted & ~wrong
    parts = [(doubted, suspect), (wrong, -sure), *([(rest, of)] if others else [])]
    return [
        int(at)
        for mask, key in parts
        for at in np.flatnonzero(mask)[np.argsort(key[mask], kind="stable")]
    ]


def _steps(collection, order):
    """Put groups together where their first row stands."""
    label, group = collection.columns["label"], collection.columns["group"]
    steps, taken = [], set()
    for at in order:
        members = np.flatnonzero((group == group[at]) & (label >= 0)) if group[at] >= 0 else [at]
        step = [at, *(int(other) for other in members if other != at)]
        if at not in taken:
            steps.append(step)
        taken |= {*step}
    return steps


@pytest.mark.browser
@pytest.mark.parametrize("labels", [("intact", "destroyed"), ("a", "b", "c", "d")])
def test_order_is_that_of_suspicion(begun, labels) -> None:
    collection = _drawn(300, labels=labels)
    page = begun(collection)
    assert page.evaluate(STEPS) == _steps(collection, _order(collection))
    page.click(".review-settings-all > summary")
    page.get_by_label("then all other labelled images").check()
    everything = _order(collection, others=True)
    page.wait_for_function(f"{STEPS}.length === {len(_steps(collection, everything))}")
    assert page.evaluate(STEPS) == _steps(collection, everything)
    page.get_by_label("decide equal and near-equal images together").uncheck()
    page.wait_for_function(f"review.steps.length === {len(everything)}")
    assert page.evaluate(STEPS) == [[at] for at in everything]


@pytest.mark.browser
def test_review_from_start_to_end_by_keys_alone(page_file, open_page) -> None:
    collection = _drawn()
    page = open_page(page_file(collection))
    page.click("#tab-review")
    page.locator("input[name=who]").focus()
    page.keyboard.type("Amal k1")
    page.keyboard.press("Enter")
    page.locator(".review-figure").first.wait_for()
    steps = page.evaluate(STEPS)
    assert len(steps) > 4
    expected = {}
    table = collection.columns["table_label"]
    for number, step in enumerate(steps):
        assert page.locator(".review-figure").count() == len(step)
        left = len(steps) - number + number // 5
        assert f"{left} of {len(steps)}" in page.inner_text(".review-progress")
        key = "k12us"[number % 5]
        for at in step if key != "s" else []:
            same = key == "k" or (key in "12" and table[at] == int(key) - 1)
            expected[at] = "unsure" if key == "u" else "keep" if same else "change"
        _press(page, key)
    assert dict(page.evaluate(DECIDED)) == expected
    skipped = steps[4::5]
    stage = page.locator(".review-stage")
    assert f"Skipped: {len(skipped)}" in stage.inner_text()
    page.get_by_role("button", name="Go on").focus()
    page.keyboard.press("Enter")
    _press(page, "k" * len(skipped))
    assert "Nothing is left" in stage.inner_text()
    assert {at for step in steps for at in step} == {at for at, _ in page.evaluate(DECIDED)}
    # What is decided is not asked again, unless that is wanted.
    page.reload()
    page.click("#tab-review")
    page.wait_for_function("review.built")
    assert "Nothing is left" in stage.inner_text()
    page.click(".review-settings-all > summary")
    page.get_by_label("also those that are decided already").check()
    page.wait_for_function(f"review.steps.length === {len(steps)}")


@pytest.mark.browser
def test_group_is_decided_together_or_split(begun) -> None:
    collection = _drawn()
    label = collection.columns["label"].copy()
    label[40:44] = [0, 0, 1, 0]
    group, suspect = collection.columns["group"].copy(), collection.columns["suspect"].copy()
    group[:], suspect[:] = -1, np.nan
    group[[40, 41, 42, 43, 119]], suspect[41] = 3, 0.001
    collection = _with(collection, label=label, table_label=label, group=group, suspect=suspect)
    page = begun(collection)
    # Row 119 has no label: to predict, it is no matter of labels.
    assert page.evaluate(f"{STEPS}[0]") == [41, 40, 42, 43]
    assert page.locator(".review-figure").count() == 4
    _press(page, "2")
    kinds = {40: "change", 41: "change", 42: "keep", 43: "change"}
    assert dict(page.evaluate(DECIDED)) == kinds
    _press(page, "zg")
    assert page.evaluate(DECIDED) == []
    assert page.evaluate(f"{STEPS}.slice(0, 4)") == [[41], [40], [42], [43]]
    assert page.locator(".review-figure").count() == 1
    assert not page.locator("[data-action=split]").is_visible()
    _press(page, "1u")
    assert dict(page.evaluate(DECIDED)) == {41: "keep", 40: "unsure"}
    # Undo takes back both decisions and then the split itself.
    _press(page, "zzz")
    assert page.evaluate(f"{STEPS}[0]") == [41, 40, 42, 43]
    assert page.evaluate(DECIDED) == []
    # One image has one label: "keep" would leave two.
    assert "labels differ" in page.inner_text(".review-stage")
    _press(page, "k")
    assert page.evaluate(DECIDED) == []
    assert "labels differ" in page.inner_text(".review-news")
    _press(page, "1")
    assert len(page.evaluate(DECIDED)) == 4
    page.evaluate("review.again = true; reviewBuild()")
    page.wait_for_function("!review.isBusy && review.at === 0 && review.past.length === 0")
    assert "labels differ" not in page.inner_text(".review-stage")
    _press(page, "k")
    assert page.evaluate("review.at") == 1


@pytest.mark.browser
def test_undo_goes_back_over_several_steps(begun) -> None:
    page = begun(_drawn())
    first = page.evaluate("review.at")
    assert page.locator("[data-action=undo]").is_disabled()
    _press(page, "z")
    assert "nothing to undo" in page.inner_text(".review-news")
    _press(page, "ksu1")
    assert page.evaluate("review.at") == first + 4
    _press(page, "zz")
    assert page.evaluate("review.at") == first + 2
    _press(page, "zz")
    assert page.evaluate("review.at") == first
    assert page.evaluate(DECIDED) == []
    assert page.evaluate("localStorage.getItem('archiveprobe drawn')") == "[]"


@pytest.mark.browser
def test_next_image_is_blurred_again(begun) -> None:
    page = begun(_drawn())
    blurred = "[...document.images].every((i) => getComputedStyle(i).filter.includes('blur'))"
    assert page.locator("img.archive").count() > 0
    assert page.evaluate(blurred)
    _press(page, "v")
    assert page.evaluate("[...document.images].every((i) => getComputedStyle(i).filter === 'none')")
    _press(page, "k")
    assert page.locator("img.archive").count() > 0
    assert page.evaluate(blurred)
    _press(page, "vz")
    assert page.evaluate(blurred)


@pytest.mark.browser
def test_nobody_is_led_before_asking(begun) -> None:
    page = begun(_drawn())
    stage = page.locator(".review-stage")
    assert "system-0" not in stage.inner_text()
    assert "suspect" not in stage.inner_text()
    _press(page, "vp")
    assert "system-0 answers" in stage.inner_text()
    assert "finds this label suspect" in stage.inner_text()
    # The words changed, the image did not.
    assert page.locator("img.archive.shown").count() == page.locator("img.archive").count()
    _press(page, "p")
    assert "system-0" not in stage.inner_text()


@pytest.mark.browser
def test_person_can_stop_and_go_on(begun) -> None:
    page = begun(_drawn())
    _press(page, ["k", "Escape"])
    assert page.locator("#panel-review img").count() == 0
    assert "Every decision is kept" in page.inner_text(".review-stage")
    _press(page, "kk")
    assert page.evaluate("review.at") == 1
    page.get_by_role("button", name="Go on").click()
    page.locator(".review-figure").first.wait_for()
    assert page.evaluate("review.at") == 1


@pytest.mark.browser
def test_buttons_do_what_keys_do(begun) -> None:
    page = begun(_drawn())
    names = ["Keep the label", "Unsure", "Skip", "Undo", "Show or blur", "Keys"]
    for name in names:
        page.get_by_role("button", name=name).click()
        page.wait_for_function("!review.isBusy")
    assert page.evaluate("review.steps.slice(0, 3).map((step) => step.state)") == [
        "decided",
        "decided",
        "open",
    ]
    assert page.locator("img.archive.shown").count() > 0
    listed = page.locator(".review-keys tr")
    assert listed.first.is_visible()
    keys = {text.split("\t")[0].strip() for text in listed.all_inner_texts()}
    assert {"K", "U", "S", "Z", "V", "G", "P", "?", "Esc", "B"} <= keys
    for key, action in page.evaluate("Object.entries(REVIEW_KEYS)"):
        button = page.locator(f"[data-action={action}]")
        assert button.get_attribute("aria-keyshortcuts") == key


@pytest.mark.browser
def test_single_keys_can_be_turned_off(begun) -> None:
    page = begun(_drawn())
    page.click(".review-settings-all > summary")
    box = page.get_by_label("single keys act")
    box.uncheck()
    _press(page, "ku2b")
    assert page.evaluate(DECIDED) == []
    page.reload()
    page.click("#tab-review")
    page.locator(".review-figure").first.wait_for()
    _press(page, "k")
    assert page.evaluate(DECIDED) == []


@pytest.mark.browser
def test_what_the_gallery_shows_is_reviewed_in_its_order(begun) -> None:
    collection = _drawn()
    alone = np.flatnonzero(collection.columns["group"] < 0)
    # The last row has no label yet: keeping none is no decision, giving one is.
    chosen = [int(alone[5]), int(alone[2]), int(alone[-1])]
    page = begun(collection)
    page.evaluate("rows => store.set({ shown: Int32Array.from(rows) })", chosen)
    page.evaluate("reviewSelection()")
    page.wait_for_function("review.steps.length === 3")
    assert page.evaluate(STEPS) == [[at] for at in chosen]
    page.wait_for_function("!review.isBusy")
    _press(page, "kkk")
    assert "no label to keep" in page.inner_text(".review-news")
    assert len(page.evaluate(DECIDED)) == 2
    _press(page, "1")
    assert dict(page.evaluate(DECIDED))[chosen[2]] == "change"


@pytest.mark.browser
def test_bar_of_a_dialog_decides_and_takes_back(begun) -> None:
    collection = _drawn()
    group = collection.columns["group"]
    at = int(np.flatnonzero(group >= 0)[0])
    page = begun(collection)
    page.evaluate(
        """at => {
            const dialog = el('dialog', {}, el('input', { type: 'text' }), reviewBar(at));
            document.body.append(dialog);
            dialog.showModal();
        }""",
        at,
    )
    dialog = page.locator("dialog")
    dialog.get_by_label("and its equal and near-equal images").wait_for()
    dialog.locator("input[type=text]").first.focus()
    page.keyboard.press("u")
    assert page.evaluate(DECIDED) == []
    dialog.get_by_role("button", name="Unsure").click()
    page.wait_for_function(f"{DECIDED}.length > 1")
    assert {position for position, _ in page.evaluate(DECIDED)} == {
        int(other) for other in np.flatnonzero(group == group[at])
    }
    assert "unsure" in dialog.locator(".review-bar-news").inner_text()
    page.keyboard.press("z")
    page.wait_for_function(f"{DECIDED}.length === 0")
    dialog.get_by_label("and its equal and near-equal images").uncheck()
    page.keyboard.press("1")
    page.wait_for_function(f"{DECIDED}.length === 1")
    # Keys of the tab below do nothing meanwhile.
    assert page.evaluate("review.past.length") == 0


@pytest.mark.browser
def test_no_task_is_too_small_for_a_review(page_file, open_page) -> None:
    collection = drawn_collection(8, systems=0)
    page = open_page(page_file(collection))
    page.click("#tab-review")
    page.fill("input[name=who]", "Amal")
    page.keyboard.press("Enter")
    page.get_by_text("Nothing is left").wait_for()
    _press(page, ["k", "1", "z", "v", "p", "?", "Escape"])


@pytest.mark.browser
def test_rows_that_do_not_come_leave_the_step_as_it_is(begun) -> None:
    page = begun(_drawn())
    page.evaluate(
        "window.rows = data.rows; data.rows = async () => { throw new Error('no answer') }; 0"
    )
    _press(page, "k")
    assert "no answer" in page.inner_text(".review-news")
    assert page.evaluate("review.at") == 0
    assert page.evaluate(DECIDED) == []
    page.evaluate("data.rows = window.rows; 0")
    _press(page, "k")
    assert page.evaluate("review.at") == 1
    assert page.inner_text(".review-news") == ""


@pytest.mark.browser
def test_many_labels_have_buttons_and_ten_have_keys(begun) -> None:
    labels = tuple(f"label {number}" for number in range(12))
    page = begun(_drawn(150, labels=labels))
    buttons = page.locator("[data-action=label]")
    assert buttons.count() == 12
    keys = [buttons.nth(number).get_attribute("aria-keyshortcuts") for number in range(12)]
    assert keys == [*"1234567890", None, None]
    _press(page, "0")
    buttons.nth(11).click()
    page.wait_for_function("!review.isBusy")
    said = page.evaluate("[...store.get('corrections').values()].map((each) => each.label)")
    assert {*said} == {"label 9", "label 11"}
