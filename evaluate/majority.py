"""One answer for every row: out of those that the repeats of the folds gave, or the final one."""

import numpy as np

from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.thresholding import decide


def majority_decision(stored: Predictions) -> np.ndarray:
    """Return the class (n,) that most repeats decided, of equal ones the more probable.

    Of two classes with a threshold, the mean probability decides at it instead.
    """
    k, proba = len(stored.classes), np.nan_to_num(stored.oof.mean(0))
    votes = (stored.decision[..., None] == np.arange(k)).sum(0)
    if k == 2 and not np.isnan(stored.threshold):
        proba = np.eye(2)[decide(proba[:, stored.positive], stored.threshold, stored.positive)]
    # Half of a vote never outweighs one.
    return np.asarray((votes + proba / 2).argmax(1))


def final_decision(stored: Predictions, proba: np.ndarray) -> np.ndarray:
    """Return the class (m,) that a system gives new rows of probabilities (m, K).

    At its final threshold, or the likeliest where it has none; of no use for rows of NaN.
    """
    if len(stored.classes) > 2 or np.isnan(stored.threshold):
        return np.asarray(np.nan_to_num(proba).argmax(1))
    return decide(proba[:, stored.positive], stored.threshold, stored.positive)
