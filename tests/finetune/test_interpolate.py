"""WiSE-FT: which mixture is chosen."""

import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.finetune.interpolate import choose_mixture

torch = libraries.torch()
FIRST = {"w": torch.tensor([0.0, 2.0]), "count": torch.tensor(3)}
TUNED = {"w": torch.tensor([4.0, -2.0]), "count": torch.tensor(9)}
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def near(target: float):
    return lambda state: -abs(float(state["w"][0]) - target)


def test_the_mixture_with_the_highest_score_is_chosen() -> None:
    chosen = choose_mixture(FIRST, TUNED, SHARES, near(3.1))
    assert chosen.tuned == 0.75
    assert chosen.state["w"].tolist() == [3.0, -1.0]
    assert chosen.state["count"] == 9
    assert chosen.scores == pytest.approx({0: -3.1, 0.25: -2.1, 0.5: -1.1, 0.75: -0.1, 1: -0.9})


@pytest.mark.parametrize("order", [SHARES, SHARES[::-1], (0.5, 0.25, 1.0, 0.5)])
def test_equal_scores_go_to_the_smallest_share_of_tuning(order) -> None:
    chosen = choose_mixture(FIRST, TUNED, order, lambda _: 0.8)
    assert chosen.tuned == min(order)


def test_every_share_is_scored_once() -> None:
    seen = []

    def score(state) -> float:
        seen.append(float(state["w"][0]))
        return 0.0

    choose_mixture(FIRST, TUNED, (1.0, 0.0, 1.0), score)
    assert seen == [0.0, 4.0]


def test_the_ends_are_the_states_themselves() -> None:
    assert torch.equal(choose_mixture(FIRST, TUNED, SHARES, near(0)).state["w"], FIRST["w"])
    assert torch.equal(choose_mixture(FIRST, TUNED, SHARES, near(9)).state["w"], TUNED["w"])


def test_a_state_that_cannot_be_rated_never_wins() -> None:
    def score(state) -> float:
        return float("nan") if state["w"][0] < 2 else -float(state["w"][0])

    assert choose_mixture(FIRST, TUNED, SHARES, score).tuned == 0.5


@pytest.mark.parametrize("shares", [(), SHARES])
def test_nothing_to_choose_from_is_one_line(shares) -> None:
    with pytest.raises(InputError, match=r"leave out interpolate\.tuned"):
        choose_mixture(FIRST, TUNED, shares, lambda _: float("nan"))
