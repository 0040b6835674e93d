"""Tuning the last block from the cache: what the blocks below give is computed once and kept.

They are frozen, so the input of the last block never changes: it is cached like any embedding, for
the views to predict and for K drawn augmentations (`layers = "tokens"`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Progress, silent
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import differences
from archiveprobe.embed import libraries
from archiveprobe.embed.augment import CLIP_PAPER
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.job import Notify
from archiveprobe.embed.layers import reader
from archiveprobe.embed.run import Options, embed
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.finetune.blocks import from_tokens
from archiveprobe.finetune.model import Network, assemble
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.schedule import generator
from archiveprobe.finetune.settings import Augment
from archiveprobe.task.config import Task
from archiveprobe.task.snapshot import read_snapshot

LAYERS = "tokens"
_PLAIN = {"scale": (1.0, 1.0), "flip": 0.0, "degrees": 0.0, "jitter": (0.0, 0.0, 0.0, 0.0)}


def token_network(network: Network) -> Network:
    """The same network, weights shared, from the input of its last block: (n, tokens, width).

    What one of the two learns the other knows, and their states are the same.

    Raises:
        InputError: more than the last block is trained, or its end is not known.
    """
    if "body" in network.trained:
        raise InputError(
            'the cache serves frozen blocks only: set unfreeze = "last-block", or leave out '
            "--from-cache"
        )
    through = from_tokens(network.body, network.described)
    module = assemble(network.body, network.head, network.trained, through)
    return replace(network, module=module, inputs=LAYERS)


def tokens_of(network: Network, pixels: Any) -> Any:
    """What the last block is given for pixels (n, 3, size, size): (n, tokens, width)."""
    torch = libraries.torch()
    read = reader(network.body, LAYERS, network.described)
    with torch.no_grad():
        return read(network.body, pixels).clone()


def token_task(task: Task, backbone: str, views: str) -> Task:
    """The task as `embed` must see it to cache the tokens of a backbone for a set of views."""
    wanted = {"backbones": (backbone,), "views": views, "layers": LAYERS}
    return task.model_copy(update={"embed": task.embed.model_copy(update=wanted)})


def embed_tokens(
    task: Task,
    backbone: str,
    views: str,
    options: Options,
    *,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> None:
    """Cache the tokens of a backbone for a set of views; what is there already is left alone.

    Raises:
        InputError: the backbone is no transformer, or a fault in what the user gave.
        InputError: the cache cannot be written.
    """
    embed(token_task(task, backbone, views), options, notify=notify, progress=progress)


def check_recipe(recipe: Recipe) -> bool:
    """Whether a recipe, trained from the cache, draws among augmented views; else it looks at one.

    Raises:
        InputError: it augments in another way than the cache's draws do.
    """
    given = recipe.augment
    if given.rand_augment or given.erasing or given.mixup or given.interpolation != "weights":
        raise _other_draws(recipe)
    ranges = {
        "scale": given.crop_scale,
        "flip": given.flip,
        "degrees": given.rotation,
        "jitter": given.jitter,
    }
    if ranges == _PLAIN:
        return False
    if ranges != _cached_ranges() or given.crop_ratio != CLIP_PAPER.ratio:
        raise _other_draws(recipe)
    return True


def _cached_ranges() -> dict[str, Any]:
    return {
        "scale": CLIP_PAPER.scale,
        "flip": CLIP_PAPER.flip,
        "degrees": CLIP_PAPER.degrees,
        "jitter": tuple(CLIP_PAPER.jitter.values()),
    }


def _other_draws(recipe: Recipe) -> InputError:
    own = Augment(rotation=CLIP_PAPER.degrees, jitter=_cached_ranges()["jitter"])
    return InputError(
        f"recipe {recipe.name} augments in another way than the cache, which draws crop_scale "
        f"{list(own.crop_scale)}, flip {own.flip}, rotation {own.rotation:g} and jitter "
        f"{list(own.jitter)}: set these under [augment], or leave out --from-cache"
    )


@dataclass(frozen=True)
class TokenRows:
    """The cached tokens of n rows, float16: `views` (n, V, tokens, width) to predict from, and
    `draws` (n, K, tokens, width) to learn from, None without augmentation. Unreadable rows are NaN.
    """

    views: np.ndarray
    draws: np.ndarray | None
    seed: int

    @property
    def readable(self) -> np.ndarray:
        """(n,) whether a row has tokens."""
        return np.asarray(np.isfinite(self.views[:, 0, 0]).all(1))

    def learn(
        self,
        rows: Sequence[int] | np.ndarray,
        epoch: int,
        occurrence: Sequence[int] | np.ndarray | None = None,
    ) -> Any:
        """A batch (b, tokens, width) float32 of rows, each through one of its draws.

        Which one depends on seed, epoch and row; a row that came before in the epoch, `occurrence`
        (b,) times, goes on to the next draw. Without draws it is the first view.
        """
        if self.draws is None:
            return self.look(rows, 0)
        count = self.draws.shape[1]
        first = [int(generator("tokens", self.seed, epoch, int(at)).integers(count)) for at in rows]
        chosen = (np.array(first, int) + (0 if occurrence is None else occurrence)) % count
        return _float32(self.draws[np.asarray(rows), chosen])

    def look(self, rows: Sequence[int] | np.ndarray, view: int) -> Any:
        """A batch (b, tokens, width) float32 of rows through a view."""
        return _float32(self.views[np.asarray(rows), view])

    def filled(self, tokens: np.ndarray) -> "TokenRows":
        """The same with the tokens (tokens, width) of a blank picture for unreadable rows."""
        missing = ~self.readable
        views, draws = self.views.copy(), None if self.draws is None else self.draws.copy()
        views[missing] = tokens
        if draws is not None:
            draws[missing] = tokens
        return replace(self, views=views, draws=draws)


def _float32(tokens: np.ndarray) -> Any:
    return libraries.torch().from_numpy(tokens.astype(np.float32))


def load_tokens(
    task: Task,
    backbone: Backbone,
    network: Network,
    keys: Sequence[bytes | None],
    *,
    views: str = "center",
    draws: str | None = None,
    seed: int = 0,
) -> TokenRows:
    """Read the cached tokens of rows, by the keys of their pictures, into memory.

    A row takes tokens x width x 2 bytes for every view and draw: 77 kB for ViT-B/32.

    Raises:
        InputError: not embedded yet, or with other weights or preprocessing than the network's.
        InputError: a cache is damaged.
    """
    read = [
        None if name is None else _read(task, backbone, network, keys, name)
        for name in (views, draws)
    ]
    assert read[0] is not None
    return TokenRows(read[0], read[1], seed)


def _read(
    task: Task, backbone: Backbone, network: Network, keys: Sequence[bytes | None], views: str
) -> np.ndarray:
    asked = token_task(task, backbone.name, views)
    # Read again, since the tokens were embedded after the dataset was loaded.
    cache = open_in_use(asked, read_snapshot(asked), backbone.name, keys=keys)
    _check_origin(cache, network)
    present, found = cache.read(keys)
    lacking = [key for key, there in zip(keys, present, strict=True) if key and not there]
    new = sum(key not in cache.failures for key in lacking)
    if new:
        raise InputError(
            f"{new} rows are not in the cache {cache.folder.name} yet: embed them first"
        )
    return found


def _check_origin(cache: Reader, network: Network) -> None:
    """Tokens of other weights or pixels would teach the block something else, without any error."""
    stored = cache.fingerprint
    same = not differences(stored["preprocess"], network.preprocess.record())
    if stored["weights"] != network.digest or not same:
        what = "preprocessing" if stored["weights"] == network.digest else "weights"
        raise InputError(
            f"the tokens in {cache.folder} come from other {what} than the recipe's network: "
            "embed them again, or leave out --from-cache"
        )
