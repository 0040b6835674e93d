"""What a network learns from: a task's images, decoded once, or its cached tokens."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Progress, silent
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import differences
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.decoding import default_workers
from archiveprobe.embed.job import Notify
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.views import render, view_set
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.finetune.augment import Augmentation, normalised
from archiveprobe.finetune.heads import probe_weights, start_head
from archiveprobe.finetune.loader import PictureRows
from archiveprobe.finetune.model import Network
from archiveprobe.finetune.pixels import MEMORY_LIMIT, Wanted, blank_image, load_pixels, side_kept
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.tokens import (
    check_recipe,
    embed_tokens,
    load_tokens,
    token_network,
    tokens_of,
)
from archiveprobe.finetune.verdict import Looks
from archiveprobe.probe.features import Choice, find_reader, load_features
from archiveprobe.probe.table import PROBES
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import REJECTIONS

DRAWS = "augment8"
"""The augmented views that a recipe trained from the cache draws among."""
# A part without them would be finished, and never look at them again.
_ELSEWHERE = frozenset({"missing_file", "unreadable_file", "changed_file"})
_NAMED = 3


@dataclass(frozen=True)
class How:
    """Where and how a recipe is trained; `workers` None: one process per core."""

    device: str = "cpu"
    workers: int | None = None
    from_cache: bool = False
    precision: str = "fp32"
    tensorboard: bool = False

    @property
    def computing(self) -> dict[str, str]:
        """What the last bits of a network depend on beside the recipe and the rows."""
        return {"device": self.device, "precision": self.precision}

    @property
    def drawing(self) -> int:
        """Processes that draw training images: none where the network takes the cores itself."""
        if self.from_cache or (self.workers is None and self.device == "cpu"):
            return 0
        return default_workers() if self.workers is None else self.workers


@contextmanager
def material(
    dataset: Dataset,
    recipe: Recipe,
    network: Network,
    backbone: Backbone,
    how: How,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Iterator[tuple[Network, Looks]]:
    """The network as it is trained, and the labelled rows followed by those to predict.

    Raises:
        InputError: images are gone or have changed since they were embedded, or the cache cannot
            serve this recipe.
        InputError: the disk takes no more pixels, or a cache is damaged.
    """
    if how.from_cache:
        yield _tokens(dataset, recipe, network, backbone, how, notify, progress)
        return
    ids = [*dataset.labelled.ids.tolist(), *dataset.unlabelled.ids.tolist()]
    entries = [*dataset.labelled.entries, *dataset.unlabelled.entries]
    rows = [(each.path, each.digest) if each.usable else ("", "") for each in entries]
    workers = default_workers() if how.workers is None else how.workers
    with progress("decoding", len({key for _, key in rows if key})) as advance:
        pixels = load_pixels(
            dataset.task.root,
            rows,
            wanted_of(recipe, network),
            dataset.task.work / "finetune",
            workers=workers,
            blank=recipe.rows.unreadable == "blank",
            # Processes can share a file only.
            memory_limit=0 if how.drawing else MEMORY_LIMIT,
            advance=advance,
        )
    with pixels:
        seen = zip(ids, pixels.statuses, rows, strict=True)
        _tell_lost({id_: status for id_, status, (_, key) in seen if key}, notify)
        draw = Augmentation(recipe.augment, network.preprocess, recipe.seed)
        yield network, PictureRows(pixels, draw, network.preprocess)


def _tell_lost(statuses: Mapping[str, str], notify: Notify) -> None:
    """What became of images that could be read when they were embedded: id -> status."""
    lost = {id_: status for id_, status in statuses.items() if status in REJECTIONS}
    names = [*list(lost)[:_NAMED], *["..."] * (len(lost) > _NAMED)]
    told = f"{len(lost)} images ({', '.join(names)})"
    if _ELSEWHERE & set(lost.values()):
        raise InputError(
            f"{told} are gone or have changed since they were embedded: bring them back, or run "
            "embed again"
        )
    if lost:
        why = ", ".join(sorted(set(lost.values())))
        notify(f"{told} could be read before and give no pixels now ({why}): they are not learnt")


def wanted_of(recipe: Recipe, network: Network) -> Wanted:
    """What to keep of every image for a recipe and its network."""
    geometry = network.preprocess.geometry
    side = side_kept(geometry.size, recipe.augment.crop_scale[0])
    return Wanted(side, geometry, view_set(recipe.predict.views))


def _tokens(
    dataset: Dataset,
    recipe: Recipe,
    network: Network,
    backbone: Backbone,
    how: How,
    notify: Notify,
    progress: Progress,
) -> tuple[Network, Looks]:
    small = token_network(network)
    draws = DRAWS if check_recipe(recipe) else None
    # Not "auto": what is learnt from these tokens answers images in fp32 later.
    embedding = EmbedOptions(device=how.device, workers=how.workers, precision="fp32")
    for views in dict.fromkeys((recipe.predict.views, draws)):
        if views is not None:
            embed_tokens(
                dataset.task, backbone.name, views, embedding, notify=notify, progress=progress
            )
    keys = [*dataset.labelled.keys, *dataset.unlabelled.keys]
    rows = load_tokens(
        dataset.task,
        backbone,
        network,
        keys,
        views=recipe.predict.views,
        draws=draws,
        seed=recipe.seed,
    )
    if recipe.rows.unreadable == "blank":
        rows = rows.filled(_blank_tokens(recipe, network))
    return small, rows


def _blank_tokens(recipe: Recipe, network: Network) -> np.ndarray:
    wanted = replace(wanted_of(recipe, network), views=view_set("center"))
    white = render(blank_image(wanted.side), wanted.geometry, wanted.views, seed="")
    found: Any = tokens_of(network, normalised(white.crops, network.preprocess))
    return np.asarray(found[0].half().numpy())


def start_at_probe(
    dataset: Dataset, recipe: Recipe, network: Network, backbone: Backbone, learn: np.ndarray
) -> None:
    """Let the head begin as the linear probe of the rows to learn (LP-FT).

    Raises:
        InputError: the backbone is not embedded, or with other weights, pixels or layers.
    """
    reader = find_reader(dataset, backbone.name)
    _check_probed(reader, network, recipe, dataset.task)
    features = load_features(dataset, Choice((backbone.name,)))
    rows = learn[features.readable[learn]]
    x, y, groups = features.labelled[rows, 0], dataset.labels[rows], dataset.groups[rows]
    probe = PROBES["logistic"].make(seed=recipe.seed).fit(x, y, groups)
    start_head(network.head, *probe_weights(probe.arrays()))


def _check_probed(reader: Reader, network: Network, recipe: Recipe, task: Task) -> None:
    """A head that starts from other embeddings than it is given starts anywhere, without a word."""
    stored, backbone = reader.fingerprint, recipe.model.backbone
    again = f"run `archiveprobe embed {task.file} --backbone {backbone}`"
    otherwise = 'or set model.start = "random"'
    if stored["weights"] != network.digest:
        raise InputError(
            f"the cache {reader.folder.name} was made with other weights than the recipe's "
            f"network: {again}, {otherwise}"
        )
    then, now = {"layers": stored["layers"]}, {"layers": "pooled"}
    remedy = 'set layers = "pooled" under [embed] of task.toml'
    if then == now:
        then, now = stored["preprocess"], network.preprocess.record()
        remedy = f"spell the latter out in [backbone.{backbone}.preprocess] of task.toml"
        remedy = f"leave out model.size; or {remedy}" if recipe.model.size else remedy
    changed = differences(then, now)
    if changed:
        told = ", ".join(f"{field} {old} there and {new} here" for field, old, new in changed)
        raise InputError(
            f"a probe on the cache {reader.folder.name} has seen other embeddings than the "
            f"recipe's network gives ({told}): {remedy} and {again}; {otherwise}"
        )
