"""The probes there are: one line adds one, and the contract test covers it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import nearest

if TYPE_CHECKING:
    from archiveprobe.probe.base import Probe

TORCH, PROMPTS = "torch", "prompts"


@dataclass(frozen=True)
class ProbeEntry:
    """A probe: where it is ("module:Class"), what it is, and when it is tried.

    Probes with `default` are tried where nobody names any; `needs` says what must be at hand
    (TORCH, PROMPTS); `complexity` orders them from simple to involved. `most_rows` is how many rows
    it can learn from in reasonable time and memory, None for as many as there are. The logits of a
    `linear` one are its columns times coef (c, d, K) plus intercept (c, K), and nothing else.
    """

    name: str
    place: str
    what: str
    complexity: int
    default: bool = True
    needs: frozenset[str] = frozenset()
    most_rows: int | None = None
    linear: bool = False

    def kind(self) -> "type[Probe]":
        """The class; its libraries load now."""
        module, _, name = self.place.partition(":")
        found: type[Probe] = getattr(import_module(module), name)
        return found

    def make(self, **settings: Any) -> "Probe":
        """A probe with these settings."""
        return self.kind()(**settings)


_TABLE = (
    ProbeEntry(
        "zeroshot",
        "archiveprobe.probe.zeroshot:ZeroShot",
        "cosine to the classes' prompts, nothing learned (CLIP, Radford et al. 2021)",
        0,
        needs=frozenset({PROMPTS}),
    ),
    ProbeEntry(
        "ridge",
        "archiveprobe.probe.linear:RidgePath",
        "least squares on class indicators, all penalties (Suykens and Vandewalle 1999)",
        1,
        linear=True,
    ),
    ProbeEntry(
        "lda",
        "archiveprobe.probe.lda:DiscriminantPath",
        "linear discriminant, all shrinkages (Fisher 1936; Ledoit and Wolf 2004)",
        2,
        linear=True,
    ),
    ProbeEntry(
        "logistic",
        "archiveprobe.probe.linear:LogisticPath",
        "logistic regression, all L2 penalties (the linear probe of CLIP and DINO)",
        3,
        linear=True,
    ),
    ProbeEntry(
        "prompted",
        "archiveprobe.probe.zeroshot:PromptedPath",
        "logistic regression pulled towards the prompts (Lin et al. 2023)",
        4,
        needs=frozenset({PROMPTS}),
    ),
    ProbeEntry(
        "knn",
        "archiveprobe.probe.knn:NeighbourPath",
        "nearest neighbours by cosine, temperature 0.07 (DINO, Caron et al. 2021)",
        5,
        most_rows=20_000,
    ),
    ProbeEntry(
        "svm",
        "archiveprobe.probe.svm:SupportVectorPath",
        "support vector machine with a Gaussian kernel (Cortes and Vapnik 1995)",
        6,
        most_rows=5_000,
    ),
    ProbeEntry(
        "lightgbm",
        "archiveprobe.probe.trees:TreePath",
        "boosted trees on 64 principal components (LightGBM, Ke et al. 2017)",
        7,
    ),
    ProbeEntry(
        "mlp",
        "archiveprobe.probe.mlp:Mlp",
        "one hidden layer, focal loss (the CLIP paper's head, Hegazy and Ragab 2026)",
        8,
        default=False,
        needs=frozenset({TORCH}),
    ),
)
PROBES: Mapping[str, ProbeEntry] = {entry.name: entry for entry in _TABLE}


def make_probe(name: str, **settings: Any) -> "Probe":
    """Build a probe by its name.

    Raises:
        InputError: no such probe, or it has no such setting; the nearest is named.
    """
    if name not in PROBES:
        known = ", ".join(PROBES)
        raise InputError(f"unknown probe {name!r}{nearest(name, PROBES)}: use one of {known}")
    entry = PROBES[name]
    known_settings = list(signature(entry.kind()).parameters)
    for setting in settings:
        if setting not in known_settings:
            hint = nearest(setting, known_settings)
            raise InputError(f"unknown setting {setting!r} of probe {name}{hint}: remove it")
    return entry.make(**settings)
