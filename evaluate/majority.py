"""One answer for every labelled row out of those that its repeats of the folds gave."""

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
