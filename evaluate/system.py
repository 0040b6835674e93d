"""From logits to a system: calibrated probabilities, thresholds, decisions and their origin."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from archiveprobe.evaluate import calibration, thresholding
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.predictions import Predictions


@dataclass(frozen=True)
class Assembled:
    """Predictions, and the final calibration that turns a model's logits into probabilities."""

    predictions: Predictions
    calibration: calibration.Calibration


def assemble(
    dataset: Dataset,
    logits: np.ndarray,
    unlabelled: np.ndarray,
    origin: Mapping[str, Any],
    *,
    method: str = "smoothed",
    decision: np.ndarray | None = None,
    answer: np.ndarray | None = None,
    views: np.ndarray | None = None,
    unlabelled_views: np.ndarray | None = None,
    calibrated: bool = True,
    test_ids: np.ndarray | None = None,
) -> Assembled:
    """Calibrate logits (R, n, K) and (m, K), find the thresholds, and decide.

    `test_ids` (m,) are the rows to predict; None: those of the dataset.

    Without `calibrated` the thresholds are found on the softmax as the model gives it. `method` is
    a rule for them, with its number where it has one ("fixed 0.4").

    Everything that is fitted for the rows of a fold is fitted outside it. With `decision` (R, n),
    the decisions of a hard vote, and its `answer` (m,), there is no threshold. Rows of NaN get the
    `unreadable` answer.
    """
    fold = dataset.fold[: len(logits)]
    y, k, positive = dataset.labels, len(dataset.classes), dataset.positive
    if calibrated:
        by_fold, final = calibration.cross_fitted(logits, y, fold), calibration.fit(logits, y)
    else:
        final = calibration.plain(k)
        by_fold = calibration.CrossFitted(np.tile(final.parameters, (len(fold), dataset.folds, 1)))
    oof = by_fold.apply(logits, fold)
    thresholds = np.full((len(fold), dataset.folds), np.nan)
    threshold = float("nan")
    if decision is None and k == 2:
        # From the numbers that are stored, so that the same rule finds the same thresholds again,
        # to the last bit.
        stored = by_fold.undo(oof, fold)
        chosen = thresholding.choose(
            y,
            oof[..., positive],
            by_fold.of_every_fold(stored)[..., positive],
            final.apply(stored)[..., positive],
            fold,
            dataset.groups,
            positive=positive,
            rule=method,
            unreadable=dataset.unreadable,
        )
        thresholds, decision = chosen.thresholds, chosen.decision
        threshold, optimistic = chosen.threshold.value, chosen.optimistic
    else:
        decision = np.nan_to_num(oof).argmax(-1) if decision is None else decision
        decision = np.where(np.isfinite(logits).all(-1), decision, dataset.unreadable)
        optimistic = macro_f1(y, decision, k)
    predictions = Predictions(
        classes=np.array(dataset.classes, np.str_),
        ids=dataset.labelled.ids,
        labels=y,
        groups=dataset.groups,
        fold=fold,
        oof=oof,
        decision=decision,
        thresholds=thresholds,
        threshold=threshold,
        test_ids=dataset.unlabelled.ids if test_ids is None else test_ids,
        test=final.apply(unlabelled),
        origin={
            **origin,
            "positive": positive,
            "optimistic": optimistic,
            "calibration": by_fold.parameters.tolist(),
        },
        oof_views=None if views is None else by_fold.apply(views, fold),
        test_views=None if unlabelled_views is None else final.apply(unlabelled_views),
        answer=answer,
    )
    predictions.check()
    return Assembled(predictions, final)
