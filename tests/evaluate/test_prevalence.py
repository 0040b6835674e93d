"""The share of an archive: valid whatever the model, narrower where it is good."""

import numpy as np
import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.prevalence import Part, plain_share, predicted_share


def archive(rng, images: int, skill: float, prior: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.random(images) < prior
    return truth, 1 / (1 + np.exp(-(skill * (truth - 0.5) + rng.standard_normal(images))))


def part(rng, truth: np.ndarray, scores: np.ndarray, drawn: int) -> Part:
    rows = rng.choice(len(truth), drawn, replace=False)
    return Part(scores, scores[rows], truth[rows])


@pytest.mark.proves("certificate")
@pytest.mark.parametrize(
    ("prior", "skill", "narrower"),
    [(0.2, 4.0, 0.5), (0.05, 4.0, 0.3), (0.3, 2.0, 0.15), (0.2, 0.0, -0.05)],
)
def test_intervals_hold_whatever_the_model(prior, skill, narrower) -> None:
    rng = np.random.default_rng(0)
    holds, widths, plain = [], [], []
    for _ in range(100):
        truth, scores = archive(rng, 5000, skill, prior)
        for _ in range(30):
            drawn = part(rng, truth, scores, 400)
            share = predicted_share([drawn])
            holds.append(share.low <= truth.mean() <= share.high)
            widths.append(share.high - share.low)
        alone = plain_share(drawn.answers, 5000)
        plain.append(alone.high - alone.low)
    # 3,000 runs: a standard error of .004.
    assert 0.935 <= np.mean(holds) <= 0.965
    assert 1 - np.mean(widths) / np.mean(plain) >= narrower


def test_strata_are_weighted_by_size() -> None:
    rng = np.random.default_rng(1)
    truth, scores = archive(rng, 5000, 3.0)
    high = scores > 0.5
    parts = [part(rng, truth[rows], scores[rows], 300) for rows in (high, ~high)]
    share = predicted_share(parts)
    assert share.low < truth.mean() < share.high
    assert "2 strata" in share.method
    assert share.record()["confidence"] == 0.95


@pytest.mark.parametrize("answer", [False, True])
def test_one_sided_samples_are_answered_exactly(answer) -> None:
    scores = np.linspace(0, 1, 1000)
    answers = np.full(100, answer)
    share = predicted_share([Part(scores, scores[:100], answers)])
    assert share == plain_share(answers, 1000)
    assert share.estimate == answer and 0.02 < share.high - share.low < 0.05


def test_few_positives_in_strata_are_bounded_exactly() -> None:
    scores = np.linspace(0, 1, 1000)
    few = Part(scores, scores[:50], np.arange(50) < 2)
    share, alone = predicted_share([few, few]), plain_share(few.answers, 1000, 0.975)
    assert (share.estimate, share.low, share.high) == (0.04, alone.low, alone.high)
    assert share.method == "exact hypergeometric, sample alone, 2 strata"


def test_a_whole_archive_sampled_is_exact() -> None:
    truth = np.arange(100) < 30
    share = predicted_share([Part(np.zeros(100), np.zeros(100), truth)])
    assert share.low == share.estimate == share.high == 0.3
    assert plain_share(truth, 100).low == plain_share(truth, 100).high == 0.3


def test_too_small_samples_are_refused() -> None:
    scores = np.linspace(0, 1, 1000)
    with pytest.raises(InputError, match="nothing was sampled"):
        plain_share(np.empty(0, bool), 1000)
    enough = Part(scores, scores[:50], np.arange(50) < 25)
    with pytest.raises(InputError, match="sample two or more"):
        predicted_share([enough, Part(scores, scores[:1], np.array([True]))])
