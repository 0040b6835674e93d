"""Averages of weights against numbers worked by hand."""

import numpy as np
import pytest

from archiveprobe.embed import libraries
from archiveprobe.finetune.average import decay_per_step, interpolated, make_average
from archiveprobe.finetune.settings import Ema

torch = libraries.torch()


def linear(value: float):
    module = torch.nn.Linear(2, 1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)
    return module


def set_to(module, value: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


def test_three_steps_by_hand() -> None:
    network = linear(0.0)
    average = make_average(network, Ema(decay=0.9995), steps=100)
    # 0.0005 x 1, then 0.9995 x that + 0.0005 x 2, then 0.9995 x that + 0.0005 x 4.
    for value, by_hand in ((1.0, 0.0005), (2.0, 0.00149975), (4.0, 0.003499000125)):
        set_to(network, value)
        average.update(network)
        for parameter in average.module.parameters():
            np.testing.assert_allclose(parameter.detach(), by_hand, rtol=1e-5)
    assert float(network.bias.detach()) == 4.0


def test_what_a_fixed_decay_leaves_of_the_first_weights() -> None:
    network = linear(1.0)
    average = make_average(network, Ema(decay=0.9995), steps=4400)
    set_to(network, 0.0)
    for _ in range(4400):
        average.update(network)
    # 0.9995^4400: 11 %.
    assert float(average.module.bias.detach()) == pytest.approx(0.110771, rel=1e-3)
    assert decay_per_step(Ema(decay=0.9998), 2187) == 0.9998
    assert pytest.approx(0.65, abs=0.005) == 0.9998**2187


@pytest.mark.parametrize("steps", [1, 100, 5000])
def test_a_remainder_leaves_the_same_in_every_run(steps) -> None:
    decay = decay_per_step(Ema(remainder=0.01), steps)
    assert decay**steps == pytest.approx(0.01, rel=1e-9)


def test_a_remainder_by_hand() -> None:
    # 0.1^(1/100) = 10^-0.01.
    assert decay_per_step(Ema(remainder=0.1), 100) == pytest.approx(0.977237, rel=1e-6)


def test_without_a_decay_there_is_no_average() -> None:
    assert make_average(linear(0.0), Ema(), steps=10) is None


def test_what_never_moves_is_bit_equal_in_the_average() -> None:
    network = torch.nn.Linear(50, 50)
    average = make_average(network, Ema(decay=0.9995), steps=100)
    for _ in range(100):
        average.update(network)
    assert torch.equal(average.module.weight, network.weight)


def test_interpolation_by_hand() -> None:
    first = {"a": torch.tensor([0.0, 4.0]), "n": torch.tensor(1)}
    tuned = {"a": torch.tensor([1.0, 2.0]), "n": torch.tensor(7)}
    mixed = interpolated(first, tuned, 0.25)
    assert mixed["a"].tolist() == [0.25, 3.5]
    assert mixed["n"].item() == 7


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_come_back_bit_by_bit_and_as_copies(share) -> None:
    states = [torch.nn.Linear(30, 30).state_dict() for _ in range(2)]
    mixed = interpolated(*states, share)
    for name, tensor in mixed.items():
        assert torch.equal(tensor, states[int(share)][name])
        assert tensor.data_ptr() != states[int(share)][name].data_ptr()
