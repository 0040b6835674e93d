"""The exchange form: what goes in comes out, and what is damaged or hostile is refused."""

import io
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiveprobe.evaluate.predictions import Predictions, check_same_rows, check_shared_folds


def equal(one: Predictions, other: Predictions) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(one)]
    return all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") and a.dtype == b.dtype
        if isinstance(a, np.ndarray)
        else a == b or (a != a and b != b)
        for a, b in pairs
    )


def with_arrays(one: Predictions, **changed: np.ndarray) -> bytes:
    """The bytes of `one` with some of its arrays replaced, unchecked."""
    with np.load(io.BytesIO(one.to_bytes())) as archive:
        arrays = {name: archive[name] for name in archive.files}
    out = io.BytesIO()
    np.savez(out, **(arrays | changed))
    return out.getvalue()


@pytest.fixture
def system(draw_dataset, draw_system) -> Predictions:
    return draw_system(draw_dataset(), features="a+b:rows", note="später")


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(("repeats", "m"), [(1, 0), (3, 7)])
def test_round_trip(draw_dataset, draw_system, k, repeats, m) -> None:
    one = draw_system(draw_dataset(k=k, repeats=repeats, m=m))
    holes = one.oof.copy()
    holes[:, 3] = np.nan
    views = np.stack([holes, holes], 2)
    one = replace(one, oof=np.asfortranarray(holes), oof_views=np.asfortranarray(views))
    back = Predictions.from_bytes(one.to_bytes(), "there")
    assert equal(back, one)
    assert np.flatnonzero(~back.readable).tolist() == [3]
    assert back.digest == one.digest != replace(one, decision=1 - one.decision).digest
    assert (back.system, back.positive) == ("one", k - 1)
    bare = replace(back, origin={})
    assert (bare.system, bare.positive) == ("", k - 1)
    assert np.isnan(one.threshold) == (k > 2)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_bytes_are_refused_or_harmless(system, fault_of, data) -> None:
    content = bytearray(system.to_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    try:
        found = Predictions.from_bytes(bytes(content), "there")
    except Exception:
        fault_of(
            lambda: Predictions.from_bytes(bytes(content), "there"), "there", "run that system"
        )
    else:
        found.check()


class Bomb:
    """Unpickling it would be seen."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.proves("hostile")
def test_a_pickle_is_never_opened(system, fault_of) -> None:
    hostile = np.array([Bomb()] * len(system.ids), dtype=object)
    out = io.BytesIO()
    np.savez(out, ids=hostile)
    for content in (with_arrays(system, ids=hostile), out.getvalue(), pickle.dumps(Bomb())):
        fault_of(lambda content=content: Predictions.from_bytes(content, "there"), "there")


def head(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


@pytest.mark.parametrize(
    "changed",
    [
        {"extra": np.zeros(3)},
        {"head": head("[]")},
        {"head": head('{"version": 99, "threshold": null, "origin": {}}')},
        {"head": head("[" * 100_000)},
        {"fold": np.full((2, 60), -1)},
        {"fold": np.zeros((0, 60), np.int64)},
        {"fold": np.zeros((2, 60))},
        {"oof": np.full((2, 60, 2), 0.4)},
        {"oof": np.tile([1.5, -0.5], (2, 60, 1))},
        {"oof": np.tile([np.nan, 0.5], (2, 60, 1))},
        {"oof": np.tile([np.inf, 0.0], (2, 60, 1))},
        {"test": np.full((7, 3), 1 / 3)},
        {"labels": np.full(60, 2)},
        {"decision": np.full((2, 60), -1)},
        {"ids": np.full(60, "one.jpg")},
        {"ids": np.arange(60)},
        {"thresholds": np.zeros((2, 4))},
        {"oof_views": np.zeros(3)},
        {"oof_views": np.zeros((2, 59, 4, 2))},
        {"test_views": np.zeros((7, 4, 2), "S1")},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_does_not_fit_together_is_refused(system, fault_of, changed) -> None:
    content = with_arrays(system, **changed)
    fault_of(lambda: Predictions.from_bytes(content, "there.npz"), "there.npz", "run that system")


def test_systems_of_the_same_rows_and_folds_go_together(
    draw_dataset, draw_system, fault_of
) -> None:
    dataset = draw_dataset()
    one, two = draw_system(dataset, "one"), draw_system(dataset, "two", seed=1)
    check_shared_folds([one, two])
    check_shared_folds([one, replace(two, fold=two.fold[:1])])
    moved = two.fold.copy()
    moved[0, 0] = (moved[0, 0] + 1) % 5
    fault_of(lambda: check_shared_folds([one, replace(two, fold=moved)]), "'two'", "folds")
    other = replace(two, ids=np.char.add("x", two.ids))
    fault_of(lambda: check_shared_folds([one, other]), "'one'", "differ in ids")
    relabelled = replace(two, labels=1 - two.labels)
    fault_of(lambda: check_shared_folds([one, two, relabelled]), "differ in labels")
    # They stand on one leaderboard, but nobody can combine what they say of other rows.
    asked = replace(two, test_ids=np.char.add("x", two.test_ids))
    check_shared_folds([one, asked])
    fault_of(lambda: check_same_rows([one, asked]), "differ in test_ids")
