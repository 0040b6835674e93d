"""The results tab: its figures are scikit-learn's, and all of it can be reached by the keyboard."""

import dataclasses

import numpy as np
import pytest
from drawn_collection import HOSTILE, drawn_collection
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

pytestmark = pytest.mark.browser
SLIDER = "#panel-results input[type=range]"


def with_meta(collection, **changes):
    return dataclasses.replace(collection, meta={**collection.meta, **changes})


def with_systems(collection, **changes):
    systems = [{**system, **changes} for system in collection.meta["systems"]]
    return with_meta(collection, systems=systems)


def with_ties(count=400, positive=1):
    """Draw scores on a grid of 0.05, so that every threshold of the grid meets exact ties."""
    collection = drawn_collection(count, hostile=False)
    p = np.round(collection.columns["p:0"].reshape(count, 2) * 20) / 20
    p[:, 0] = 1 - p[:, 1]
    columns = {**collection.columns, "p:0": p}
    return with_meta(dataclasses.replace(collection, columns=columns), positive=positive)


def truth_and_answers(collection, threshold, positive=1):
    label, stored = collection.columns["label"], collection.columns["answer:0"]
    score = collection.columns["p:0"].reshape(len(label), -1)[:, positive]
    answer = np.where(score > threshold, positive, 1 - positive)
    answer = np.where(np.isnan(score), stored, answer)
    return label[label >= 0], answer[label >= 0]


def expected_figures(truth, answer, positive):
    each = {"pos_label": positive, "zero_division": 0}
    return {
        "macro_f1": f1_score(truth, answer, average="macro", zero_division=0),
        "accuracy": accuracy_score(truth, answer),
        "balanced_accuracy": balanced_accuracy_score(truth, answer),
        "precision": precision_score(truth, answer, **each),
        "recall": recall_score(truth, answer, **each),
        "specificity": recall_score(truth, answer, pos_label=1 - positive, zero_division=0),
        "f1": f1_score(truth, answer, **each),
    }


def open_results(open_page, file, **options):
    page = open_page(file, **options)
    page.wait_for_selector("#panel-results .wide-chart svg")
    return page


def set_threshold(page, threshold):
    page.evaluate("(threshold) => store.set({ threshold })", threshold)


def shown_figures(page):
    return page.locator("#panel-results .figures .now").all_inner_texts()


def shown_counts(page):
    return [int(text) for text in page.locator("#panel-results .cell .count").all_inner_texts()]


@pytest.mark.parametrize("positive", [1, 0])
def test_figures_are_those_of_scikit_learn_at_every_threshold(page_file, open_page, positive):
    collection = with_ties(positive=positive)
    page = open_results(open_page, page_file(collection))
    assert np.isnan(collection.columns["p:0"]).any()
    for threshold in [-0.1, 0, *np.round(np.arange(1, 20) * 0.05, 2), 0.333, 0.9999, 1, 1.5]:
        set_threshold(page, float(threshold))
        truth, answer = truth_and_answers(collection, threshold, positive)
        expected = expected_figures(truth, answer, positive)
        exact = page.evaluate(
            """async ([threshold, positive]) => {
              const { ranking } = await results.modelOf(0, positive);
              return figures.ratesOf(figures.countsAt(ranking, threshold));
            }""",
            [float(threshold), positive],
        )
        assert exact == pytest.approx(expected, abs=1e-12)
        assert shown_figures(page) == [f"{value:.3f}" for value in expected.values()]
        assert shown_counts(page) == confusion_matrix(truth, answer, labels=[0, 1]).ravel().tolist()


def test_curves_are_those_of_scikit_learn(page_file, open_page):
    collection = with_ties()
    page = open_results(open_page, page_file(collection))
    curves = page.evaluate("async () => figures.curves((await results.modelOf(0, 1)).ranking)")
    score, label = collection.columns["p:0"][:, 1], collection.columns["label"]
    known = (label >= 0) & np.isfinite(score)
    truth, score = label[known], score[known]
    assert curves["precision"] == pytest.approx(average_precision_score(truth, score), abs=1e-12)
    assert curves["area"] == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    for recall, precision in curves["pr"]:
        same = [t for t in np.unique(score) if np.isclose((score[truth == 1] >= t).mean(), recall)]
        assert any(np.isclose(truth[score >= t].mean(), precision) for t in same)
    assert curves["roc"][0] == [0, 0]
    assert curves["roc"][-1] == [1, 1]


def test_histogram_and_calibration_count_every_row_once(page_file, open_page):
    collection = with_ties()
    page = open_results(open_page, page_file(collection))
    model = page.evaluate(
        "async () => { const { bins, ranking } = await results.modelOf(0, 1);"
        " return { bins, calibration: figures.calibration(ranking) }; }"
    )
    score, label = collection.columns["p:0"][:, 1], collection.columns["label"]
    known = np.isfinite(score)
    for name, mask in (("positive", label == 1), ("negative", label == 0), ("predict", label < 0)):
        assert sum(model["bins"][name]) == (mask & known).sum()
    low = (label >= 0) & known & (score < 0.1)
    first = model["calibration"][0]
    assert first["count"] == low.sum()
    assert first["mean"] == pytest.approx(score[low].mean())
    assert first["share"] == pytest.approx((label[low] == 1).mean())
    assert first["low"] <= first["share"] <= first["high"]


def test_slider_by_keyboard_alone(page_file, open_page):
    page = open_results(open_page, page_file(with_ties()))
    page.focus(SLIDER)
    at = "() => store.get('threshold')"
    for key, expected in (
        ("ArrowRight", 0.51),
        ("Shift+ArrowLeft", 0.509),
        ("PageDown", 0.409),
        ("Home", 0),
        ("ArrowLeft", 0),
        ("End", 1),
    ):
        page.keyboard.press(key)
        page.wait_for_function(f"Math.abs(store.get('threshold') - {expected}) < 1e-9")
    assert page.get_attribute(SLIDER, "aria-valuetext").startswith("1.000, Macro-F1 0.")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "threshold-number"
    page.keyboard.press("Control+A")
    page.keyboard.type("0.25")
    page.wait_for_function("store.get('threshold') === 0.25")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate(at) == 0.5
    assert page.locator("#panel-results .reset").is_disabled()


def test_every_cell_opens_exactly_its_images(page_file, open_page):
    collection = with_ties()
    page = open_results(open_page, page_file(collection))
    places = np.flatnonzero(collection.columns["label"] >= 0)
    set_threshold(page, 0.35)
    truth, answer = truth_and_answers(collection, 0.35)
    for at in range(4):
        page.evaluate("store.set({ tab: 'results' })")
        cell = page.locator("#panel-results .cell").nth(at)
        expected = places[(truth == at // 2) & (answer == at % 2)].tolist()
        assert int(cell.locator(".count").inner_text()) == len(expected)
        cell.focus()
        page.keyboard.press("Enter")
        assert page.evaluate("store.get('tab')") == "images"
        assert page.evaluate("document.activeElement.id") == "tab-images"
        page.wait_for_function(f"store.get('shown').length === {len(expected)}")
        assert sorted(page.evaluate("[...store.get('shown')]")) == expected


def test_slider_moves_the_gallery_too(page_file, open_page):
    collection = with_ties()
    page = open_results(open_page, page_file(collection))
    page.locator("#panel-results .cell").nth(1).click()
    for threshold in (0.2, 0.8):
        set_threshold(page, threshold)
        truth, answer = truth_and_answers(collection, threshold)
        page.wait_for_function(
            f"store.get('shown').length === {((truth == 0) & (answer == 1)).sum()}"
        )


def test_images_to_review_are_counted(page_file, open_page):
    collection = with_ties()
    page = open_results(open_page, page_file(collection))
    score, label = collection.columns["p:0"][:, 1], collection.columns["label"]
    lost = (np.isnan(score) & (label < 0)).sum()
    for threshold in (0.05, 0.6):
        set_threshold(page, threshold)
        words = page.inner_text("#panel-results .review")
        above = score > threshold
        assert f"{(above & (label < 0)).sum()} of {(label < 0).sum()} images to predict" in words
        assert f"{(above & (label >= 0)).sum()} of " in words
        assert f"without a score: {lost}" in words


def test_setting_for_recall_moves_the_slider_and_shows_nested_figures(page_file, open_page):
    page = open_results(open_page, page_file(with_ties()))
    row = page.locator("#panel-results .aims tbody tr")
    assert row.inner_text().split() == "Recall 0.95 0.200 0.940 [0.900, 0.970] 0.700 100".split()
    row.locator("button").press("Enter")
    assert page.evaluate("store.get('threshold')") == 0.2
    assert row.locator("button").get_attribute("aria-pressed") == "true"
    assert "0.940 [0.900, 0.970]" in page.inner_text("#panel-results .figures")
    set_threshold(page, 0.3)
    assert row.locator("button").get_attribute("aria-pressed") == "false"
    assert "0.940 [0.900, 0.970]" not in page.inner_text("#panel-results .figures")


def test_another_system_is_chosen_by_key_or_click(page_file, open_page):
    collection = drawn_collection(200, systems=3, hostile=False)
    collection.meta["systems"][2]["threshold"] = 0.61
    page = open_results(open_page, page_file(collection))
    assert page.inner_text("section.system h2") == "System system-0"
    page.locator("tr.system button.name").nth(2).press("Enter")
    page.wait_for_function(
        "document.querySelector('section.system h2').textContent.endsWith('system-2')"
    )
    assert page.evaluate("store.get('threshold')") == 0.61
    assert page.input_value("#threshold-number") == "0.61"
    page.locator("tr.system td.plot").nth(1).click()
    page.wait_for_function(
        "document.querySelector('section.system h2').textContent.endsWith('system-1')"
    )
    pressed = page.locator("tr.system button.name")
    assert [button.get_attribute("aria-pressed") for button in pressed.all()] == [
        "false",
        "true",
        "false",
    ]


def test_leaderboard_draws_what_the_command_prints(page_file, open_page):
    collection = drawn_collection(200, systems=3)
    board = collection.meta["board"]
    line = collection.meta["systems"][1]
    board |= {"best": "system-1", "reason": "the simplest", "selection": {**line, "macro_f1": 0.7}}
    page = open_results(open_page, page_file(collection))
    words = page.inner_text("#panel-results .board >> nth=0")
    interval = f"[{line['low']:.3f}, {line['high']:.3f}]"
    for expected in (f"{line['macro_f1']:.3f} {interval}", f"{line['optimistic']:.3f}", "0.390"):
        assert expected in words
    assert page.locator("tr.system").nth(1).locator(".tag").inner_text() == "recommended"
    assert page.locator("#panel-results .tag").count() == 1
    notes = page.inner_text("#panel-results .notes")
    assert "Recommended: system-1 (the simplest)" in notes
    assert board["warnings"][0] in notes
    differences = page.inner_text("#panel-results .board >> nth=1")
    assert "-0.020 [-0.050, 0.010]" in differences
    assert "cannot be told apart" in differences
    centres = page.locator("tr.system .strip .dot").evaluate_all(
        "dots => dots.map(dot => parseFloat(dot.getAttribute('cx')))"
    )
    scores = [system["macro_f1"] for system in collection.meta["systems"]]
    assert np.corrcoef(centres, scores)[0, 1] == pytest.approx(1, abs=1e-4)


def test_vote_keeps_its_own_answers_until_the_slider_moves(page_file, open_page):
    collection = with_systems(with_ties(), threshold=None, threshold_rule=None)
    label = collection.columns["label"]
    collection.columns["answer:0"][:] = np.where(label >= 0, np.arange(400) % 2, -1)
    page = open_results(open_page, page_file(collection))
    known = label >= 0
    votes = confusion_matrix(label[known], collection.columns["answer:0"][known]).ravel()
    assert shown_counts(page) == votes.tolist()
    page.focus(SLIDER)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("store.get('threshold') === 0.51")
    truth, answer = truth_and_answers(collection, 0.51)
    assert shown_counts(page) == confusion_matrix(truth, answer).ravel().tolist()
    page.locator("#panel-results .reset").click()
    assert shown_counts(page) == votes.tolist()


def test_several_labels_have_a_matrix_and_one_slider_each(page_file, open_page):
    labels = ("intact", "damaged", "destroyed")
    collection = drawn_collection(300, labels=labels, hostile=False)
    page = open_results(open_page, page_file(collection))
    label, answer = collection.columns["label"], collection.columns["answer:0"]
    known = label >= 0
    matrix = confusion_matrix(label[known], answer[known], labels=[0, 1, 2]).ravel().tolist()
    assert shown_counts(page) == matrix
    score = collection.columns["p:0"].reshape(300, 3)
    for target in (2, 0):
        page.select_option("#results-label", str(target))
        name = labels[target]
        page.wait_for_function(f"document.querySelector('.figures .of')?.textContent === '{name}'")
        set_threshold(page, 0.3)
        decided = np.where(np.isnan(score[:, target]), answer == target, score[:, target] > 0.3)[
            known
        ]
        truth = label[known] == target
        expected = expected_figures(truth.astype(int), decided.astype(int), 1)
        names = ("precision", "recall", "specificity", "f1")
        assert shown_figures(page) == [f"{expected[name]:.3f}" for name in names]
        assert shown_counts(page) == matrix
    rates = page.inner_text("#panel-results section.system")
    assert f"{f1_score(label[known], answer[known], average='macro'):.3f}" in rates


def test_page_without_systems_says_what_is_missing(page_file, open_page):
    collection = with_meta(drawn_collection(40, systems=0), board=None)
    page = open_page(page_file(collection))
    words = page.inner_text("#panel-results")
    assert "There is no system yet." in words
    assert "archiveprobe probe my/task.toml" in words
    copy = page.locator("#panel-results .command button")
    copy.press("Enter")
    page.wait_for_function(
        "document.getElementById('status').textContent || String(getSelection())"
    )


def test_page_of_systems_that_are_out_of_date_says_so(page_file, open_page):
    collection = with_meta(drawn_collection(40, systems=0), board=None, stored=2)
    words = open_page(page_file(collection)).inner_text("#panel-results")
    assert "No system is up to date." in words and "There is no system" not in words


def test_words_of_systems_are_in_the_language_of_the_page(page_file, open_page):
    drawn = drawn_collection(40)
    rules = [{"threshold_rule": "cost 5.0", "features": "12 systems"}, {"threshold_rule": "new 1"}]
    systems = [one | more for one, more in zip(drawn.meta["systems"], rules, strict=True)]
    page = open_page(page_file(with_meta(drawn, systems=systems)))
    words = page.inner_text("#panel-results table.board")
    assert "cost 5.0" in words and "systems: 12" in words and "new 1" in words
    page.click("#language")
    words = page.inner_text("#panel-results table.board")
    assert "cost" not in words and "systems" not in words and "كلفة" in words
    unknown = page.locator("#panel-results table.board [lang=en]")
    assert unknown.all_inner_texts() == ["new 1"] and unknown.get_attribute("dir") == "ltr"


def test_learning_curves_are_drawn_for_every_part(page_file, open_page):
    part = {"fold": 0, "kept": 2, "epoch": [1, 2, 3], "lr": [0.1] * 3, "loss": [0.9, 0.5, 0.4]}
    learning = [
        {**part, "system": "tuned", "part": "fold-0", "macro_f1": [0.5, 0.7, 0.6]},
        {**part, "system": "tuned", "part": "full", "fold": None, "macro_f1": [None] * 3},
    ]
    page = open_results(open_page, page_file(with_meta(drawn_collection(40), learning=learning)))
    page.wait_for_selector("#panel-results .line.full")
    assert page.locator("#panel-results .line.fold").count() == 2
    assert page.locator("#panel-results .line.full").count() == 1
    assert page.locator("#panel-results .dot.kept").count() == 3


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("language", ["en", "ar"])
def test_nothing_is_wider_than_the_page(page_file, open_page, width, language):
    labels = (HOSTILE[-2], "صورة مبنى مدمر " * 5)
    collection = drawn_collection(60, labels=labels)
    for name, system in zip((HOSTILE[-2], HOSTILE[0]), collection.meta["systems"], strict=True):
        system["name"] = name
    page = open_results(open_page, page_file(collection, language=language), width=width)
    assert page.evaluate("getComputedStyle(document.body).direction") == (
        "rtl" if language == "ar" else "ltr"
    )
    # In a page that runs from right to left, what is too wide leaves it on the left.
    wide = page.evaluate(
        """() => [...document.querySelectorAll("#panel-results *")].filter((element) => {
          const { left, right, width } = element.getBoundingClientRect();
          const cut = element.closest(".scroll, svg, button.name, .of, .legend bdi, .matrix bdi");
          return width && !cut && (right > innerWidth + 1 || left < -1);
        }).map((element) => `${element.tagName}.${element.className}`)"""
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_numbers_run_from_left_to_right_in_arabic(page_file, open_page):
    page = open_results(open_page, page_file(with_ties(), language="ar"))
    assert page.evaluate(f"getComputedStyle(document.querySelector('{SLIDER}')).direction") == "ltr"
    start = page.locator("tr.system th").first.bounding_box()["x"]
    assert start > page.locator("tr.system td.number").first.bounding_box()["x"]
    ticks = page.locator(".wide-chart .axis text").evaluate_all(
        "texts => texts.slice(0, 6).map((text) => text.getBoundingClientRect().x)"
    )
    assert ticks == sorted(ticks)


def test_every_chart_has_a_name_and_a_table(page_file, open_page):
    page = open_results(open_page, page_file(with_ties()))
    page.wait_for_selector("#panel-results .charts svg")
    for chart in page.locator("#panel-results svg.chart").all():
        assert chart.get_attribute("role") == "img"
        for about in ("aria-labelledby", "aria-describedby"):
            assert page.text_content(f"#{chart.get_attribute(about)}").strip()
    for details in page.locator("#panel-results details.numbers").all():
        details.locator("summary").press("Enter")
        details.locator("tbody tr").first.wait_for()
