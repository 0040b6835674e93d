"""How a backbone wants its pixels: a frozen record that travels with the weights."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from archiveprobe.task.config import Preprocess as Override


class Input(Protocol):
    """How the input of a network is made."""

    def record(self) -> dict[str, Any]:
        """All of it spelled out, as fingerprints keep it."""
        ...


@dataclass(frozen=True)
class Geometry:
    """The pixel part of a preprocessing; backbones with equal geometry share their crops.

    `size` is the side of the square input in pixels. Before its centre is cut out, `crop` brings
    the shorter side ("center"), both sides ("squash") or the longer side ("border", padded with
    `fill`) to `resize` pixels.
    """

    size: int
    resize: int
    crop: str = "center"
    interpolation: str = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Preprocess:
    """Geometry, and the channel means and standard deviations of pixels scaled to [0, 1]."""

    geometry: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def record(self) -> dict[str, Any]:
        """The preprocessing spelled out, as fingerprints keep it."""
        return {**asdict(self.geometry), "mean": self.mean, "std": self.std}


def geometry_of(given: Input) -> Geometry:
    """The pixel geometry of an encoder that looks at images."""
    assert isinstance(given, Preprocess)
    return given.geometry


def from_override(override: Override) -> Preprocess:
    """The preprocessing that a task.toml spells out."""
    resize = override.size if override.resize is None else override.resize
    geometry = Geometry(override.size, resize, override.crop, override.interpolation)
    return Preprocess(geometry, override.mean, override.std)
