"""The nearest name: difflib's own answer, found without comparing every name."""

import difflib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiveprobe.base import nearest
from archiveprobe.base.nearest import nearest_name

WORDS = st.text(st.sampled_from("ab01-./é\udc80😀\0"), max_size=90)


def difflibs(word: str, names: list[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(word, names, n=1, cutoff=cutoff)), None)


@pytest.mark.parametrize("cells", [1, 200, 1 << 22])
@settings(max_examples=60, deadline=None)
@given(word=WORDS, names=st.lists(WORDS, max_size=30), cutoff=st.sampled_from([0.3, 0.5, 0.8]))
def test_the_answer_is_difflibs(cells, word, names, cutoff) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_FEW", 0)
        patch.setattr(nearest, "_CELLS", cells)
        assert nearest_name(word, names, cutoff) == difflibs(word, names, cutoff)


def test_among_many_ids_few_are_compared(monkeypatch) -> None:
    """100,000 ids took difflib 11 s; what costs time is the number of comparisons."""
    ids = [f"films/{at // 100:04}/frame-{at:06}.jpg" for at in range(20_000)]
    word = "films/0123/fraem-012345.jpg"
    wanted = difflibs(word, ids, 0.5)
    compared = []
    ratio = difflib.SequenceMatcher.ratio
    monkeypatch.setattr(
        difflib.SequenceMatcher, "ratio", lambda self: compared.append(1) or ratio(self)
    )
    assert nearest_name(word, ids, 0.5) == wanted == "films/0123/frame-012345.jpg"
    assert len(compared) < 200


def test_long_names_are_compared_in_parts_of_bounded_size() -> None:
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("abc"), 300)) for _ in range(600)]
    assert nearest_name(names[77][:290] + "xyz", names, 0.5) == names[77]
