"""Losses and targets against numbers worked by hand."""

import math

import numpy as np
import pytest
import torch

from archiveprobe.base.errors import InputError
from archiveprobe.finetune.losses import (
    LOSSES,
    class_weights,
    focal_loss,
    make_loss,
    soft_targets,
)
from archiveprobe.finetune.recipe import Loss

LN2 = math.log(2)
# Probabilities of the two rows: (1/2, 1/2) and (1/5, 4/5).
LOGITS = torch.tensor([[0.0, 0.0], [0.0, math.log(4)]])


def loss_of(settings: Loss, targets: list[int], logits=LOGITS, rows: list[int] | None = None):
    y = np.array(targets if rows is None else rows)
    made = make_loss(settings, y, 2, positive=1)
    return made, soft_targets(torch.tensor(targets), 2, settings.label_smoothing), logits


def test_focal_loss_of_both_classes() -> None:
    made, targets, logits = loss_of(Loss(kind="focal", alpha=0.75), [0, 1])
    # Other class: 0.25 (1 - 1/2)^2 ln 2. Destruction: 0.75 (1 - 4/5)^2 ln(5/4).
    by_hand = [0.25 * 0.25 * LN2, 0.75 * 0.04 * math.log(1.25)]
    assert float(made(logits, targets)) == pytest.approx(sum(by_hand) / 2, rel=1e-6)


def test_focal_loss_with_gamma_0_and_no_alpha_is_cross_entropy() -> None:
    made, targets, logits = loss_of(Loss(kind="focal", gamma=0.0), [1, 0])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 0]))
    assert float(made(logits, targets)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_has_a_gradient_where_a_row_is_certain(gamma) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    made, targets, _ = loss_of(Loss(kind="focal", alpha=0.75, gamma=gamma), [0, 0])
    made(logits, targets).backward()
    assert bool(torch.isfinite(logits.grad).all())
    assert float(logits.grad[1, 0]) < 0


def test_label_smoothing_is_the_papers() -> None:
    # 0.2 over two classes: 0.9 and 0.1.
    targets = soft_targets(torch.tensor([0, 1]), 2, 0.2)
    np.testing.assert_allclose(targets, [[0.9, 0.1], [0.1, 0.9]], rtol=1e-6)
    made, targets, logits = loss_of(Loss(label_smoothing=0.2), [1, 1])
    by_hand = (LN2 + 0.1 * math.log(5) + 0.9 * math.log(1.25)) / 2
    assert float(made(logits, targets)) == pytest.approx(by_hand, rel=1e-6)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 1]), label_smoothing=0.2)
    assert float(made(logits, targets)) == pytest.approx(float(expected), rel=1e-6)


def test_balanced_class_weights() -> None:
    # The shared task's train split: 1400 / (2 x 906) and 1400 / (2 x 494).
    y = np.repeat([0, 1], [906, 494])
    weights = class_weights(Loss(class_weights="balanced"), y, 2, positive=1)
    np.testing.assert_allclose(weights, [0.772627, 1.417004], rtol=1e-6)
    assert weights @ np.bincount(y) == pytest.approx(1400)


def test_weighted_cross_entropy_divides_by_the_weights_as_torch_does() -> None:
    rows = [0, 0, 0, 1]
    made, targets, logits = loss_of(Loss(class_weights="balanced"), [0, 1], rows=rows)
    # Weights 4/6 and 4/2.
    by_hand = (2 / 3 * LN2 + 2 * math.log(1.25)) / (2 / 3 + 2)
    assert float(made(logits, targets)) == pytest.approx(by_hand, rel=1e-6)
    weight = torch.tensor([2 / 3, 2.0])
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1]), weight=weight)
    assert float(made(logits, targets)) == pytest.approx(float(expected), rel=1e-6)


def test_alpha_weighs_the_positive_class_wherever_it_stands() -> None:
    settings = Loss(kind="focal", alpha=0.75)
    y = np.array([0, 1, 2])
    np.testing.assert_array_equal(class_weights(settings, y, 3, 0), [0.75, 0.25, 0.25])
    np.testing.assert_array_equal(class_weights(settings, y, 3, 2), [0.25, 0.25, 0.75])


def test_mixed_targets() -> None:
    # Rows 0 and 2 are partners, row 1 its own.
    targets = soft_targets(torch.tensor([0, 1, 1]), 2, 0.0, mixed=0.7)
    np.testing.assert_allclose(targets, [[0.7, 0.3], [0.0, 1.0], [0.3, 0.7]], atol=1e-6)
    smooth = soft_targets(torch.tensor([0, 1]), 2, 0.2, mixed=0.7)
    # 0.7 x 0.9 + 0.3 x 0.1 = 0.66.
    np.testing.assert_allclose(smooth, [[0.66, 0.34], [0.34, 0.66]], atol=1e-6)


def test_half_precision_logits_are_read_in_full() -> None:
    logits = torch.tensor([[0.0, 9.0]], dtype=torch.bfloat16)
    loss = float(focal_loss(logits, torch.tensor([[0.0, 1.0]]), torch.ones(2), 2.0))
    p = 1 / (1 + math.exp(-9))
    assert loss == pytest.approx(-((1 - p) ** 2) * math.log(p), rel=1e-3)


def test_a_class_without_rows_cannot_be_balanced() -> None:
    with pytest.raises(InputError, match=r"class 1 has no row .*: use fewer folds"):
        class_weights(Loss(class_weights="balanced"), np.zeros(4, int), 2, 1)


@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_falls_when_the_right_class_gets_likelier(kind) -> None:
    made, targets, _ = loss_of(Loss(kind=kind, label_smoothing=0.1), [0, 1])
    worse, better = (torch.tensor([[x, 0.0], [0.0, x]]) for x in (0.5, 1.5))
    assert float(made(better, targets)) < float(made(worse, targets))
