"""Which cache counts: the one that the last embed used, for every command alike."""

import hashlib
from typing import Any

import numpy as np
import pytest
from shelf import Shelf, plain
from snapshots import current_cache

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.probe.audit.data import audit_data
from archiveprobe.probe.choice import Choice
from archiveprobe.probe.features import find_reader, load_features


def digest(weights: str) -> str:
    return hashlib.sha256(weights.encode()).hexdigest()


def used_by(shelf: Shelf) -> dict[str, Any]:
    """The weights behind what every reader takes up."""
    task = shelf.task
    dataset = load_dataset(task)
    of = {record.digest: record.fingerprint["weights"] for record in _records(shelf)}
    return {
        "probe": of[load_features(dataset, Choice(("eye",))).sources["eye"]],
        "start": find_reader(dataset, "eye").fingerprint["weights"],
        "audit": of[audit_data(dataset).sources["eye"]],
        "snapshot": current_cache(task, "eye").fingerprint["weights"],
    }


def _records(shelf: Shelf) -> list[Any]:
    from archiveprobe.cache.spec import find_caches

    return find_caches(shelf.work / "cache", "eye")


def everything(shelf: Shelf) -> dict[str, Any]:
    """Figures and answers of a shelf, to compare."""
    board = plain(shelf.probe())
    return {
        "probe": board,
        "submit": shelf.submission("ridge-eye"),
        "predict": shelf.prediction("ridge-eye"),
        "export": shelf.export()["eye"],
    }


@pytest.mark.proves("numbers")
def test_weights_replaced_again_and_again(shelf: Shelf, tmp_path) -> None:
    """By number of rows the first cache would win, and by the order of a hash any other."""
    shelf.weigh("eye", "first", mtime=1_000_000)
    shelf.embed()
    first = everything(shelf)
    assert set(used_by(shelf).values()) == {digest("first")}
    # The first cache has a row more than the others.
    gone = shelf.lines["014.png"]
    shelf.drop("014.png")
    for at, weights in enumerate(("second", "third", "fourth")):
        shelf.weigh("eye", weights)
        shelf.embed()
        assert shelf.states() == {"ridge-eye": "out of date: the cache of eye"}
        for answer in (shelf.submission, shelf.prediction):
            with pytest.raises(InputError, match=r"out of date \(the cache of eye changed"):
                answer("ridge-eye")
        assert set(used_by(shelf).values()) == {digest(weights)}
        found, fresh = everything(shelf), everything(shelf.fresh(tmp_path / f"fresh-{at}"))
        np.testing.assert_array_equal(found.pop("export"), fresh.pop("export"))
        assert found == fresh
        assert found["predict"] != first["predict"]
        assert shelf.states() == {"ridge-eye": "ok"}
        assert len(_records(shelf)) == at + 2
    # Back to the first ones, with a date of their own.
    shelf.put("014.png", gone.label, gone.content)
    shelf.weigh("eye", "first")
    shelf.embed()
    assert shelf.bench.crops == 0
    assert set(used_by(shelf).values()) == {digest("first")}
    found = everything(shelf)
    np.testing.assert_array_equal(found.pop("export"), first.pop("export"))
    assert found == first


@pytest.mark.proves("state")
@pytest.mark.parametrize("mtime", [None, 1_000_000], ids=["another date", "the old date"])
def test_old_systems_are_ok_again_with_their_weights(shelf: Shelf, mtime: int | None) -> None:
    shelf.weigh("eye", "first", mtime=1_000_000)
    shelf.embed()
    shelf.probe()
    before = shelf.prediction("ridge-eye")
    shelf.weigh("eye", "second")
    shelf.embed()
    assert shelf.states() == {"ridge-eye": "out of date: the cache of eye"}
    shelf.weigh("eye", "first", mtime=mtime)
    shelf.embed()
    assert shelf.states() == {"ridge-eye": "ok"}
    assert shelf.prediction("ridge-eye") == before


def test_weights_replaced_and_embed_forgotten(shelf: Shelf) -> None:
    """What was embedded is what counts, until embed says otherwise."""
    shelf.embed()
    before = everything(shelf)
    shelf.weigh("eye", "second")
    after = everything(shelf)
    np.testing.assert_array_equal(before.pop("export"), after.pop("export"))
    assert before == after
    assert set(used_by(shelf).values()) == {digest("first")}


@pytest.mark.proves("numbers")
def test_weights_swapped_behind_an_equal_date(shelf: Shelf) -> None:
    """Two caches then answer to one request: the one that was used last counts."""
    for weights in ("third", "first", "other", "ninth"):
        shelf.weigh("eye", weights, mtime=1_000_000)
        shelf.embed(rehash=True)
        assert set(used_by(shelf).values()) == {digest(weights)}
        shelf.embed()
        assert set(used_by(shelf).values()) == {digest(weights)}


def test_new_weights_killed_before_their_end(shelf: Shelf) -> None:
    from shelf import killed_embed

    shelf.embed()
    shelf.probe()
    shelf.weigh("eye", "second")
    assert killed_embed(shelf, 3, "commit")
    # Every image was looked at long ago; it is the new cache that lacks rows.
    for attempt in (shelf.probe, shelf.export):
        with pytest.raises(InputError, match=r"through eye is not finished, \d+ images wait"):
            attempt()
    assert shelf.states() == {"ridge-eye": "out of date: the cache of eye"}
    shelf.embed()
    shelf.probe()
    assert set(used_by(shelf).values()) == {digest("second")}


@pytest.mark.proves("numbers")
def test_other_views_of_old_weights_do_not_count(shelf: Shelf) -> None:
    shelf.views = "flip"
    shelf.embed()
    shelf.probe()
    shelf.views = "center"
    shelf.embed()
    shelf.weigh("eye", "second")
    shelf.embed()
    shelf.views = "flip"
    with pytest.raises(InputError, match="no cache for backbone 'eye' with views 'flip'"):
        shelf.probe()
    assert shelf.states() == {"ridge-eye": "out of date: the cache of eye"}


def test_systems_of_other_views_are_out_of_date(shelf: Shelf) -> None:
    """Their cache gets no new rows any more: to call them ok would lead nowhere."""
    shelf.embed()
    shelf.probe()
    shelf.views = "flip"
    assert shelf.states() == {"ridge-eye": "out of date: the cache of eye"}
    shelf.embed()
    assert shelf.states() == {"ridge-eye": "out of date: the cache of eye"}
    shelf.fill(labelled=0, to_predict=1, start=301)
    shelf.embed()
    with pytest.raises(InputError, match="out of date"):
        shelf.submission("ridge-eye")
    shelf.probe()
    assert "301.png" in shelf.submission("ridge-eye")
