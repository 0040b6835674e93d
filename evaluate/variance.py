"""What a bootstrap of held-out rows leaves out of a variance: few groups, and the training rows.

A metric is a smooth function of counts, so its error is a sum over groups g of their influence
D_g = sum over rows of g of d(metric) / d(weight of the row). Groups are independent, whatever their
rows share, hence the variance of the metric is the sum of E D_g^2. Three things are missing when D
is estimated from the very rows it is about and the models are taken as given:

- The mean of D is fitted too, and the sum of squares is itself uncertain: with few or uneven groups
  `group_correction` gives the factor and the degrees of freedom for a t quantile.
- A group also changes the models that decide the other groups: `training_variance`.
- Fold models differ, and their mean metric is not that of their pooled counts: `fold_shift`.
"""

import numpy as np

from archiveprobe.evaluate.metrics import confusions, from_confusion

_STEP = 1e-6
_SAME = 0.01


def influence(y: np.ndarray, decision: np.ndarray, n_classes: int, name: str) -> np.ndarray:
    """Compute how a metric of decisions (R, n) moves with the weight of each row, (R, n).

    Metrics depend on the confusion matrix C only, so the influence of a row is dF / dC at its cell:
    here by forward differences, and zero in empty cells. Metrics do not change when C is scaled, so
    the influences of a repeat sum to zero (Euler).
    """
    every = []
    for row in decision:
        confusion = confusions(y, row, n_classes)[0]
        step = _STEP * max(1.0, float(confusion.sum()))
        moved = confusion + step * np.eye(confusion.size).reshape(-1, *confusion.shape)
        before, after = (from_confusion(cells, (name,))[name] for cells in (confusion, moved))
        slopes = ((after - before) / step).reshape(confusion.shape)
        every.append(np.where(confusion > 0, slopes, 0.0)[y, row])
    return np.stack(every)


def group_sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sum to (..., G) values (..., n) over groups (n,) numbered from 0."""
    flat = values.reshape(-1, values.shape[-1])
    sums = [np.bincount(groups, row, groups.max() + 1) for row in flat]
    return np.reshape(sums, (*values.shape[:-1], -1))


def group_correction(
    sizes: np.ndarray, rho: float, mass: np.ndarray | None = None
) -> tuple[float, float]:
    """By how much sum D_g^2 underrates a variance, and the degrees of freedom of that estimate.

    Bell and McCaffrey, "Bias reduction in standard errors for linear regression with multi-stage
    samples" (2002), with the working model of Imbens and Kolesar, "Robust standard errors in small
    samples" (2016): rows of a group correlate by `rho`, so a group of m rows has the variance
    v = mass (1 + (m - 1) rho), `mass` (G,) being the variances of its rows, m unless given. What is
    seen is not the group's own sum S but S_g - w_g sum S, since the estimate has moved with the
    sum, w = mass / sum mass. So the estimate is S'BS with B = I - w1' - 1w' + k 11', k = sum w^2.
    Its mean is tr(BV) instead of tr(V), and a scaled chi square with the same first two moments has
    tr(BV)^2 / tr(BVBV) degrees of freedom (Satterthwaite 1946). For equal groups: G / (G - 1), and
    G - 1.
    """
    mass = sizes if mass is None else mass
    if len(sizes) < 2:
        return np.inf, 1.0
    if not mass.any():
        return 1.0, np.inf
    v = mass * (1 + (sizes - 1) * rho)
    w = mass / mass.sum()
    k = (w**2).sum()
    total, first, second = v.sum(), (v * w).sum(), (v * w**2).sum()
    mean = (v * (1 - 2 * w + k)).sum()
    # A group that has all of the mass leaves nothing to be seen.
    if mean <= _STEP * total:
        return np.inf, 1.0
    # The sum of v_g v_h B_gh^2 over all pairs, without building B, which is large for many groups.
    pairs = 2 * total * second + total**2 * k**2 + 2 * first**2 - 4 * k * total * first
    square = pairs + (v**2 * (1 + 2 * k - 4 * w)).sum()
    return float(total / mean), float(mean**2 / square)


def mass_by_label(values: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Compute the variances (G,) of the groups' rows, were all rows of a label alike.

    Influences of a rare label are large: with thirty positives in a thousand rows a macro-F1 rests
    on thirty rows, and so do the degrees of freedom.
    """
    squares = np.bincount(y, values**2) / np.maximum(1, np.bincount(y))
    return group_sums(squares[y], groups)


def likeness(values: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> float:
    """Estimate the correlation of influences (n,) within groups of sums (G,), between 0 and 1.

    By moments: the sum of D_g^2 has the mean s^2 (n + rho sum m (m - 1)), s^2 that of a row.
    """
    row, pairs = float((values**2).mean()), float((sizes * (sizes - 1)).sum())
    if not row or not pairs:
        return 0.0
    return float(np.clip(((sums**2).sum() / row - sizes.sum()) / pairs, 0, 1))


def training_variance(influences: np.ndarray, groups: np.ndarray, fold: np.ndarray) -> float:
    """Estimate the variance that comes of groups being each other's training rows.

    `influences` (R, n) are those of the rows in every repeat, `groups` (n,) number their groups
    from 0, `fold` (R, n).

    Say group j moves the score by which i is decided by K_ij, and i that of j by K_ji. A convex
    learner gives them the same sign (the influence x_i' H^-1 x_j r_j of Koh and Liang, 2017, is
    symmetric but for residuals, which carry the labels' signs), so the errors of i and j correlate:
    E d_i d_j = E (k K)^2, where k is how fast a group's metric moves with its score. A bootstrap
    of held-out rows takes them for independent. Over all j that adds k^2 t^2 per group, t^2 the
    variance of a score over draws of the training rows; at chance it is as large as the rest.

    Repeats show it. A score is a mean over the share q = 1 - 1/F that it was trained on, so in two
    repeats it differs by the variance t^2 x / q, x the share of rows that one was trained on and
    the other was not. What is seen of k^2 t^2 x / q (`_response`) is thus scaled by q / x. Of a
    pair from two repeats each was trained on the other in a share q of what one repeat alone would
    have, hence the mean in the last line.

    Zero where repeats do not differ, or there is one only: they cannot tell.
    """
    repeats = len(influences)
    trained = 1 - 1 / (int(fold.max()) + 1)
    first, second = np.triu_indices(repeats, 1)
    apart = [_training_rows_apart(fold[a], fold[b]) for a, b in zip(first, second, strict=True)]
    differ = float(np.mean(np.sqrt(apart)) ** 2) if repeats > 1 else 0.0
    if differ < _SAME:
        return 0.0
    seen = _response(influences[first] - influences[second], groups)
    return float(seen * trained / differ * (1 + (repeats - 1) * trained) / repeats)


def _response(moves: np.ndarray, groups: np.ndarray) -> float:
    """Sum over groups the variance by which models of two repeats move their scores.

    `moves` (pairs, n) are the rows' differences. Decisions are steps: a row near the threshold
    flips by any change of its score, so squares of differences grow with the size of the change,
    not its square. If scores have density k near the threshold, the mean size of the difference is
    M = k s sqrt(2 / pi), s^2 the variance of the change: k^2 s^2 = pi M^2 / 2. That holds for
    groups, M being taken to grow with their size, where flips go together, and is too much for
    groups of many rows that flip for themselves. The same of rows, and products of different rows
    of a group, whose flips cancel where they are independent, is too much where rows are copies.
    Both err upwards, so the smaller one is used.
    """
    sums = group_sums(moves, groups)
    size = np.bincount(groups) / len(groups)
    of_groups = np.abs(sums).mean(0).sum() ** 2 * (size**2).sum()
    of_rows = np.abs(moves).mean() ** 2 * moves.shape[1]
    together = ((sums**2).sum(1) - (moves**2).sum(1)).mean()
    return float(max(0.0, min(np.pi / 2 * of_groups, np.pi / 2 * of_rows + together)))


def _training_rows_apart(one: np.ndarray, other: np.ndarray) -> float:
    """Compute the share of pairs of rows that share a fold in just one of two repeats.

    Such a pair are training rows of each other in the other repeat only. With the shares t_ab of
    rows that are in fold a of one repeat and in fold b of the other, pairs share a fold in one
    repeat with probability sum_a t_a.^2, in the other with sum_b t_.b^2, in both with sum t_ab^2.
    """
    table = np.zeros((int(one.max()) + 1, int(other.max()) + 1))
    np.add.at(table, (one, other), 1 / len(one))
    shared = (table.sum(1) ** 2).sum() + (table.sum(0) ** 2).sum()
    return float(max(0.0, shared - 2 * (table**2).sum()))


def fold_shift(
    y: np.ndarray, decision: np.ndarray, fold: np.ndarray, n_classes: int, name: str
) -> float:
    """Estimate how far the fold models' mean score lies above that of pooled decisions.

    F1 is concave in the counts, so pooling flatters models that differ, the more the worse they
    are: at chance one model says yes to nearly all and the next to nearly none. The metric of a
    fold alone is biased, being of few rows; the same decisions under the folds of another repeat
    have that bias too and nothing to do with the models, so the difference is what is wanted.
    Decisions and folds are (R, n); zero where there is one repeat only.
    """
    repeats = len(fold)
    if repeats < 2:
        return 0.0
    one_hot = np.eye(int(fold.max()) + 1)
    scores = np.empty((repeats, repeats))
    for models, each in enumerate(decision):
        for parts, placed in enumerate(fold):
            cells = confusions(y, each, n_classes, one_hot[:, placed])
            of_fold = from_confusion(cells, (name,))[name]
            scores[models, parts] = np.nanmean(of_fold)
    own = np.eye(repeats, dtype=bool)
    return float(scores[own].mean() - scores[~own].mean())
