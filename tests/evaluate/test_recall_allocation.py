"""Two strata are planned where the missed are expected; a wrong expectation costs only images."""

import numpy as np
import pytest
from scipy import special, stats

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.recall.allocation import (
    Design,
    Missed,
    best_design,
    expected_chances,
    power_of,
)
from archiveprobe.evaluate.recall.plan import Expectation, plan_draw
from archiveprobe.evaluate.recall.strata import Stratum, highest_in_two


def exact_power(design: Design, counts: tuple[int, int], allowed: int) -> float:
    """Enumerate the samples of two strata, and certify each."""
    chances = [
        stats.hypergeom.pmf(np.arange(draw + 1), size, count, draw)
        for size, count, draw in zip(design.sizes, counts, design.draws, strict=True)
    ]
    total = 0.0
    for x, chance in enumerate(chances[0]):
        for y, other in enumerate(chances[1]):
            if chance * other > 1e-5:
                strata = [
                    Stratum(size, draw, k)
                    for size, draw, k in zip(design.sizes, design.draws, (x, y), strict=True)
                ]
                total += chance * other * (highest_in_two(*strata, 0.05) <= allowed)
    return float(total)


@pytest.mark.parametrize(
    ("sizes", "draws", "counts"),
    [((500, 9500), (100, 900), (12, 2)), ((2000, 3000), (300, 200), (10, 10))],
)
def test_the_power_of_a_design_is_that_of_all_its_samples(sizes, draws, counts) -> None:
    rows = [np.full(size, count / size) for size, count in zip(sizes, counts, strict=True)]
    missed = Missed.of(np.concatenate(rows), 60)
    power = power_of(missed, sizes, draws, 0.05)
    assert power == pytest.approx(exact_power(Design(sizes, draws, power), counts, 60), abs=0.05)


def chances(distance: float, images: int = 100_000) -> np.ndarray:
    """Chances of images not reviewed, of a model that puts positives so far above the others."""
    rng = np.random.default_rng(0)
    truth = rng.random(images) < 0.02
    score = np.sort(rng.standard_normal(images) + distance * truth)[::-1]
    margin = distance * score - distance**2 / 2 + special.logit(0.02)
    rest = special.expit(margin)[images // 50 :]
    return np.asarray(rest * 30 / rest.sum())


def test_an_excellent_model_needs_fewer_images_in_two_strata() -> None:
    allowed, found = 90, 1710
    plain = plan_draw(Expectation(found, 98_000, 30), 0.95, 0.95, 0.9).draw
    sure = best_design(Missed.of(chances(6.0), allowed), int(0.85 * plain), 0.05)
    # The upper stratum is drawn more densely.
    shares = [draw / size for draw, size in zip(sure.draws, sure.sizes, strict=True)]
    assert shares[0] > shares[1]
    assert sure.power >= 0.9


def test_a_useless_model_gains_nothing() -> None:
    flat = Missed.of(chances(0.0), 90)
    plain = plan_draw(Expectation(1710, 98_000, 30), 0.95, 0.95, 0.9).draw
    fewer, more = (best_design(flat, int(part * plain), 0.05).power for part in (0.9, 1.15))
    assert fewer < 0.9 <= more


def test_where_the_missed_are_is_learnt_from_the_answers() -> None:
    rng = np.random.default_rng(1)
    margins = np.sort(rng.normal(-4, 2, 20_000))[::-1]
    truth = rng.random(20_000) < special.expit(margins)
    good = expected_chances(margins[:8000], truth[:8000], margins[8000:])
    useless = expected_chances(margins[:8000], rng.random(8000) < 0.1, margins[8000:])
    assert good.sum() == pytest.approx(truth[8000:].sum(), rel=0.25)
    assert good[0] > 20 * good[-1]
    assert useless[0] < 3 * useless[-1]
    assert (expected_chances(margins[:0], truth[:0], margins) == 0.5).all()


def test_too_few_images_for_two_strata_are_refused() -> None:
    few = Missed.of(np.full(3, 0.1), 1)
    with pytest.raises(InputError, match="too few for two strata"):
        best_design(few, 1, 0.05)
