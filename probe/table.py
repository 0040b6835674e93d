"""The probes there are: one entry adds one, and the contract test covers it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import nearest

if TYPE_CHECKING:
    from archiveprobe.probe.base import Probe


@dataclass(frozen=True)
class ProbeEntry:
    """A probe: where it is ("module:Class"), what it is, and what it takes.

    One with `prompts` is tried on backbones with a text tower, where the task has prompts.
    `most_rows` is how many rows it can learn from in reasonable time and memory, None for as many
    as there are. The logits of a `linear` one are its columns times coef (c, d, K) plus intercept
    (c, K), and nothing else.
    """

    name: str
    place: str
    what: str
    prompts: bool = False
    most_rows: int | None = None
    linear: bool = False

    def kind(self) -> "type[Probe]":
        """Import the class; its libraries load now."""
        module, _, name = self.place.partition(":")
        kind: type[Probe] = getattr(import_module(f"archiveprobe.probe.{module}"), name)
        return kind

    def make(self, **settings: Any) -> "Probe":
        """Make a probe with these settings."""
        return self.kind()(**settings)


# From simple to involved: where two are as good, the leaderboard recommends the earlier one.
_TABLE = (
    ProbeEntry(
        "zeroshot",
        "zeroshot:ZeroShot",
        "cosine to the classes' prompts, nothing learned (Radford et al. 2021)",
        prompts=True,
    ),
    ProbeEntry(
        "ridge",
        "linear:Ridge",
        "least squares, all penalties (Suykens and Vandewalle 1999)",
        linear=True,
    ),
    ProbeEntry(
        "lda",
        "lda:LDA",
        "linear discriminant, all shrinkages (Fisher 1936; Ledoit, Wolf 2004)",
        linear=True,
    ),
    ProbeEntry(
        "logistic",
        "linear:Logistic",
        "logistic regression, all penalties (the linear probe of CLIP, DINO)",
        linear=True,
    ),
    ProbeEntry(
        "knn",
        "knn:KNN",
        "nearest neighbours by cosine (DINO, Caron et al. 2021)",
        most_rows=64_000,
    ),
    ProbeEntry(
        "svm",
        "svm:SVM",
        "support vector machine with a Gaussian kernel (Cortes and Vapnik 1995)",
        most_rows=5_000,
    ),
    ProbeEntry(
        "lightgbm",
        "trees:LightGBM",
        "boosted trees on 64 principal components (LightGBM, Ke et al. 2017)",
    ),
)
PROBES: Mapping[str, ProbeEntry] = {entry.name: entry for entry in _TABLE}


def probe_entry(name: str) -> ProbeEntry:
    """Return the entry of a probe.

    Raises:
        InputError: no such probe; the message names the nearest.
    """
    if name not in PROBES:
        known = ", ".join(PROBES)
        raise InputError(f"unknown probe {name!r}{nearest(name, PROBES)}: use one of {known}")
    return PROBES[name]
