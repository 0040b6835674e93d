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
    fixed: float | None = None,
) -> Assembled:
    """Calibrate logits (R, n, K) and (m, K), find the thresholds, and decide.

    Without `calibrated` the thresholds are found on the softmax as the model gives it. With
    `fixed`, a threshold that somebody else found, none is searched, and `method` is not looked at.

    Everything that is fitted for the rows of a fold is fitted outside it. With `decision` (R, n),
    the decisions of a hard vote, and its `answer` (m,), there is no threshold. Rows of NaN get the
    `unreadable` answer.
    """
    fold = dataset.fold[: len(logits)]
    if calibrated:
        calibrated_folds = calibration.cross_fitted(logits, dataset.labels, fold)
        final = calibration.fit(logits, dataset.labels)
    else:
        final = calibration.plain(len(dataset.classes))
        parameters = np.tile(final.parameters, (len(fold), dataset.folds, 1))
        calibrated_folds = calibration.CrossFitted(parameters)
    binary = len(dataset.classes) == 2
    thresholds = np.full((len(fold), dataset.folds), np.nan)
    threshold = optimistic = float("nan")
    oof = calibrated_folds.apply(logits, fold)
    if decision is None and binary and fixed is not None:
        thresholds, threshold = np.full_like(thresholds, fixed), fixed
        decision = thresholding.decide(oof[..., dataset.positive], fixed, dataset.positive)
    elif decision is None and binary:
        rest = (dataset.groups, dataset.positive, method)
        by_fold = calibrated_folds.of_every_fold(logits)[..., dataset.positive]
        nested = thresholding.nested(dataset.labels, by_fold, fold, *rest)
        p = final.apply(logits)[..., dataset.positive]
        chosen = thresholding.final(dataset.labels, p, *rest)
        thresholds, decision, threshold, optimistic = (
            nested.thresholds,
            nested.decision,
            chosen.value,
            chosen.score,
        )
    elif decision is None:
        decision = np.where(np.isnan(oof[..., 0]), -1, np.nan_to_num(oof).argmax(-1))
    known = np.isfinite(logits).all(-1)
    decision = np.where(known, decision, dataset.unreadable)
    if np.isnan(optimistic):
        optimistic = macro_f1(dataset.labels, decision, len(dataset.classes))
    predictions = Predictions(
        classes=np.array(dataset.classes, np.str_),
        ids=dataset.labelled.ids,
        labels=dataset.labels,
        groups=dataset.groups,
        fold=fold,
        oof=oof,
        decision=decision,
        thresholds=thresholds,
        threshold=threshold,
        test_ids=dataset.unlabelled.ids,
        test=final.apply(unlabelled),
        origin={
            **origin,
            "positive": dataset.positive,
            "optimistic": optimistic,
            "calibration": calibrated_folds.parameters.tolist(),
        },
        oof_views=None if views is None else calibrated_folds.apply(views, fold),
        test_views=None if unlabelled_views is None else final.apply(unlabelled_views),
        answer=answer,
    )
    predictions.check()
    return Assembled(predictions, final)
