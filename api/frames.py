"""DataFrames of rows, predictions, leaderboards and thresholds: one function makes each."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.api.arguments import check_number
from archiveprobe.api.state import Pinned
from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.majority import majority_decision
from archiveprobe.predict.columns import probability_columns
from archiveprobe.task.decoding import Observation
from archiveprobe.task.find_images import printable
from archiveprobe.task.manifest import Entry

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow

    from archiveprobe.evaluate.compare import Compared
    from archiveprobe.evaluate.leaderboard import Leaderboard
    from archiveprobe.evaluate.predictions import Predictions
    from archiveprobe.evaluate.threshold_report import ThresholdReport
    from archiveprobe.predict.images import ImageAnswers

# Whole numbers stay whole beside images that could not be measured.
_TYPES: dict[Any, str] = {int | None: "Int64", float | None: "float64"}
_OBSERVED = {name: _TYPES.get(kind, "object") for name, kind in Observation.__annotations__.items()}


def rows_frame(pinned: Pinned, repeat: int) -> "pd.DataFrame":
    """Return rows as the table has them, with their folds and what was observed of their images."""
    import pandas as pd

    rows, entries = pinned.rows, pinned.entries
    frame = pd.DataFrame(
        {
            "id": pd.Series([row.id for row in rows], dtype=object),
            "path": pd.Series([printable(row.path) for row in rows], dtype=object),
            "label": pd.Categorical([row.label for row in rows], list(pinned.task.labels)),
            "split": pd.Series([row.split for row in rows], dtype=object),
            "text": pd.Series([row.text for row in rows], dtype=object),
            "group": pd.Series(pd.NA, index=range(len(rows)), dtype="Int64"),
            "fold": pd.Series(pd.NA, index=range(len(rows)), dtype="Int64"),
            "digest": pd.Series([entry.digest for entry in entries], dtype=object),
        }
    )
    if pinned.dataset is not None:
        known = frame.label.notna()
        frame.loc[known, "group"] = pinned.dataset.groups
        frame.loc[known, "fold"] = _fold(pinned.dataset.fold, repeat)
    return frame.join(_observations(entries))


def _observations(entries: Sequence[Entry]) -> "pd.DataFrame":
    import pandas as pd

    unseen = ("new", *[None] * (len(_OBSERVED) - 1))
    seen = [entry.observed or unseen for entry in entries]
    return pd.DataFrame(seen, columns=list(_OBSERVED), dtype=object).astype(_OBSERVED)


def _fold(fold: np.ndarray, repeat: int) -> np.ndarray:
    """Return the folds (n,) of one repeat.

    Raises:
        InputError: there is no such repeat.
    """
    check_number("repeat", repeat, 0)
    if repeat >= len(fold):
        raise InputError(f"no repeat {repeat}: the folds have {len(fold)}, counted from 0")
    return np.asarray(fold[repeat])


def oof_frame(stored: "Predictions", repeat: int | None) -> "pd.DataFrame":
    """Return out-of-fold predictions of one repeat, or of all: mean probabilities, a majority.

    Raises:
        InputError: there is no such repeat.
    """
    import pandas as pd

    fold = _fold(stored.fold, 0 if repeat is None else repeat)
    if repeat is None:
        proba, decision = stored.oof.mean(0), majority_decision(stored)
    else:
        proba, decision = stored.oof[repeat], stored.decision[repeat]
    return pd.DataFrame(
        {
            "id": stored.ids.astype(object),
            "label": labels_of(stored.labels, stored.classes),
            "fold": fold,
            "decision": labels_of(decision, stored.classes),
            **proba_columns(proba, stored.classes),
            "correct": decision == stored.labels,
        }
    )


def labels_of(numbers: np.ndarray, classes: Sequence[str] | np.ndarray) -> "pd.Categorical":
    """Return class indices (n,) as labels; -1 is a missing one."""
    import pandas as pd

    return pd.Categorical.from_codes(numbers, [str(name) for name in classes])


def proba_columns(proba: np.ndarray, classes: Sequence[str] | np.ndarray) -> dict[str, np.ndarray]:
    """Return probabilities (n, K) as one column per label."""
    return dict(zip(probability_columns(classes), proba.T, strict=True))


def answers_frame(answers: "ImageAnswers") -> "pd.DataFrame":
    """Return what a system says of images."""
    import pandas as pd

    return pd.DataFrame(
        {
            "id": pd.Series([entry.id for entry in answers.entries], dtype=object),
            "digest": pd.Series([entry.digest for entry in answers.entries], dtype=object),
            "status": pd.Series(answers.status, dtype=object),
            "label": pd.Categorical(answers.labels, answers.classes),
            **proba_columns(answers.proba, answers.classes),
        }
    )


def part_frames(folder: Path) -> Iterator["pd.DataFrame"]:
    """Yield what the parts of a folder of answers hold.

    Raises:
        InputError: it is no folder of answers, or a part is damaged.
    """
    from archiveprobe.predict.answers.read import iterate_parts, open_record

    classes = open_record(folder).classes
    return (_part_frame(table, classes) for table in iterate_parts(folder))


def whole_frame(folder: Path) -> "pd.DataFrame":
    """Return the answers of a folder as `answers_frame` gives them. Raises InputError."""
    import pandas as pd

    frame = pd.concat(part_frames(folder), ignore_index=True)
    return frame.drop(columns=["spread", "backbone", "system"])


def _part_frame(table: "pyarrow.Table", classes: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    frame: pd.DataFrame = table.to_pandas()
    texts = frame.select_dtypes(exclude="number").columns
    frame = frame.astype(dict.fromkeys(texts, object))
    frame["digest"] = frame.digest.fillna("")
    frame["label"] = pd.Categorical(frame.label, list(classes))
    return frame


def board_frame(board: "Leaderboard") -> "pd.DataFrame":
    """Return the lines of a leaderboard; `attrs` has what else `--json` gives."""
    import pandas as pd

    record = board.record()
    frame = pd.DataFrame(record.pop("leaderboard"))
    frame.attrs |= record
    return frame


def compared_frame(done: "Compared") -> "pd.DataFrame":
    """Return the figures of two systems and their differences; `attrs` has the rest of `--json`."""
    import pandas as pd

    record = done.record()
    a, b, differences = (record.pop(name) for name in ("a", "b", "difference"))
    frame = pd.DataFrame(
        [
            {"metric": name, "a": a[name]["value"], "b": b[name]["value"], **difference}
            for name, difference in differences.items()
        ]
    )
    frame.attrs |= record | {"a": a["system"], "b": b["system"]}
    return frame


def curve_frame(report: "ThresholdReport") -> "pd.DataFrame":
    """Return the curve of a threshold; `attrs` has what else `--json` gives."""
    import pandas as pd

    record = report.record()
    frame = pd.DataFrame(record.pop("curve"), dtype=float)
    frame.attrs |= record
    return frame
