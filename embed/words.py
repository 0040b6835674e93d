"""Words beside images: the texts of a task that a CLIP has embedded, and free words."""

from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.embed.backbones import PRETRAINED, RANDOM, Backbone, resolve, text_tower
from archiveprobe.embed.faults import network_at_work
from archiveprobe.embed.weights import locate
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.evaluate.cosines import scale_to_unit
from archiveprobe.task.config import Task
from archiveprobe.task.snapshot import Snapshot
from archiveprobe.task.texts import text_cache, text_key

if TYPE_CHECKING:
    from archiveprobe.embed.text_tower import TextNetwork


def prompts(task: Task) -> list[str]:
    """List the prompts of a task in the order of its labels, each once."""
    return list(
        dict.fromkeys(text for label in task.labels for text in task.prompts.get(label, ()))
    )


def tower_of(task: Task, name: str) -> Backbone | None:
    """Return the text tower of a backbone of the task whose embeddings lie beside its images.

    None where the backbone has none, or where its images are embedded at another layer.

    Raises:
        InputError: an unknown backbone.
    """
    return text_tower(resolve(name, task)) if task.embed.layers == "pooled" else None


def takes_free_words(tower: Backbone) -> bool:
    """Say whether any words can be embedded here, as far as that is known without its library."""
    return tower.weights in (PRETRAINED, RANDOM) or Path(tower.weights).is_file()


def stored_texts(
    task: Task, snapshot: Snapshot, name: str, words: Sequence[str], *, partial: bool
) -> np.ndarray:
    """Read the unit embeddings (m, d) of texts through a backbone, NaN for those it has not seen.

    Raises:
        InputError: its text tower has no cache, or that is damaged or unfinished.
    """
    keys = [text_key(text) for text in words]
    reader = open_in_use(task, snapshot, text_cache(name), keys=keys, partial=partial)
    vectors = reader.read(keys)[1].reshape(len(keys), -1).astype(np.float32)
    scale_to_unit(vectors)
    return np.asarray(vectors)


def load_tower(tower: Backbone) -> "TextNetwork":
    """Load a text tower on the CPU. Its weights are not downloaded.

    Raises:
        InputError: the weights or the tokenizer are not on this machine, or do not fit.
    """
    from archiveprobe.embed.networks import load_backbone
    from archiveprobe.embed.text_tower import TextNetwork

    if tower.weights == PRETRAINED and locate(tower) is None:
        raise InputError(
            f"the weights of {tower.name}, which embed words, are not on this machine: run "
            "`archiveprobe weights TASK` where there is a network"
        )
    network = load_backbone(tower)
    assert isinstance(network, TextNetwork)
    return network


def embed_words(network: "TextNetwork", words: str) -> np.ndarray:
    """Embed words as a unit vector (d,) float32.

    Raises:
        InputError: memory runs out, or the network fails.
    """
    tokens = network.tokens([words])
    with network_at_work(f"{network.name} on cpu", "embed words"):
        vectors = network.embed(tokens, np.zeros(1, bool))
    scale_to_unit(vectors)
    return np.asarray(vectors[0])


def vector_of_words(
    task: Task,
    snapshot: Snapshot,
    name: str,
    words: str,
    towers: MutableMapping[str, "TextNetwork"],
    *,
    partial: bool = False,
) -> np.ndarray:
    """Return words as a unit vector (d,) beside the images of a backbone of the task.

    Prompts and captions that `embed` has seen are read; for others the text tower is loaded, once
    into `towers`.

    Raises:
        InputError: the backbone embeds no words, or its weights are not on this machine.
    """
    tower = tower_of(task, name)
    if tower is None:
        raise InputError(f"{name} embeds no words: choose a CLIP among embed.backbones")
    try:
        vector = stored_texts(task, snapshot, name, [words], partial=partial)[0]
        if np.isfinite(vector).all():
            return np.asarray(vector)
    except InputError:
        pass
    if name not in towers:
        towers[name] = load_tower(tower)
    return embed_words(towers[name], words)


def check_comparable(name: str, vector: np.ndarray, width: int) -> None:
    """Refuse words (d,) where images have another `width`, as before a projection.

    Raises:
        InputError: the two cannot be compared.
    """
    if vector.shape != (width,):
        raise InputError(
            f"{name} embeds words in {len(vector)} numbers and images in {width}: "
            "they cannot be compared"
        )
