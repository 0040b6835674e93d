"""Heads: their layers in the paper's places, and a start from a linear probe."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.finetune.heads import make_head, probe_weights, start_head
from archiveprobe.finetune.settings import Model
from archiveprobe.probe.knn import NeighbourPath
from archiveprobe.probe.linear import LogisticPath, RidgePath

torch = libraries.torch()
PAPER = Model(backbone="own", hidden=(256,), dropouts=(0.5, 0.3))
LINEAR = Model(backbone="own")


def embeddings(count: int = 60, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Rows of very different scales, not normalised, and labels of two classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, width)) * np.logspace(-2, 2, width) + np.arange(width)
    return x, (x[:, 0] * 100 + rng.normal(size=count) > 0).astype(int)


def test_the_paper_head_has_its_dropouts_after_relu_and_on_the_logits() -> None:
    nn = torch.nn
    head = make_head(512, 2, PAPER)
    assert [type(part) for part in head] == [
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
        nn.Linear,
        nn.Dropout,
    ]
    assert [(part.in_features, part.out_features) for part in (head[0], head[3])] == [
        (512, 256),
        (256, 2),
    ]
    assert (head[2].p, head[4].p) == (0.5, 0.3)
    assert sum(each.numel() for each in head.parameters()) == 512 * 256 + 256 + 256 * 2 + 2


def test_the_paper_head_by_hand() -> None:
    head = make_head(4, 2, PAPER.model_copy(update={"hidden": (3,)}))
    given = torch.randn(5, 4)
    inner = (given @ head[0].weight.T + head[0].bias).clamp(min=0)
    wanted = inner @ head[3].weight.T + head[3].bias
    assert torch.allclose(head.eval()(given), wanted, atol=1e-6)
    torch.manual_seed(0)
    logits = head.train()(torch.ones(4000, 4))
    # A logit is dropped with probability 0.3, whatever was dropped before it.
    assert float((logits == 0).float().mean()) == pytest.approx(0.3, abs=0.02)


def test_without_settings_a_head_is_linear() -> None:
    head = make_head(640, 3, LINEAR)
    assert [type(part) for part in head] == [torch.nn.Linear]
    assert head[0].weight.shape == (3, 640)


def test_equal_seeds_give_equal_heads_and_leave_other_draws_alone() -> None:
    torch.manual_seed(1)
    before = torch.rand(1)
    torch.manual_seed(1)
    one, two, other = (make_head(8, 2, PAPER, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), before)
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


@pytest.mark.parametrize("probe", [LogisticPath(), RidgePath(), LogisticPath(Cs=(0.1,))])
def test_a_head_that_starts_from_a_probe_answers_as_the_probe(probe) -> None:
    x, y = embeddings()
    probe.fit(x, y)
    head = make_head(x.shape[1], 2, LINEAR)
    start_head(head, *probe_weights(probe.arrays()))
    given = torch.from_numpy(x.astype(np.float32))
    ours = head(given).softmax(1).detach().numpy()
    np.testing.assert_allclose(ours, probe.predict_proba(x), atol=1e-4)
    assert len(set(ours.argmax(1))) == 2


def test_coefficients_in_fortran_order_arrive_unscrambled() -> None:
    x, _ = embeddings()
    y = np.digitize(x[:, -1], np.quantile(x[:, -1], [1 / 3, 2 / 3]))
    scale = x.std(0)
    model = LogisticRegression(max_iter=1000).fit(x / scale, y)
    weights = np.asfortranarray(model.coef_ / scale)
    head = make_head(x.shape[1], 3, LINEAR)
    start_head(head, weights, model.intercept_)
    ours = head(torch.from_numpy(x.astype(np.float32))).softmax(1).detach().numpy()
    np.testing.assert_allclose(ours, model.predict_proba(x / scale), atol=1e-4)


def test_probes_that_a_head_cannot_start_from_are_refused() -> None:
    x, y = embeddings()
    with pytest.raises(InputError, match="a linear probe only"):
        probe_weights(NeighbourPath().fit(x, y).arrays())
    with pytest.raises(InputError, match="leave out hidden"):
        start_head(make_head(8, 2, PAPER), np.zeros((2, 8)), np.zeros(2))
    with pytest.raises(InputError, match=r"weights are \(2, 8\), the head's \(2, 9\)"):
        start_head(make_head(9, 2, LINEAR), np.zeros((2, 8)), np.zeros(2))
