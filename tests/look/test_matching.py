"""Filters, sorts and points of the map, computed in a browser, against numpy on drawn columns."""

from typing import Any

import numpy as np
import pytest

from archiveprobe.look import page as look_page

pytestmark = pytest.mark.browser
STATIC = look_page._HERE / "static"
LABELS, SPLITS, STATUSES, GROUPS = 3, 2, 4, 5
TYPES = {"int8": "Int8Array", "int16": "Int16Array", "int32": "Int32Array"} | {
    "float32": "Float32Array",
    "float64": "Float64Array",
    "uint8": "Uint8Array",
}
BUILD = """
(given) => {
  const made = { ...given.plain };
  for (const [name, [type, values]] of Object.entries(given.arrays)) {
    made[name] = globalThis[type].from(values, (value) => (value === null ? NaN : value));
  }
  return made;
}
"""


@pytest.fixture(scope="module")
def pure(browser: Any) -> Any:
    """Open an empty page with the pure scripts only."""
    page = browser.new_page()
    for name in ("matching", "map_points"):
        page.add_script_tag(content=(STATIC / f"{name}.js").read_text("utf-8"))
    page.add_script_tag(content=f"const build = {BUILD};")
    yield page
    page.close()


def given(plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Write arrays as JSON; NaN is null there."""
    lists = {
        name: (
            TYPES[array.dtype.name],
            [None if value != value else value for value in array.ravel().tolist()],
        )
        for name, array in arrays.items()
    }
    return {"plain": plain, "arrays": lists}


def drawn_columns(seed: int, classes: int = LABELS) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Draw columns with ties, missing values and every value of every facet."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 90))
    scores = rng.integers(0, 6, (n, classes)) / 5 + 1e-9
    scores[rng.random(n) < 0.1] = np.nan
    arrays = {
        "label": rng.integers(-1, classes, n).astype(np.int8),
        "answer": rng.integers(-1, classes, n).astype(np.int8),
        "scores": scores,
        "split": rng.integers(-1, SPLITS, n).astype(np.int8),
        "status": rng.integers(0, STATUSES, n).astype(np.int16),
        "group": rng.integers(-1, GROUPS, n).astype(np.int32),
        "suspect": np.where(rng.random(n) < 0.5, np.nan, rng.integers(0, 4, n) / 4).astype("f4"),
        "corrected": rng.integers(0, 2, n).astype(np.uint8),
    }
    if rng.random() < 0.3:
        arrays["text"] = rng.integers(0, 2, n).astype(np.uint8)
    if rng.random() < 0.3:
        arrays["lasso"] = rng.integers(0, 2, n).astype(np.uint8)
    if rng.random() < 0.5:
        similar = rng.integers(-2, 3, n) / 2
        arrays["ranking"] = np.where(rng.random(n) < 0.4, np.nan, similar).astype(np.float32)
    return {"n": n, "classes": classes, "positive": int(rng.integers(classes))}, arrays


def drawn_filter(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, 1])
    chosen: dict[str, Any] = {}
    sizes = {"label": LABELS, "answer": LABELS, "split": SPLITS, "status": STATUSES}
    for name, size in sizes.items():
        if rng.random() < 0.4:
            kept = rng.choice(np.arange(-1, size), rng.integers(1, size + 1), replace=False)
            chosen[name] = kept.tolist()
    if rng.random() < 0.3:
        chosen["outcome"] = str(rng.choice(["right", "wrong"]))
    if rng.random() < 0.3:
        chosen["group"] = "any" if rng.random() < 0.5 else int(rng.integers(GROUPS))
    for name in ("suspect", "corrected"):
        if rng.random() < 0.2:
            chosen[name] = True
    return chosen


def passes(columns: dict[str, np.ndarray], chosen: dict[str, Any]) -> dict[str, np.ndarray]:
    """Say for every part in use which rows pass it."""
    parts = {
        name: np.isin(columns[name], chosen[name])
        for name in ("label", "answer", "split", "status")
        if name in chosen
    }
    known = (columns["label"] >= 0) & (columns["answer"] >= 0)
    if "outcome" in chosen:
        right = columns["label"] == columns["answer"]
        parts["outcome"] = known & (right if chosen["outcome"] == "right" else ~right)
    if "group" in chosen:
        is_any = chosen["group"] == "any"
        group = columns["group"]
        parts["group"] = group >= 0 if is_any else group == chosen["group"]
    if "suspect" in chosen:
        parts["suspect"] = ~np.isnan(columns["suspect"])
    if "corrected" in chosen:
        parts["corrected"] = columns["corrected"] == 1
    for name in ("text", "lasso"):
        if name in columns:
            parts[name] = columns[name] == 1
    if "ranking" in columns:
        parts["ranking"] = ~np.isnan(columns["ranking"])
    return parts


def keys_of(plain: dict[str, Any], columns: dict[str, np.ndarray], by: str) -> np.ndarray:
    n = plain["n"]
    label, answer, scores = columns["label"], columns["answer"], columns["scores"]
    if by == "score":
        return scores[:, plain["positive"]].astype("f4")
    if by == "suspicion":
        return 1 - columns["suspect"]
    if by == "similarity":
        return columns["ranking"]
    if by == "table":
        return -np.arange(n, dtype="f4")
    sure = np.where(answer >= 0, scores[np.arange(n), answer], np.nan)
    wrong, predicted = label != answer, label < 0
    return np.where(predicted, 1 - sure, np.where(wrong, 4 + sure, 3 - sure)).astype("f4")


def expected_order(keys: np.ndarray, rows: np.ndarray, descending: bool) -> np.ndarray:
    """Sort stably, NaN last both ways."""
    values = keys[rows]
    values = -values if descending else values
    return rows[np.argsort(np.where(np.isnan(values), np.inf, values), kind="stable")]


@pytest.mark.parametrize("seed", range(40))
def test_matching_is_what_numpy_finds(pure: Any, seed: int) -> None:
    plain, columns = drawn_columns(seed)
    chosen = drawn_filter(seed)
    parts = passes(columns, chosen)
    rows = np.flatnonzero(np.logical_and.reduce([np.full(plain["n"], True), *parts.values()]))
    sorts = ["mistake", "score", "suspicion", "table"] + ["similarity"] * ("ranking" in columns)
    for by in sorts:
        for descending in (True, False):
            found = pure.evaluate(
                "([columns, filter, sort]) => Array.from(matching("
                "{ text: null, lasso: null, ranking: null, ...build(columns) }, filter, sort))",
                [given(plain, columns), chosen, {"by": by, "descending": descending}],
            )
            keys = keys_of(plain, columns, by)
            order = expected_order(keys, rows, descending != (by == "table"))
            assert found == order.tolist(), (by, descending)


@pytest.mark.parametrize("seed", range(15))
def test_counts_are_those_of_the_rows_that_pass_the_other_parts(pure: Any, seed: int) -> None:
    plain, columns = drawn_columns(seed)
    chosen = drawn_filter(seed)
    parts = passes(columns, chosen)
    found = pure.evaluate(
        "([columns, filter]) => { const built = build(columns);"
        " const all = { text: null, lasso: null, ranking: null, ...built };"
        " const failures = failuresOf(all, filter);"
        " return { status: Array.from(tally(built.status, failures, bitOf('status'), 4)),"
        "   alone: Object.fromEntries("
        "     PARTS.map((part) => [part, countPassing(failures, part)])) }; }",
        [given(plain, columns), chosen],
    )
    others = [mask for part, mask in parts.items() if part != "status"]
    rows = np.logical_and.reduce([np.full(plain["n"], True), *others])
    assert found["status"] == np.bincount(columns["status"][rows] + 1, minlength=5).tolist()
    for part, mask in parts.items():
        assert found["alone"][part] == mask.sum()


@pytest.mark.parametrize("seed", range(10))
def test_answers_follow_the_threshold(pure: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.integers(0, 11, 50) / 10
    p[rng.random(50) < 0.1] = np.nan
    stored = rng.integers(-1, 2, 50).astype(np.int8)
    for positive in (0, 1):
        scores = np.stack([1 - p, p], 1)
        arrays = given({}, {"scores": scores, "stored": stored})
        for threshold in (0.0, 0.5, 0.7, None):
            found = pure.evaluate(
                "([arrays, positive, threshold]) => { const { scores, stored } = build(arrays);"
                " return Array.from(answersAt(scores, 2, positive, threshold ?? NaN, stored)); }",
                [arrays, positive, threshold],
            )
            above = scores[:, positive] > (0 if threshold is None else threshold)
            moved = np.where(np.isnan(p), stored, np.where(above, positive, 1 - positive))
            assert found == (stored if threshold is None else moved).tolist()


@pytest.mark.parametrize("seed", range(12))
def test_lasso_marks_exactly_the_points_inside(pure: Any, seed: int) -> None:
    from matplotlib.path import Path as Outline

    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 1, (2, 400)).astype("f4")
    x[::17] = np.nan
    angles = np.sort(rng.random(rng.integers(3, 60))) * 2 * np.pi
    radii = rng.uniform(0.3, 2, len(angles))
    outline = np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
    found = pure.evaluate(
        "([arrays, outline]) => { const { x, y } = build(arrays);"
        " return Array.from(insideOutline(x, y, outline, null)); }",
        [given({}, {"x": x, "y": y}), outline.tolist()],
    )
    inside = Outline(np.vstack([outline, outline[:1]]), closed=True).contains_points(
        np.nan_to_num(np.stack([x, y], 1), nan=99)
    )
    assert 0 < inside.sum() < 400
    assert found == inside.astype(int).tolist()


@pytest.mark.parametrize("seed", range(8))
def test_nearest_and_next_point(pure: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 30, (2, 200)).astype("f4")
    x[::13] = np.nan
    allowed = (rng.random(200) < 0.7).astype(np.uint8)
    place, start = rng.random(2) * 30, 1
    found = pure.evaluate(
        "([arrays, place, start]) => { const { x, y, allowed } = build(arrays);"
        " const next = (way) => nextPoint(x, y, start, way, allowed);"
        " return { near: nearestPoint(x, y, ...place, 5, allowed),"
        "          none: nearestPoint(x, y, 500, 500, 5, allowed),"
        "          right: next([1, 0]), up: next([0, -1]) }; }",
        [given({}, {"x": x, "y": y, "allowed": allowed}), place.tolist(), start],
    )
    distance = np.where(allowed == 1, np.hypot(x - place[0], y - place[1]), np.nan)
    assert found["none"] == -1
    assert found["near"] == (np.nanargmin(distance) if np.nanmin(distance) <= 5 else -1)
    for name, ahead, aside in (
        ("right", x - x[start], np.abs(y - y[start])),
        ("up", y[start] - y, np.abs(x - x[start])),
    ):
        is_there = (ahead > 0) & (aside <= ahead) & (allowed == 1)
        far = np.where(is_there, ahead**2 + aside**2, np.inf)
        assert found[name] == (far.argmin() if np.isfinite(far).any() else start)


def test_points_are_painted_where_they_lie(pure: Any) -> None:
    x, y = np.float32([0, 10, np.nan, 5]), np.float32([0, 10, 3, 5])
    found = pure.evaluate(
        "(arrays) => { const { x, y, kinds } = build(arrays);"
        " const pixels = new Uint32Array(32 * 32);"
        " const points = { x, y, kinds, colours: Uint32Array.of(7, 8, 9) };"
        " paintPoints(pixels, 32, 32, points, { x: -1, y: -1, scale: 2 }, 1);"
        " return [...pixels.entries()].filter(([, value]) => value); }",
        given({}, {"x": x, "y": y, "kinds": np.uint8([0, 1, 2, 2])}),
    )
    assert found == [[2 * 32 + 2, 7], [12 * 32 + 12, 9], [22 * 32 + 22, 8]]


def test_whole_view_and_zoom_keep_their_promises(pure: Any) -> None:
    x, y = np.float32([-2, 6, np.nan]), np.float32([1, 3, 9])
    view = pure.evaluate(
        "(arrays) => { const { x, y } = build(arrays); return wholeView(x, y, 400, 300, 16); }",
        given({}, {"x": x, "y": y}),
    )
    across = (x[:2] - view["x"]) * view["scale"]
    along = (np.float32([1, 9]) - view["y"]) * view["scale"]
    assert across.min() >= 15.9 and across.max() <= 384.1
    assert along.min() >= 15.9 and along.max() <= 284.1
    zoomed = pure.evaluate("(view) => zoomedView(view, 3, { x: 50, y: 70 })", view)
    for axis, at in (("x", 50), ("y", 70)):
        place = view[axis] + at / view["scale"]
        assert (place - zoomed[axis]) * zoomed["scale"] == pytest.approx(at)


def test_a_million_rows_are_matched_and_sorted(pure: Any) -> None:
    """The order is right at that size too; how long it took is for the benchmarks."""
    found = pure.evaluate(
        "() => { const n = 1e6; const scores = new Float64Array(2 * n);"
        " const label = new Int8Array(n);"
        " for (let row = 0; row < n; row += 1) {"
        "   scores[2 * row + 1] = ((row * 7919) % 104729) / 104729; label[row] = row % 2; }"
        " const columns = { n, classes: 2, positive: 1, label, answer: label, scores,"
        "   suspect: null, text: null, lasso: null, ranking: null };"
        " const sort = { by: 'score', descending: true };"
        " const order = matching(columns, { label: [1] }, sort);"
        " let ordered = true;"
        " for (let at = 1; at < order.length; at += 1) {"
        "   const [a, b] = [order[at - 1], order[at]]"
        "     .map((row) => Math.fround(scores[2 * row + 1]));"
        "   if (a < b || (a === b && order[at - 1] > order[at])) ordered = false;"
        " }"
        " return [order.length, ordered, order.every((row) => row % 2 === 1)]; }"
    )
    assert found == [500_000, True, True]
