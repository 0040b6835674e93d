"""Units of work: the images that one part of the answers holds, and who computes which."""

import re
from dataclasses import dataclass
from typing import Self

from archiveprobe.archive.references import Reference
from archiveprobe.base.errors import InputError

UNIT_IMAGES = 64
UNIT_BYTES = 64_000_000


def images_per_unit(image_bytes: int) -> int:
    """Return how many images make a unit: 64, or as many as have 64 MB of decoded pixels.

    `image_bytes` is what the views of one image take at most, as uint8.
    """
    return max(1, min(UNIT_IMAGES, UNIT_BYTES // max(1, image_bytes)))


@dataclass(frozen=True, slots=True)
class Unit:
    """Images that are decoded, encoded, answered and written together."""

    number: int
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """The `k`-th of `n` shares of all units, counted from 1."""

    k: int
    n: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "2/4".

        Raises:
            InputError: it is none of 1/N to N/N.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        k, n = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= k <= n:
            raise InputError(f"no share {text!r}: write K/N with K from 1 to N, for example 1/4")
        return cls(k, n)

    def owns(self, number: int) -> bool:
        """Return whether the unit with this number, counted from 0, belongs to the share."""
        return number % self.n == self.k - 1

    def __str__(self) -> str:
        return f"{self.k}of{self.n}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a writer says of a unit's part when it is on disk."""

    unit: int
    file: str
    rows: int
    bytes: int
    sha256: str
