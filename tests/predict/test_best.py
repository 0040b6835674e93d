"""The best of many images, held to a sort of all of them; equal files; ties."""

import numpy as np
import pytest

from archiveprobe.predict.rank.best import Best
from archiveprobe.predict.rank.candidates import Candidates


def block(digests: list[str]) -> Candidates:
    names = [f"{at}-{digest}" for at, digest in enumerate(digests)]
    return Candidates(names, digests, [None] * len(names), np.zeros((len(names), 2)))


@pytest.mark.parametrize("seed", range(5))
def test_the_best_are_those_of_a_sort(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few different files, so that many are equal; equal ones have one score, and so have others.
    files = rng.integers(0, 300, 2000)
    of_file = np.round(rng.normal(size=300), 1)
    of_file[:9] = np.nan
    best, every = Best(20, collapse=True), Best(20, collapse=False)
    for part in np.array_split(files, 7):
        for each in (best, every):
            each.add(block([f"{at:064x}" for at in part]), of_file[part])
    seen = dict.fromkeys(files.tolist())
    order = sorted((at for at in seen if at > 8), key=lambda at: -of_file[at])[:20]
    found = best.ranked()
    assert [int(image.digest, 16) for image in found] == order
    assert [image.copies for image in found] == [int((files == at).sum()) for at in order]
    scores = np.sort(of_file[files][~np.isnan(of_file[files])])[::-1][:20]
    assert [image.score for image in every.ranked()] == scores.tolist()
    assert {image.copies for image in every.ranked()} == {1}


def test_images_without_a_digest_are_not_equal() -> None:
    best = Best(5, collapse=True)
    best.add(block(["", "", "ab"]), np.array([0.5, 0.5, 0.1]))
    assert [image.id for image in best.ranked()] == ["0-", "1-", "2-ab"]
