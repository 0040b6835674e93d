"""What is asked of a ranking, and what it lists."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.predict.columns import probability, probability_columns
from archiveprobe.predict.rank.best import Ranked

LIKELIEST, UNCERTAIN, TYPICAL = "likeliest", "uncertain", "typical"


@dataclass(frozen=True)
class Wish:
    """What to list: `top` images by their answers (`by`), or those alike to a text or an image.

    `label` is the class, by default the positive one; `system` whose answers count for the task's
    own rows.
    """

    by: str = LIKELIEST
    label: str | None = None
    text: str | None = None
    like: str | None = None
    backbone: str | None = None
    system: str | None = None
    top: int = 20
    all_duplicates: bool = False


@dataclass(frozen=True)
class Ranking:
    """Holds the images listed, the first the highest; `candidates` counts those that had a score.

    `score` says what the column `score` of every image is; `notes` what was decided, a sentence
    each.
    """

    score: str
    label: str | None
    backbone: str | None
    classes: tuple[str, ...]
    images: list[Ranked]
    candidates: int
    snapshot: str
    notes: list[str]
    file: Path | None = None

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {
            "file": None if self.file is None else str(self.file),
            "score": self.score,
            "label": self.label,
            "backbone": self.backbone,
            "candidates": self.candidates,
            "snapshot": self.snapshot,
            "images": [self._record(at, image) for at, image in enumerate(self.images, 1)],
        }

    def _record(self, at: int, image: Ranked) -> dict[str, Any]:
        proba = {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(probability_columns(self.classes), image.proba, strict=True)
        }
        return {
            "rank": at,
            "id": image.id,
            "score": image.score,
            "copies": image.copies,
            "label": image.label,
            **proba,
            "digest": image.digest,
        }

    def summary(self) -> str:
        """Return what was written, in a sentence."""
        return f"{len(self.images)} of {self.candidates} images by {self.score} in {self.file}"

    def lines(self) -> list[dict[str, Any]]:
        """Return a line for every image, for people."""
        return [
            {
                "rank": at,
                "id": image.id,
                self.score: f"{image.score:.4f}",
                "label": image.label,
                "copies": image.copies,
            }
            for at, image in enumerate(self.images, 1)
        ]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the columns of a table and its lines."""
        columns = ["rank", "id", "score", "copies", "label", *probability_columns(self.classes)]
        lines = [
            [
                str(at),
                image.id,
                probability(image.score),
                str(image.copies),
                image.label or "",
                *map(probability, image.proba),
                image.digest,
            ]
            for at, image in enumerate(self.images, 1)
        ]
        return [*columns, "digest"], lines
