"""From a network's logits of views to one answer: their mean, or a vote."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

from archiveprobe.embed import libraries
from archiveprobe.embed.views import View, view_set
from archiveprobe.finetune.model import Network
from archiveprobe.finetune.recipe import Recipe

_AT_ONCE = 32
_CENTRES = ("center", "crop-middle")


class Looks(Protocol):
    """Rows to learn and to look at: PictureRows or TokenRows."""

    @property
    def readable(self) -> np.ndarray:
        """(n,) whether there is something to look at."""
        ...

    def learn(
        self,
        rows: Sequence[int] | np.ndarray,
        epoch: int,
        occurrence: Sequence[int] | np.ndarray | None = None,
    ) -> Any:
        """A batch of rows as they are drawn in an epoch; see finetune.loader.Source."""
        ...

    def look(self, rows: Sequence[int] | np.ndarray, view: int) -> Any:
        """A batch of rows through a view."""
        ...


def centre_of(views: Sequence[View]) -> int:
    """The unmirrored centre view; the first view where there is none."""
    for at, view in enumerate(views):
        if view.crop in _CENTRES and not view.mirror:
            return at
    return 0


def logits_of(
    network: Network, source: Looks, rows: np.ndarray, views: Sequence[int], *, device: str = "cpu"
) -> np.ndarray:
    """Logits (n, V, K) float64 of rows through views, by a network in eval mode; NaN without a
    image.
    """
    torch = libraries.torch()
    seen = np.asarray(source.readable)[rows]
    found: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, int(seen.sum()), _AT_ONCE):
            some = rows[seen][start : start + _AT_ONCE]
            by_view = [network(source.look(some, view).to(device)) for view in views]
            found.append(torch.stack(by_view, 1).double().cpu().numpy())
    classes = _classes(network)
    out = np.full((len(rows), len(views), classes), np.nan)
    if found:
        out[seen] = np.concatenate(found)
    return out


def argmax_at_centre(
    network: Network, source: Looks, rows: np.ndarray, recipe: Recipe, *, device: str = "cpu"
) -> np.ndarray:
    """The likeliest class (n,) of rows through the centre view alone: what chooses an epoch."""
    centre = centre_of(view_set(recipe.predict.views))
    logits = logits_of(network, source, rows, [centre], device=device)
    return np.asarray(np.nan_to_num(logits[:, 0]).argmax(-1))


def averaged(logits: np.ndarray, axis: int) -> np.ndarray:
    """Logits whose softmax is the mean of the probabilities along an axis (views, networks)."""
    logs = log_softmax(logits, -1)
    return np.asarray(logsumexp(logs, axis) - np.log(logits.shape[axis]))


def voted(logits: np.ndarray, views: Sequence[View], positive: int) -> np.ndarray:
    """The class (n,) that most views of (n, V, K) vote for; if they are even, the centre decides.

    Of two classes a view votes for the positive one when its probability is above 0.5. Should the
    centre be for neither of three or more that are even, the likeliest of them on average wins.
    """
    p = np.nan_to_num(softmax(logits, -1))
    n, _, k = p.shape
    choice = p.argmax(-1)
    if k == 2:
        choice = np.where(p[..., positive] > 0.5, positive, 1 - positive)
    votes = np.stack([(choice == each).sum(1) for each in range(k)], 1)
    even = votes == votes.max(1, keepdims=True)
    likeliest = np.where(even, p.mean(1), -1).argmax(1)
    centre = choice[:, centre_of(views)]
    return np.asarray(np.where(even[np.arange(n), centre], centre, likeliest))


def _classes(network: Network) -> int:
    nn = libraries.torch().nn
    return int([part for part in network.head if isinstance(part, nn.Linear)][-1].out_features)
