"""Folds are cut when every image was seen; near-duplicates that come later join their folds."""

import io

import numpy as np
import pytest
from PIL import Image
from shelf import LABELS, Shelf, image, near

from archiveprobe.probe.audit.run import run_audit
from archiveprobe.task.decoding import decode
from archiveprobe.task.duplicates import NEAR_BITS

ORIGINALS = 40


def straddling(shelf: Shelf, pairs: dict[str, str]) -> list[str]:
    fold = shelf.fold_of()
    return [one for one, other in pairs.items() if fold[one] != fold[other]]


@pytest.mark.proves("leaks")
@pytest.mark.parametrize("in_the_table", [True, False], ids=["files later", "rows later"])
def test_re_posts_that_arrive_for_the_second_run(shelf: Shelf, in_the_table: bool) -> None:
    """Forty images and forty copies whose files come after the first run."""
    shelf.lines.clear()
    shelf.fill(labelled=ORIGINALS, to_predict=0)
    copies = {f"copy-{at:03}.png": f"{at:03}.png" for at in range(ORIGINALS)}
    if in_the_table:
        for copy, name in copies.items():
            shelf.put(copy, shelf.lines[name].label, None)
    shelf.embed()
    shelf.probe()
    for copy, name in copies.items():
        shelf.put(copy, shelf.lines[name].label, shelf.lines[name].content)
    shelf.embed()
    assert straddling(shelf, copies) == []
    board = shelf.probe(kind="knn")
    assert board["warnings"] == []
    # With a copy on the other side, one neighbour would know nearly every answer.
    [line] = board["leaderboard"]
    alone = shelf.copied(shelf.folder.parent / "alone")
    for copy in copies:
        alone.drop(copy)
    alone.embed()
    [without] = alone.probe(kind="knn")["leaderboard"]
    assert line["macro_f1"] < without["macro_f1"] + 0.1
    assert not run_audit(shelf.task, apply=True).regrouped


def test_near_duplicates_of_rows_that_were_to_predict(shelf: Shelf) -> None:
    """A row that gets its label later joins the fold of what it looks like, without embed."""
    shelf.put("near.png", "", near(shelf.lines["003.png"].content))
    shelf.embed()
    shelf.probe()
    shelf.put("near.png", "destroyed", shelf.lines["near.png"].content)
    shelf.probe()
    assert straddling(shelf, {"near.png": "003.png"}) == []


@pytest.mark.proves("leaks")
def test_folds_wait_for_the_last_image(shelf: Shelf) -> None:
    from shelf import killed_embed

    assert killed_embed(shelf, 9)
    assert not (shelf.work / "folds.csv").exists()
    shelf.embed()
    assert set(shelf.fold_of()) == set(shelf.labels)


def chained() -> tuple[bytes, bytes, bytes]:
    """Two images that are no near-duplicates, and one in between that is one of both."""
    rng = np.random.default_rng(5)
    for seed in range(200):
        base = np.asarray(Image.open(io.BytesIO(image(700 + seed)))).astype(np.int64)
        step = np.kron(rng.integers(-14, 15, (6, 8, 1)), np.ones((6, 6, 1), np.int64))
        one, middle, other = (_png(base + times * step) for times in (-1, 0, 1))
        hashes = [int(decode(each).observation.phash, 16) for each in (one, middle, other)]
        apart = [(hashes[a] ^ hashes[b]).bit_count() for a, b in ((0, 1), (1, 2), (0, 2))]
        if max(apart[:2]) <= NEAR_BITS < apart[2]:
            return one, middle, other
    raise AssertionError("no such chain among 200")


def _png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.proves("leaks")
def test_an_image_that_links_two_groups_in_different_folds(shelf: Shelf) -> None:
    one, middle, other = chained()
    shelf.put("one.png", "destroyed", one)
    shelf.put("other.png", "destroyed", other)
    for seed in range(1, 40):
        # Until the cut happens to part the two.
        shelf.put(f"more-{seed}.png", LABELS[seed % 2], image(900 + seed))
        (shelf.work / "folds.csv").unlink(missing_ok=True)
        shelf.embed()
        if straddling(shelf, {"one.png": "other.png"}):
            break
    else:
        raise AssertionError("one and the other are never parted")
    assert "span" not in shelf.bench.text()
    assert not any("span" in warning for warning in shelf.probe()["warnings"])
    shelf.put("middle.png", "destroyed", middle)
    shelf.embed()
    said = "1 near-duplicate groups span several folds"
    command = f"run `archiveprobe audit {shelf.task.file} --apply`"
    assert said in shelf.bench.text() and command in shelf.bench.text()
    [warning] = [one for one in shelf.probe()["warnings"] if "span" in one]
    assert said in warning and command in warning
    # Nothing new, and said again all the same.
    shelf.embed()
    assert said in shelf.bench.text()
    assert run_audit(shelf.task, apply=True).regrouped
    assert straddling(shelf, {"one.png": "middle.png", "other.png": "middle.png"}) == []
    shelf.embed()
    assert "span" not in shelf.bench.text()
    assert not any("span" in warning for warning in shelf.probe()["warnings"])
