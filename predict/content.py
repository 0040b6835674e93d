"""A unit of an archive in memory: what systems answer from without reading a cache."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from archiveprobe.embed.forward import ForwardThreads
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.unit_encoder import UnitEmbeddings


@dataclass(frozen=True)
class UnitContent:
    """Holds what is in memory of a unit: its m images, and their embeddings by backbone.

    The images were prepared by `preparation`; networks look at them in `threads`. What was made of
    them once, for one of several members of an ensemble, lies in `known`.

    Where `is_split`, each of an image's V views counts as an image of its own: m * V rows.
    """

    images: Sequence[PreparedImage]
    preparation: Preparation
    embeddings: Mapping[str, UnitEmbeddings]
    threads: ForwardThreads
    is_split: bool = False
    known: dict[Hashable, np.ndarray] = field(default_factory=dict)

    def split_views(self) -> "UnitContent":
        """Return the same content with a row for every view."""
        split = {name: rows.split_views() for name, rows in self.embeddings.items()}
        # What networks said of every view is known already.
        return replace(self, embeddings=split, is_split=True, known=dict(self.known))

    def once(self, what: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return what `make` makes; for one `what` it is called once."""
        if what not in self.known:
            self.known[what] = make()
        return self.known[what]
