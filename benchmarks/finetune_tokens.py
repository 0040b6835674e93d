"""What cached tokens save: an epoch of the last block from the cache, against end to end.

    .venv/bin/python benchmarks/finetune_tokens.py [--images N] [--repeats N] [--views K]

CLIP ViT-B/32 with random weights, whose speed is that of trained ones, tuned as the CLIP paper
does: last block and head, focal loss, AdamW, batches of 32. End to end the images are tensors
in memory already, so what is compared is computing only: decoding and augmentation, which the
cache spares too, come on top. From the cache a draw is picked for every row. The two epochs are
measured in turn and every repeat gives a ratio; the figure is their median. Also: how far the
losses of the two are apart over 20 steps. Takes about two minutes on two cores.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from common import Figure, arguments, at_least, at_most, load, report, timed

from archiveprobe.embed.backbones import BACKBONES, RANDOM, Backbone
from archiveprobe.finetune.loader import Draw
from archiveprobe.finetune.losses import make_loss, soft_targets
from archiveprobe.finetune.model import Network, build_network
from archiveprobe.finetune.optimizer import make_optimizer
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.recipe_file import load_recipe
from archiveprobe.finetune.tokens import TokenRows, token_network, tokens_of

FASTER, APART = 5.0, 1e-4
STEPS, SMALL = 20, 8
Batch = Callable[[np.ndarray], Any]


def main(words: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments(__doc__, "finetune_tokens")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--views", type=int, default=4)
    options = parser.parse_args(words)
    before = load()
    import torch

    recipe = load_recipe("nu-clip-last-block")
    network = fresh(recipe)
    side = network.preprocess.geometry.size
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randn(options.images, 3, side, side, generator=drawn)
    labels = torch.arange(options.images) % 2
    tokens = in_batches(network, pixels)
    figures = [*speed(recipe, pixels, tokens, labels, options.repeats, options.views)]
    figures += apart(recipe, pixels, tokens, labels)
    report(options.json, figures, before)


def fresh(recipe: Recipe) -> Network:
    """Return the recipe's network, the same every time."""
    backbone: Backbone = replace(BACKBONES[recipe.model.backbone], weights=RANDOM)
    return build_network(recipe.model, backbone, 2, seed=recipe.seed)


def in_batches(network: Network, pixels: Any) -> Any:
    """Return the tokens (n, tokens, width) of all images."""
    import torch

    return torch.cat([tokens_of(network, part) for part in pixels.split(16)])


def speed(
    recipe: Recipe, pixels: Any, tokens: Any, labels: Any, repeats: int, views: int
) -> list[Figure]:
    """Seconds of both epochs, and how often one goes into the other."""
    import torch

    stored = tokens.half().numpy()[:, None]
    rows = TokenRows(stored, np.repeat(stored, views, 1), seed=0)
    whole, other = fresh(recipe), fresh(recipe)
    size = recipe.optimizer.batch_size
    first = stepper(whole, recipe, lambda at: pixels[at], labels)
    second = stepper(
        token_network(other),
        recipe,
        lambda at: torch.stack([rows[Draw(int(row), 0, 0)] for row in at]),
        labels,
    )
    batches = np.array_split(np.arange(len(pixels)), max(1, len(pixels) // size))
    pairs = []
    for number in range(repeats + 1):
        pair = [
            timed(lambda step=step: [step(at) for at in batches])[1] for step in (first, second)
        ]
        # The first round warms up.
        if number:
            pairs.append(pair)
    ratio = float(np.median([slow / fast for slow, fast in pairs]))
    slow, fast = (float(np.median(column)) for column in zip(*pairs, strict=True))
    count = len(pixels)
    return [
        at_least("end to end / from cached tokens, per epoch", round(ratio, 1), FASTER, "times"),
        Figure("end to end", round(count / slow, 1), "images/s"),
        Figure("from cached tokens", round(count / fast, 1), "images/s"),
        Figure("tokens of an image and view", stored[0, 0].nbytes / 1000, "kB"),
    ]


def stepper(
    network: Network, recipe: Recipe, batch: Batch, labels: Any
) -> Callable[[np.ndarray], float]:
    """Return a function that takes one step on some rows and gives their loss."""
    import torch

    optimizer = make_optimizer(network.body, network.head, recipe.optimizer)
    loss_of = make_loss(recipe.loss, labels.numpy(), 2, 1)
    network.train()

    def step(rows: np.ndarray) -> float:
        optimizer.zero_grad()
        loss = loss_of(network(batch(rows)), soft_targets(labels[rows], 2, 0.0))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.optimizer.clip_grad_norm)
        optimizer.step()
        return float(loss.detach())

    return step


def apart(recipe: Recipe, pixels: Any, tokens: Any, labels: Any) -> list[Figure]:
    """Return the largest difference of the losses over the first steps, in fp32 and as stored."""
    expected = losses(fresh(recipe), recipe, pixels, labels)
    worst = {}
    for name, given in (("fp32", tokens), ("float16", tokens.half().float())):
        found = losses(token_network(fresh(recipe)), recipe, given, labels)
        worst[name] = float(f"{max(abs(a - b) for a, b in zip(expected, found, strict=True)):.1e}")
    what = f"largest difference of losses, {STEPS} steps, tokens in"
    # Equality is promised of the arithmetic; what rounding to float16 costs is only reported.
    return [
        at_most(f"{what} fp32", worst["fp32"], APART),
        Figure(f"{what} float16, as cached", worst["float16"]),
    ]


def losses(network: Network, recipe: Recipe, inputs: Any, labels: Any) -> list[float]:
    """Return the losses of the first steps, in small batches."""
    import torch

    step = stepper(network, recipe, lambda at: inputs[at], labels)
    found = []
    for number in range(STEPS):
        # The dropout of the head draws from here.
        torch.manual_seed(number)
        found.append(step(torch.randperm(len(inputs))[:SMALL].numpy()))
    return found


if __name__ == "__main__":
    main()
