"""The data tab: what could not be read, groups, suspects, shortcuts and shift, as they are."""

from dataclasses import replace

import numpy as np
import pytest
from drawn_collection import drawn_collection

pytestmark = pytest.mark.browser
SHORTCUT = {
    "name": "<b>bytes</b>",
    "macro_f1": 0.7,
    "low": 0.65,
    "high": 0.75,
    "chance": 0.5,
    "flagged": True,
}
SHIFT = {
    "auc": 0.8,
    "low": 0.7,
    "high": 0.9,
    "properties": [{"name": "width", "auc": 0.8, "labelled": 640.0, "to_predict": 1280.0}],
    "examples": {"labelled": [0, 1], "to_predict": [150, 151]},
}


def opened(page_file, open_page, **data):
    collection = drawn_collection(200)
    status = collection.columns["status"]
    counts = {
        name: int((status == at).sum())
        for at, name in enumerate(collection.meta["statuses"])
        if at and (status == at).any()
    }
    meta = dict(collection.meta)
    meta["data"] = {**meta["data"], "unreadable": counts, **data}
    collection = replace(collection, meta=meta)
    page = open_page(page_file(collection))
    page.click("#tab-data")
    page.wait_for_selector("#data-shift")
    return page, collection


def shown(page) -> list[int]:
    page.wait_for_function("store.get('tab') === 'images' && store.get('shown').length > 0")
    return page.evaluate("Array.from(store.get('shown'))")


def test_every_reason_opens_exactly_its_rows(page_file, open_page) -> None:
    page, collection = opened(page_file, open_page)
    status = collection.columns["status"]
    for name in collection.meta["data"]["unreadable"]:
        at = collection.meta["statuses"].index(name)
        page.click("#tab-data")
        page.get_by_role("row", name=name).get_by_role("button").click()
        page.wait_for_function("(at) => store.get('filter').status?.[0] === at", arg=at)
        page.wait_for_function(
            "(n) => store.get('shown').length === n", arg=int((status == at).sum())
        )
        assert sorted(shown(page)) == np.flatnonzero(status == at).tolist()


def test_groups_with_differing_labels_stand_first(page_file, open_page) -> None:
    page, collection = opened(page_file, open_page)
    group, label = collection.columns["group"], collection.columns["label"]
    pairs = page.evaluate(
        "async () => groupsOf(await data.column('group'), await data.column('label'))"
    )
    assert [set(group[pair["positions"]]) for pair in pairs] == [
        {group[pair["positions"][0]]} for pair in pairs
    ]
    assert sum(len(pair["positions"]) for pair in pairs) == int((group >= 0).sum())
    differ = [len({*label[pair["positions"]]} - {-1}) > 1 for pair in pairs]
    assert differ == sorted(differ, reverse=True)
    assert [pair["conflicting"] for pair in pairs] == differ
    assert page.locator(".data-group").count() == min(12, len(pairs))


def test_suspects_come_worst_first_with_their_reason(page_file, open_page) -> None:
    page, collection = opened(page_file, open_page)
    suspect = collection.columns["suspect"]
    known = np.flatnonzero(~np.isnan(suspect))
    worst = known[np.argsort(suspect[known], kind="stable")][:24]
    cards = page.locator(".data-cards > li")
    assert cards.count() == len(worst)
    first = cards.first.inner_text()
    assert f"{suspect[worst[0]]:.2f}" in first
    page.click(".data-section button.primary")
    assert page.get_attribute("#tab-review", "aria-selected") == "true"


def test_shortcuts_and_shift_are_said_with_examples(page_file, open_page) -> None:
    page, _ = opened(page_file, open_page, shortcuts=[SHORTCUT], shift=SHIFT)
    text = page.inner_text("#panel-data")
    assert "<b>bytes</b>" in text
    assert "0.700 [0.650, 0.750]" in text
    assert "tells the labels" in text
    assert "AUC 0.800 [0.700, 0.900]" in text
    assert page.locator(".data-sides [data-position='150']").count() >= 1


def test_what_was_not_looked_for_is_said(page_file, open_page) -> None:
    page, _ = opened(page_file, open_page, shortcuts=None, shift=None)
    assert page.inner_text("#panel-data").count("This was not looked for.") == 2
