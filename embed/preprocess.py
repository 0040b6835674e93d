"""How a backbone wants its pixels, or its texts: frozen records that travel with the weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from archiveprobe.task.config import Decode
from archiveprobe.task.config import Preprocess as TaskPreprocess


@dataclass(frozen=True)
class Geometry:
    """The pixel part of a preprocessing; backbones with equal geometry share their crops.

    `size` is the side of the square input in pixels. Before its centre is cropped, `crop` brings
    the shorter side ("center"), both sides ("squash") or the longer side ("border", padded with
    `fill`) to `resize` pixels. `decode` says how the pixels of a JPEG are made; "gpu" resizes
    them there, too.
    """

    size: int
    resize: int
    crop: str = "center"
    interpolation: str = "bicubic"
    fill: tuple[int, int, int] = (0, 0, 0)
    decode: Decode = "exact"


def geometry_of_record(record: Mapping[str, Any]) -> Geometry:
    """Return the geometry in what `Preprocess.record` gave, also when it was read from JSON."""
    red, green, blue = record["fill"]
    named = {name: record[name] for name in ("size", "resize", "crop", "interpolation")}
    return Geometry(**named, fill=(red, green, blue), decode=record.get("decode", "exact"))


@dataclass(frozen=True)
class Preprocess:
    """Geometry, and the channel means and standard deviations of pixels scaled to [0, 1]."""

    geometry: Geometry
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def record(self) -> dict[str, Any]:
        """Return the preprocessing spelled out, as fingerprints keep it."""
        record = {**asdict(self.geometry), "mean": self.mean, "std": self.std}
        if self.geometry.decode == "exact":
            # Older records have no such field: there was no other way.
            del record["decode"]
        return record

    def decoded(self, how: Decode) -> Self:
        """Return the same of images that are decoded in that way."""
        return replace(self, geometry=replace(self.geometry, decode=how))


@dataclass(frozen=True)
class Tokens:
    """How a text becomes tokens, and what a similarity to it is multiplied by (and added to)."""

    tokenizer: str
    length: int
    scale: float
    bias: float

    def record(self) -> dict[str, Any]:
        """Return all of it spelled out, as fingerprints keep it."""
        return asdict(self)


def from_task(settings: TaskPreprocess) -> Preprocess:
    """Return the preprocessing that a task.toml spells out."""
    resize = settings.size if settings.resize is None else settings.resize
    geometry = Geometry(settings.size, resize, settings.crop, settings.interpolation)
    return Preprocess(geometry, settings.mean, settings.std)
