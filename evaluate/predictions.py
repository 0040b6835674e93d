"""The one form of every system's predictions: out-of-fold, decisions, test, and their origin."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import one_line

_VERSION = 1


@dataclass(frozen=True)
class Predictions:
    """What a system says of every row, and on which rows each number was trained.

    n labelled rows, m rows to predict, K classes, R repeats of the folds, V views. Rows whose
    image cannot be read have NaN probabilities and the `unreadable` answer as their decision.

    classes: (K,) label names, the order of the columns.
    ids, labels, groups: (n,) labelled rows, their class, their near-duplicate group.
    fold: (R, n) the fold of every row; `oof` and `decision` of a row come from the rows of the
        other folds of that repeat only.
    oof: (R, n, K) out-of-fold probabilities. decision: (R, n) class, at a threshold that was chosen
        without the row's fold.
    thresholds: (R, folds) the thresholds of those decisions, NaN where there is none; threshold:
    the final one. test_ids: (m,); test: (m, K) probabilities by the system trained on all labelled
    rows. oof_views (R, n, V, K), test_views (m, V, K): per view, where the system looks at views.
    answer: (m,) class of the rows to predict, where a vote decides instead of probabilities.
    origin: what produced them, and the digests that they depend on.
    """

    classes: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    fold: np.ndarray
    oof: np.ndarray
    decision: np.ndarray
    thresholds: np.ndarray
    threshold: float
    test_ids: np.ndarray
    test: np.ndarray
    origin: Mapping[str, Any] = field(default_factory=dict)
    oof_views: np.ndarray | None = None
    test_views: np.ndarray | None = None
    answer: np.ndarray | None = None

    @property
    def system(self) -> str:
        """Return the name of the system."""
        return str(self.origin.get("system", ""))

    @property
    def readable(self) -> np.ndarray:
        """Return whether a row has probabilities, (n,)."""
        result: np.ndarray = np.isfinite(self.oof).all((0, 2))
        return result

    @property
    def positive(self) -> int:
        """Return the index of the positive class; the last one where none is named."""
        return int(self.origin.get("positive", len(self.classes) - 1))

    @property
    def digest(self) -> str:
        """SHA-256 of the content of its file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the content of an .npz file of plain arrays."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        threshold = None if np.isnan(self.threshold) else float(self.threshold)
        head = {"version": _VERSION, "threshold": threshold, "origin": self.origin}
        out = io.BytesIO()
        text = json.dumps(head, sort_keys=True, ensure_ascii=False, allow_nan=False)
        arrays["head"] = np.frombuffer(text.encode(), np.uint8)
        np.savez(out, allow_pickle=False, **arrays)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> "Predictions":
        """Read what `to_bytes` gave; `where` names the file in errors.

        Raises:
            InputError: damaged, or not predictions.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            head = json.loads(arrays.pop("head").tobytes())
            if head["version"] != _VERSION:
                raise ValueError(f"version {head['version']!r} is unknown")
            threshold = float("nan") if head["threshold"] is None else float(head["threshold"])
            loaded = cls(**arrays, threshold=threshold, origin=head["origin"])
            loaded.check()
        except Exception as error:
            reason = one_line(error)
            raise InputError(
                f"{where} holds no valid predictions ({reason}): run that system again"
            ) from None
        return loaded

    def check(self) -> None:
        """Raise ValueError where shapes, numbers or names do not fit together."""
        if self.fold.ndim != 2 or not self.fold.size or self.fold.min() < 0:
            raise ValueError("fold holds no folds")
        sizes = {
            "n": len(self.ids),
            "m": len(self.test_ids),
            "K": len(self.classes),
            "R": len(self.fold),
            "F": int(self.fold.max()) + 1,
        }
        for name, (kind, axes) in _FORMS.items():
            values = getattr(self, name)
            if values is None:
                continue
            # Views may be any number.
            shape = tuple(map(sizes.get, axes, values.shape))
            if values.dtype.kind != kind or (values.ndim, values.shape) != (len(axes), shape):
                raise ValueError(f"{name} is {values.dtype} {values.shape}, not {kind} ({axes})")
            if kind == "U" and len(np.unique(values)) != len(values):
                raise ValueError(f"{name} are not distinct")
        for name in ("oof", "test"):
            values = getattr(self, name)
            known = values[~np.isnan(values).all(-1)]
            if not ((known >= -1e-9).all() and (np.abs(known.sum(-1) - 1) <= 1e-6).all()):
                raise ValueError(f"{name} are not probabilities")
        for name in ("labels", "decision", "answer"):
            values = getattr(self, name)
            if values is not None and ((values < 0) | (values >= sizes["K"])).any():
                raise ValueError(f"{name} name unknown classes")


_FORMS = {
    "classes": ("U", "K"),
    "ids": ("U", "n"),
    "labels": ("i", "n"),
    "groups": ("i", "n"),
    "fold": ("i", "Rn"),
    "oof": ("f", "RnK"),
    "decision": ("i", "Rn"),
    "thresholds": ("f", "RF"),
    "test_ids": ("U", "m"),
    "test": ("f", "mK"),
    "oof_views": ("f", "RnVK"),
    "test_views": ("f", "mVK"),
    "answer": ("i", "m"),
}
"""Kind of dtype and axes of every array: F folds, the other letters as in `Predictions`."""


def check_shared_folds(members: list[Predictions]) -> None:
    """Refuse systems whose rows were not held out together.

    Raises:
        InputError: they differ in classes, rows, labels or folds; the message names the first.
    """
    first = members[0]
    _check_equal(members, "classes", "ids", "labels")
    for other in members[1:]:
        shared = min(len(first.fold), len(other.fold))
        if not np.array_equal(first.fold[:shared], other.fold[:shared]):
            raise InputError(
                f"{first.system!r} and {other.system!r} were held out in different folds: "
                "run both again"
            )


def check_same_rows(members: list[Predictions]) -> None:
    """Refuse systems that cannot be combined: held out differently, or for other rows to predict.

    Raises:
        InputError: as `check_shared_folds`, or the rows to predict differ.
    """
    check_shared_folds(members)
    _check_equal(members, "test_ids")


def _check_equal(members: list[Predictions], *names: str) -> None:
    first = members[0]
    for other in members[1:]:
        for name in names:
            if not np.array_equal(getattr(first, name), getattr(other, name)):
                raise InputError(
                    f"{first.system!r} and {other.system!r} differ in {name}: they were trained "
                    "for different tables; run both again"
                )
