"""Training the last block from the cache: what the blocks below give is computed once and kept.

They are frozen, so the input of the last block never changes: it is cached like any embedding, for
the views to predict and for K augmented views (`layers = "tokens"`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import differences
from archiveprobe.embed.augment import CLIP_PAPER, seeded
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.layers import reader
from archiveprobe.embed.libraries import make_torchvision_importable
from archiveprobe.embed.views import Rendered
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.finetune.blocks import block_names
from archiveprobe.finetune.loader import Draw
from archiveprobe.finetune.model import Network, assemble
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.task.config import Task
from archiveprobe.task.snapshot import read_snapshot

if TYPE_CHECKING:
    import torch

LAYERS = "tokens"


def token_network(network: Network) -> Network:
    """Return the same network, weights shared, from the input of its last block on.

    What one of the two learns the other has too, and their states are the same.

    Raises:
        InputError: more than the last block is trained, or its end is not known.
    """
    through = _from_tokens(network.body, network.described)
    last = f"body.{block_names(network.body, network.described)[-1]}"
    if any(part != "head" and not f"{part}.".startswith(f"{last}.") for part in network.trained):
        raise InputError(
            "the cache holds what the last block is given, so no other block can be trained from "
            'it: set unfreeze = "last-block", or leave out --from-cache'
        )
    module = assemble(network.body, network.head, network.trained, through)
    return replace(network, module=module)


def _from_tokens(body: Any, described: str) -> Callable[[Any, Any], Any]:
    """Return how a backbone goes on from the input of its last block.

    Raises:
        InputError: it is no transformer whose end is known here.
    """
    blocks = getattr(getattr(body, "transformer", None), "resblocks", None)
    # Whether the class token alone leaves the last block, which is of open_clip's common kind.
    if (
        blocks is not None
        and type(blocks[-1]).__name__ == "ResidualAttentionBlock"
        and blocks[-1].attn.batch_first
        and body.attn_pool is None
        and body.pool_type == "tok"
    ):
        return _end_of_clip
    make_torchvision_importable()
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    # Others give their blocks more than tokens, or end otherwise.
    if isinstance(getattr(body, "trunk", body), VisionTransformer | Eva):
        return _end_of_timm
    raise InputError(
        f"the last block of {described} cannot be tuned from cached tokens: what comes after it in "
        f"a {type(getattr(body, 'trunk', body)).__name__} is not known here: leave out --from-cache"
    )


def _end_of_clip(body: Any, tokens: "torch.Tensor") -> Any:
    # Only the class token leaves the block, so its query alone is needed, and it alone goes through
    # the MLP. Keys and values come from all tokens, so the output is the same.
    block = body.transformer.resblocks[-1]
    normed = block.ln_1(tokens)
    attended = block.attention(q_x=normed[:, :1], k_x=normed, v_x=normed)
    first = tokens[:, :1] + block.ls_1(attended)
    first = first + block.ls_2(block.mlp(block.ln_2(first)))
    pooled = body.ln_post(first[:, 0])
    return pooled if body.proj is None else pooled @ body.proj


def _end_of_timm(body: Any, tokens: "torch.Tensor") -> Any:
    network = getattr(body, "trunk", body)
    rotary = {}
    if getattr(network, "rope", None) is not None:
        # Where every patch lies, which the tokens do not say; of "mixed" ones each block has its
        # own.
        positions = network.rope.get_embed(shape=network.patch_embed.grid_size)
        rotary = {"rope": positions[-1] if network.rope_mixed else positions}
    pooled = network.forward_head(network.norm(network.blocks[-1](tokens, **rotary)))
    return pooled if network is body else body.head(pooled)


def tokens_of(network: Network, pixels: "torch.Tensor") -> "torch.Tensor":
    """Return what the last block is given for pixels (n, 3, size, size): (n, tokens, width)."""
    import torch

    read = reader(network.body, LAYERS, network.described)
    with torch.no_grad():
        tokens: torch.Tensor = read(network.body, pixels).clone()
    return tokens


def token_task(task: Task, backbone: str, views: str) -> Task:
    """Return the task as `embed` must see it to cache a backbone's tokens for a set of views."""
    update = {"backbones": (backbone,), "views": views, "layers": LAYERS}
    return task.model_copy(update={"embed": task.embed.model_copy(update=update)})


def check_recipe(recipe: Recipe) -> bool:
    """Say whether a recipe, trained from the cache, draws among augmented views; else it has one.

    Raises:
        InputError: it augments in another way than the cached views.
    """
    settings = recipe.augment
    cached: dict[str, Any] = {
        "crop_scale": CLIP_PAPER.scale,
        "crop_ratio": CLIP_PAPER.ratio,
        "flip": CLIP_PAPER.flip,
        "rotation": CLIP_PAPER.degrees,
        "jitter": tuple(CLIP_PAPER.jitter.values()),
    }
    plain = settings.model_copy(
        update={"crop_scale": (1.0, 1.0), "flip": 0.0, "rotation": 0.0, "jitter": (0.0,) * 4}
    )
    other = settings.rand_augment or settings.erasing or settings.mixup
    if not other and settings.interpolation == "weights":
        if settings == plain:
            return False
        if settings == settings.model_copy(update=cached):
            return True
    raise InputError(
        f"recipe {recipe.name} augments in another way than the cache, which draws crop_scale "
        f"{list(CLIP_PAPER.scale)}, flip {CLIP_PAPER.flip}, rotation {CLIP_PAPER.degrees:g} and "
        f"jitter {list(cached['jitter'])}: set these under [augment], or leave out --from-cache"
    )


@dataclass(frozen=True)
class TokenRows:
    """The cached tokens of n rows, float16: `views` (n, V, tokens, width) to predict from, and
    `draws` (n, K, tokens, width) to train on, None without augmentation. Unreadable rows are NaN.
    """

    views: np.ndarray
    draws: np.ndarray | None
    seed: int

    @property
    def readable(self) -> np.ndarray:
        """(n,) whether a row has tokens."""
        return np.asarray(np.isfinite(self.views[:, 0, 0]).all(1))

    def with_seed(self, seed: int) -> "TokenRows":
        """Return the same rows with another seed of what is drawn."""
        return replace(self, seed=seed)

    def __getitem__(self, draw: Draw) -> "torch.Tensor":
        """Return the tokens (tokens, width) float32 of a row through one of its augmented views.

        Which one depends on seed, epoch and row; a row that came before in the epoch goes on to the
        next. Without augmentation it is the first view.
        """
        if self.draws is None:
            return _float32(self.views[draw.row, 0])
        count = self.draws.shape[1]
        first = int(seeded("tokens", self.seed, draw.epoch, draw.row).integers(count))
        return _float32(self.draws[draw.row, (first + draw.occurrence) % count])

    def rendered(self, row: int, views: Sequence[int]) -> Rendered:
        """Return the tokens (v, tokens, width) float16 of a row through some views."""
        tokens = self.views[row, list(views)]
        return Rendered(tokens, tuple(range(len(tokens))), (False,) * len(tokens))

    def fill_unreadable(self, tokens: np.ndarray) -> "TokenRows":
        """Return the same with the tokens (tokens, width) of a blank image for unreadable rows."""
        missing = ~self.readable
        views, draws = self.views.copy(), None if self.draws is None else self.draws.copy()
        views[missing] = tokens
        if draws is not None:
            draws[missing] = tokens
        return replace(self, views=views, draws=draws)


def _float32(tokens: np.ndarray) -> "torch.Tensor":
    import torch

    return torch.from_numpy(tokens.astype(np.float32))


def check_cache(cache: Reader, network: Network, layers: str, remedy: str) -> None:
    """Check that a cache holds what a network gives: other inputs would mislead without any error.

    Raises:
        InputError: its weights, preprocessing or layers are others.
    """
    preprocess = network.preprocess
    if cache.fingerprint["preprocess"].get("decode") == "gpu":
        # What a GPU decodes agrees with what Pillow decodes, which was proved before it was cached.
        preprocess = preprocess.decoded("gpu")
    now = {"weights": network.digest, "preprocess": preprocess.record(), "layers": layers}
    changed = differences({name: cache.fingerprint[name] for name in now}, now)
    if changed:
        fields = ", ".join(f"{name} {a!s:.12} there and {b!s:.12} here" for name, a, b in changed)
        raise InputError(
            f"the cache {cache.folder.name} holds other embeddings than the recipe's network gives "
            f"({fields}): {remedy}"
        )


def load_tokens(
    task: Task,
    backbone: Backbone,
    network: Network,
    keys: Sequence[bytes | None],
    *,
    views: str,
    draws: str | None = None,
    seed: int = 0,
) -> TokenRows:
    """Read the cached tokens of rows, by the keys of their images, into memory.

    A row takes tokens x width x 2 bytes for every view and draw: 77 kB for ViT-B/32.

    Raises:
        InputError: not embedded yet, with other weights or preprocessing than the network's, or a
            cache is damaged.
    """

    def read(name: str) -> np.ndarray:
        asked = token_task(task, backbone.name, name)
        # Read again, since the tokens were embedded after the dataset was loaded.
        cache = open_in_use(asked, read_snapshot(asked), backbone.name, keys=keys)
        check_cache(cache, network, LAYERS, "embed them again, or leave out --from-cache")
        present, tokens = cache.read(keys)
        absent = [key for key, known in zip(keys, present, strict=True) if key and not known]
        waiting = sum(key not in cache.failures for key in absent)
        if waiting:
            raise InputError(
                f"the cache {cache.folder.name} lacks {number_of(waiting, 'row')}: embed them first"
            )
        return tokens

    return TokenRows(read(views), None if draws is None else read(draws), seed)
