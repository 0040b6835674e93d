"""What a network is trained on: a task's images, decoded once, or its cached tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import number_of
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.decoding import default_workers
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.run import embed
from archiveprobe.embed.view_sets import view_set
from archiveprobe.embed.views import render
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.finetune.augment import Augmentation, normalise
from archiveprobe.finetune.images import (
    MEMORY_LIMIT,
    ImageRows,
    PixelSpec,
    blank_image,
    load_pixels,
    stored_side,
)
from archiveprobe.finetune.loader import InputRows
from archiveprobe.finetune.model import Network, start_head
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.tokens import (
    check_cache,
    check_recipe,
    load_tokens,
    token_network,
    token_task,
    tokens_of,
)
from archiveprobe.probe.choice import Choice
from archiveprobe.probe.features import find_reader, load_features
from archiveprobe.probe.table import PROBES
from archiveprobe.task.decoding import REJECTIONS

AUGMENTED_VIEWS = "augment8"
"""The augmented views that a recipe trained from the cache draws among."""
# Such images are somewhere else; a part that was trained without them would never get them back.
_MISSING = frozenset({"missing_file", "unreadable_file", "changed_file"})
_SHOWN = 3


@contextmanager
def image_rows(
    dataset: Dataset,
    recipe: Recipe,
    network: Network,
    *,
    workers: int | None = None,
    shared: bool = False,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Iterator[ImageRows]:
    """Decode the images of the labelled rows followed by those to predict.

    `workers` processes decode, None: one per core. With `shared` other processes can read the
    pixels.

    Raises:
        InputError: images are gone or have changed since they were embedded, or the disk takes no
            more pixels.
    """
    ids = [*dataset.labelled.ids.tolist(), *dataset.unlabelled.ids.tolist()]
    entries = [*dataset.labelled.entries, *dataset.unlabelled.entries]
    files = [(entry.path, entry.digest) if entry.usable else ("", "") for entry in entries]
    with progress("decoding", len({key for _, key in files if key})) as advance:
        pixels = load_pixels(
            dataset.task.root,
            files,
            pixel_spec(recipe, network),
            dataset.task.work / "finetune",
            workers=default_workers() if workers is None else workers,
            blank=recipe.rows.unreadable == "blank",
            # Processes can share a file only.
            memory_limit=0 if shared else MEMORY_LIMIT,
            advance=advance,
        )
    with pixels:
        # Images that were readable when they were embedded, and give no pixels now.
        lost = {
            id_: status
            for id_, status, (_, key) in zip(ids, pixels.statuses, files, strict=True)
            if key and status in REJECTIONS
        }
        names = [*list(lost)[:_SHOWN], *["..."] * (len(lost) > _SHOWN)]
        which = f"{number_of(len(lost), 'image')} ({', '.join(names)})"
        if _MISSING & set(lost.values()):
            raise InputError(
                f"{which} gone or changed since they were embedded: bring them back, or "
                "run embed again"
            )
        if lost:
            why = ", ".join(sorted(set(lost.values())))
            notify(
                f"{which} could be read before and give no pixels now ({why}): not used for "
                "training"
            )
        augmentation = Augmentation(recipe.augment, network.preprocess, recipe.seed)
        yield ImageRows(pixels, network.preprocess, augmentation)


def pixel_spec(recipe: Recipe, network: Network) -> PixelSpec:
    """Return what to keep of every image for a recipe and its network."""
    geometry = network.preprocess.geometry
    side = stored_side(geometry.size, recipe.augment.crop_scale[0])
    return PixelSpec(side, geometry, view_set(recipe.predict.views))


def token_rows(
    dataset: Dataset,
    recipe: Recipe,
    network: Network,
    backbone: Backbone,
    *,
    device: str = "cpu",
    workers: int | None = None,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> tuple[Network, InputRows]:
    """Return the network from its last block on, and the tokens that are its input.

    Tokens that are not in the cache yet are embedded first.

    Raises:
        InputError: the cache cannot serve this recipe, cannot be written or is damaged.
    """
    short = token_network(network)
    draws = AUGMENTED_VIEWS if check_recipe(recipe) else None
    # Not "auto": what is trained on these tokens answers images in fp32 later.
    options = EmbedOptions(device=device, workers=workers, precision="fp32")
    for views in dict.fromkeys((recipe.predict.views, draws)):
        if views is not None:
            task = token_task(dataset.task, backbone.name, views)
            embed(task, options, notify=notify, progress=progress)
    rows = load_tokens(
        dataset.task,
        backbone,
        network,
        [*dataset.labelled.keys, *dataset.unlabelled.keys],
        views=recipe.predict.views,
        draws=draws,
        seed=recipe.seed,
    )
    if recipe.rows.unreadable == "blank":
        spec = replace(pixel_spec(recipe, network), views=view_set("center"))
        white = render(blank_image(spec.side), spec.geometry, spec.views, seed="")
        tokens = tokens_of(network, normalise(white.crops, network.preprocess))
        rows = rows.fill_unreadable(tokens[0].half().numpy())
    return short, rows


def start_at_probe(
    dataset: Dataset, recipe: Recipe, network: Network, backbone: Backbone, rows: np.ndarray
) -> None:
    """Start the head as the linear probe of the rows to train on (LP-FT).

    Raises:
        InputError: the backbone is not embedded, or with other weights, pixels or layers.
    """
    remedy = (
        'set layers = "pooled" under [embed] of task.toml, leave out model.size or spell the '
        f"preprocessing out in [backbone.{backbone.name}.preprocess], and run `archiveprobe embed "
        f'{dataset.task.shell_path} --backbone {backbone.name}`; or set model.head_init = "random"'
    )
    check_cache(find_reader(dataset, backbone.name), network, "pooled", remedy)
    features = load_features(dataset, Choice((backbone.name,)))
    rows = rows[features.readable[rows]]
    x, y, groups = features.labelled[rows, 0], dataset.labels[rows], dataset.groups[rows]
    probe = PROBES["logistic"].make(seed=recipe.seed).fit(x, y, groups)
    start_head(network.head, probe.arrays())
