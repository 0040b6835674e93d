"""The one form of every system's predictions: out-of-fold, decisions, test, and their origin."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError

_VERSION = 1
_TEXT = ("classes", "ids", "test_ids")
_OPTIONAL = ("oof_views", "test_views")


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
        head = {"version": _VERSION, "threshold": _number(self.threshold), "origin": self.origin}
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
            reason = " ".join(str(error).split())[:120]
            raise InputError(
                f"{where} holds no sound predictions ({reason}): run that system again"
            ) from None
        return loaded

    def check(self) -> None:
        """Raise ValueError where shapes, numbers or names do not fit together."""
        n, m, k = len(self.ids), len(self.test_ids), len(self.classes)
        repeats = self.fold.shape[0]
        shapes = {
            "classes": (k,),
            "ids": (n,),
            "labels": (n,),
            "groups": (n,),
            "fold": (repeats, n),
            "oof": (repeats, n, k),
            "decision": (repeats, n),
            "test_ids": (m,),
            "test": (m, k),
        }
        for name, shape in shapes.items():
            _check_form(name, getattr(self, name), shape)
        _check_views("oof_views", self.oof_views, self.oof.shape)
        _check_views("test_views", self.test_views, self.test.shape)
        if not n or not repeats or self.fold.min() < 0:
            raise ValueError("fold holds no folds")
        if self.thresholds.shape[0] != repeats or self.thresholds.shape[1:] != (
            int(self.fold.max()) + 1,
        ):
            raise ValueError(f"thresholds are {self.thresholds.shape}")
        for name in _TEXT:
            if len(set(getattr(self, name).tolist())) != len(getattr(self, name)):
                raise ValueError(f"{name} are not distinct")
        for name in ("oof", "test"):
            _check_probabilities(name, getattr(self, name))
        if self.answer is not None:
            _check_form("answer", self.answer, (m,))
        for name in ("labels", "decision", "answer"):
            values = getattr(self, name)
            if values is not None and values.size and not 0 <= values.min() <= values.max() < k:
                raise ValueError(f"{name} name unknown classes")


def _check_form(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    kind = "U" if name in _TEXT else "f" if name in ("oof", "test", *_OPTIONAL) else "i"
    if values.shape != shape or values.dtype.kind != kind:
        raise ValueError(f"{name} is {values.dtype} {values.shape}, not {kind} {shape}")


def _check_views(name: str, values: np.ndarray | None, rows: tuple[int, ...]) -> None:
    """Check views (..., V, K) of rows (..., K)."""
    if values is not None:
        views = values.shape[-2] if values.ndim > 1 else 0
        _check_form(name, values, (*rows[:-1], views, rows[-1]))


def _check_probabilities(name: str, values: np.ndarray) -> None:
    known = values[~np.isnan(values).all(-1)]
    if not ((known >= -1e-9).all() and (np.abs(known.sum(-1) - 1) <= 1e-6).all()):
        raise ValueError(f"{name} are not probabilities")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def check_shared_folds(members: "list[Predictions]") -> None:
    """Refuse systems whose rows were not held out together.

    Raises:
        InputError: they differ in classes, rows, labels or folds; the message names the first.
    """
    first = members[0]
    for other in members[1:]:
        for name in ("classes", "ids", "labels"):
            _check_equal(first, other, name)
        shared = min(len(first.fold), len(other.fold))
        if not np.array_equal(first.fold[:shared], other.fold[:shared]):
            raise InputError(
                f"{first.system!r} and {other.system!r} were held out in different folds: "
                "run both again"
            )


def check_same_rows(members: "list[Predictions]") -> None:
    """Refuse systems that cannot be combined: held out differently, or for other rows to predict.

    Raises:
        InputError: as `check_shared_folds`, or the rows to predict differ.
    """
    check_shared_folds(members)
    for other in members[1:]:
        _check_equal(members[0], other, "test_ids")


def _check_equal(first: Predictions, other: Predictions, name: str) -> None:
    if not np.array_equal(getattr(first, name), getattr(other, name)):
        raise InputError(
            f"{first.system!r} and {other.system!r} differ in {name}: they were trained for "
            "different tables; run both again"
        )
