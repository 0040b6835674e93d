"""What a threshold finds of a label, how much of it is right, and how many rows to look through."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from archiveprobe.evaluate.intervals import intervals
from archiveprobe.evaluate.metrics import replicated


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval; all None where it is undefined."""

    estimate: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Return it for people."""
        if self.estimate is None:
            return "-"
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class ReviewLoad:
    """Holds recall and precision of a label at nested thresholds, and the rows above the final one.

    `review` of the `to_predict` rows to predict are above it, `unreadable` of them have no image;
    `per_thousand` is how many of 1,000 rows like the labelled ones are.
    """

    recall: Estimate
    precision: Estimate
    review: int
    to_predict: int
    unreadable: int
    per_thousand: float

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return asdict(self)

    def sentence(self) -> str:
        """Say how many rows to look through."""
        unread = f", {self.unreadable} cannot be read" if self.unreadable else ""
        return (
            f"to review: {self.review} of {self.to_predict} rows to predict{unread}; "
            f"{self.per_thousand:.0f} of 1,000 rows like the labelled ones"
        )


def review_load(
    y: np.ndarray,
    decision: np.ndarray,
    fold: np.ndarray,
    groups: np.ndarray,
    positive: int,
    to_predict: np.ndarray,
    threshold: float,
) -> ReviewLoad:
    """Measure nested decisions (R, n) of two classes, and probabilities (m,) of rows to predict.

    Labelled rows without an image count, with their decision. The intervals are grouped, as those
    of every score.
    """
    recall, precision = f"recall of {positive}", f"precision of {positive}"
    found = intervals(y, decision, groups, 2, names=(recall, precision), fold=fold)
    values = replicated(y, decision, 2, names=(recall, precision))
    above = decision == positive

    def estimate(name: str, defined: bool) -> Estimate:
        interval = found[name] if defined else None
        return Estimate(*((None,) * 3 if interval is None else (float(values[name][0]), *interval)))

    return ReviewLoad(
        estimate(recall, bool((y == positive).any())),
        estimate(precision, bool(above.any())),
        int((to_predict > threshold).sum()),
        len(to_predict),
        int(np.isnan(to_predict).sum()),
        1000 * float(above.mean()),
    )
