"""Networks look at views: a crop is sent once, and every view is answered as it is by itself."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from archiveprobe.embed.networks import Network as EmbedNetwork
from archiveprobe.embed.view_sets import view_set
from archiveprobe.embed.views import Rendered, render
from archiveprobe.finetune.augment import normalise
from archiveprobe.finetune.forward import ForwardPasses
from archiveprobe.finetune.model import Network

SIZES = ((60, 40), (32, 32), (40, 90))


@pytest.fixture(scope="module")
def network(tiny: Any, network_of: Any) -> Network:
    return network_of(tiny("test_convnext2"), size=32).eval()  # type: ignore[no-any-return]


@pytest.fixture
def images(network: Network) -> list[Rendered]:
    """Images through six views; those of a square one are a crop and its mirror image."""
    rng, geometry = np.random.default_rng(0), network.preprocess.geometry
    drawn = [rng.integers(0, 256, (high, wide, 3), np.uint8) for wide, high in SIZES]
    views = view_set("crops6")
    return [render(Image.fromarray(pixels), geometry, views, seed="") for pixels in drawn]


@pytest.mark.parametrize("size", [1, 4, 32])
def test_every_view_is_answered_as_it_is_by_itself(size: int, network, images) -> None:
    found = ForwardPasses(size=size).logits(network, iter(images))
    assert found.shape == (3, 6, 2) and found.dtype == np.float64
    for image, answers in zip(images, found, strict=True):
        for view, logits in enumerate(answers):
            crop = image.crops[image.crop[view]]
            seen = crop[:, ::-1].copy() if image.mirror[view] else crop
            with torch.inference_mode():
                alone = network(normalise(seen[None], network.preprocess))[0].numpy()
            np.testing.assert_allclose(logits, alone, atol=1e-5)


def test_a_crop_is_sent_once_and_a_view_computed_once(network, images, monkeypatch) -> None:
    sent, computed = [], []
    real = EmbedNetwork._send

    def send(self: Any, crops: np.ndarray) -> Any:
        sent.append(len(crops))
        return real(self, crops)

    monkeypatch.setattr(EmbedNetwork, "_send", send)
    watch = network.module.register_forward_hook(
        lambda _, given, __: computed.append(len(given[0]))
    )
    ForwardPasses().logits(network, images)
    watch.remove()
    assert sent == [3 + 1 + 3] and computed == [6 + 2 + 6]


def test_cached_tokens_are_looked_at_as_they_are(tiny_clip, network_of) -> None:
    from archiveprobe.finetune.tokens import TokenRows, token_network

    network = token_network(network_of(tiny_clip, unfreeze="last-block"))
    rng = np.random.default_rng(0)
    rows = TokenRows(rng.normal(size=(3, 2, 17, 32)).astype(np.float16), None, seed=0)
    found = ForwardPasses(size=2).logits(network, [rows.rendered(row, [1, 0]) for row in range(3)])
    with torch.inference_mode():
        alone = [network(torch.from_numpy(rows.views[:, view]).float()).numpy() for view in (1, 0)]
    np.testing.assert_allclose(found, np.stack(alone, 1), atol=1e-5)
