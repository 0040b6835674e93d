"""The queue learns: its order is that of a probe fitted on labels and decisions."""

import numpy as np
import pytest
from reviewed import POSITIVE, begin, review_all

from archiveprobe.base.errors import InputError
from archiveprobe.review.queue import Queue
from archiveprobe.review.refit import Refits
from archiveprobe.review.store import find_review
from archiveprobe.task.config import Task


@pytest.mark.parametrize("system", ["ridge-hog", "lda-hog"])
def test_without_decisions_the_probe_fitted_anew_says_the_same(task: Task, system: str) -> None:
    queue = Queue(begin(task, system=system))
    refits = Refits(queue, 5)
    assert not refits.run_if_due()
    before = queue.review.population.scores
    refits._fit({})
    assert queue.scores == pytest.approx(before, abs=1e-3)


def test_after_so_many_looks_it_learns_what_was_decided(task: Task) -> None:
    queue = Queue(begin(task))
    refits = Refits(queue, 5)

    def opposite(name: str) -> str:
        return "bright" if int(name[-6:-4]) % 2 else POSITIVE

    review_all(queue, "Ann", opposite, most=4)
    assert not refits.run_if_due()
    review_all(queue, "Ann", opposite, most=8)
    assert refits.run_if_due()
    assert not refits.run_if_due()
    review = find_review(task)
    [line] = review.state.refits
    assert (line.content["looks"], line.content["probe"]) == (12, "ridge")
    population, moved = review.population, queue.scores - review.population.scores
    decided = review.state.reviewed
    places = population.places(list(decided))
    towards = [1 if each.answer == POSITIVE else -1 for each in decided.values()]
    assert np.mean(np.sign(moved[places]) == towards) > 0.8
    left = [item.image for item in queue.next("Ann", 100)]
    scores = queue.scores[population.places(left)]
    assert all(scores[:-1] >= scores[1:])


def test_what_cannot_be_fitted_anew_is_refused(task: Task) -> None:
    queue = Queue(begin(task, system="greedy"))
    with pytest.raises(InputError, match=r"kind 'ensemble': name one of its members"):
        Refits(queue, 5)
