"""Near-duplicates by perceptual hash and by embeddings together, within and across the split.

The hash finds what was re-encoded, scaled or framed; embeddings also find strong crops, mirrors and
overlays, at the price that two images of one place may be taken for copies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import first_few, number_of
from archiveprobe.evaluate.alike import pairs_alike
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.probe.audit.data import NAMED, AuditData, Finding, csv_table, line
from archiveprobe.task.duplicates import join_groups, near_duplicate_groups
from archiveprobe.task.folds import regroup

# Cosines computed at a time: 32 MB.
_COSINES = 1 << 23
BYTES, HASH, EMBEDDINGS = "equal bytes", "hash", "embeddings"
# Among 1,714 distinct real images (two MobileNets, mean of six views) the threshold below is
# 0.778 and joins no pair; the nearest strangers have 0.741. Of 120 copies of each kind it finds all
# that were mirrored or darkened, 98 % of those cropped to 80 % of the area, 74 % of those turned by
# 5 degrees, 50 % of those with banners over a quarter, 26 % of those cropped to 60 %.
_SPREADS = 6.5
_LOWEST, _HIGHEST = 0.75, 0.97
# The least cosine seen between an image and those copies is 0.29; of the two pairs of strangers
# that the hash joins there, one has -0.07.
_STRANGERS = 0.25
_SAMPLE = 2000
_FEWEST = 20


@dataclass(frozen=True)
class Group:
    """Rows that are copies of each other, in the order of the rows.

    `found_by` is the coarsest means that was needed to join them all: "equal bytes", "hash" or
    "embeddings". `labels` are names, None for a row to predict.
    """

    ids: tuple[str, ...]
    labels: tuple[str | None, ...]
    found_by: str

    @property
    def straddles(self) -> bool:
        """Say whether some rows are labelled and others to predict."""
        return 0 < self.labels.count(None) < len(self.labels)

    @property
    def conflicting(self) -> bool:
        """Say whether labels differ within the group."""
        return len(set(self.labels) - {None}) > 1


@dataclass(frozen=True)
class Duplicates:
    """Groups of two and more rows; `number` (N,) is the group of every row, singles included.

    Rows that the hash joins and whose embeddings are unlike have one number, which costs nothing
    but a shared fold, and are no group.
    `threshold` is the cosine above which embeddings join two rows, None where they were not used.
    """

    groups: tuple[Group, ...]
    number: np.ndarray
    threshold: float | None


def audit_duplicates(data: AuditData) -> Finding:
    """Report near-duplicates, and assign the folds again along them where that is asked for.

    Raises:
        InputError: the folds cannot be assigned again.
    """
    if data.apply:
        _check_regroupable(data.dataset)
    duplicates = find_duplicates(data, data.unit_embeddings(np.arange(len(data))))
    groups = duplicates.groups
    regrouped = data.apply and _regroup(data, duplicates.number)
    counts = {
        "near-duplicate groups": groups,
        "- by embeddings only": [group for group in groups if group.found_by == EMBEDDINGS],
        "- with different labels": [group for group in groups if group.conflicting],
        "- labelled and to predict": [group for group in groups if group.straddles],
    }
    return Finding(
        value=len(groups),
        lines=[
            line(name, str(len(some)), f"{sum(len(group.ids) for group in some)} rows")
            for name, some in counts.items()
        ],
        warnings=_warnings(data.dataset, duplicates, regrouped),
        details={
            "duplicate_groups": [
                {**asdict(group), "straddles": group.straddles, "conflicting": group.conflicting}
                for group in groups
            ],
            "copy_threshold": duplicates.threshold,
            "regrouped": regrouped,
        },
        files={"duplicates.csv": _table(groups)},
    )


def _check_regroupable(dataset: Dataset) -> None:
    task = dataset.task
    if dataset.partial is not None:
        raise InputError(
            "folds are assigned again along all images only: run `archiveprobe embed "
            f"{task.shell_path}` first"
        )
    if task.folds.group == "none":
        raise InputError(
            f'folds.group is "none" in {task.file}, so no group is kept together: set it to '
            f'"near-duplicates", delete {task.work / "folds.csv"}, and run audit --apply again'
        )


def _regroup(data: AuditData, number: np.ndarray) -> bool:
    """Regroup the folds; False where they have these groups already."""
    places = {str(id_): place for place, id_ in enumerate(data.ids)}
    rows = data.dataset.rows
    entries = [data.entries[places[row.id]] for row in rows]
    return regroup(data.dataset.task, rows, entries, [int(number[places[row.id]]) for row in rows])


def _warnings(dataset: Dataset, duplicates: Duplicates, regrouped: bool) -> list[str]:
    warnings = []
    straddling = [group for group in duplicates.groups if group.straddles]
    if straddling:
        warnings.append(
            f"{number_of(len(straddling), 'group')} of near-duplicates across labelled rows and "
            f"rows to predict: {_examples(straddling)}: copies flatter figures there, look at them"
        )
    conflicting = [group for group in duplicates.groups if group.conflicting]
    if conflicting:
        warnings.append(
            f"{number_of(len(conflicting), 'group')} of near-duplicates with different labels: "
            f"{_examples(conflicting)}: look at them, and put the right labels into corrections"
        )
    leaking = 0 if regrouped else across_folds(dataset, duplicates.number[: len(dataset)])
    if leaking:
        warnings.append(
            f"{number_of(leaking, 'group')} of near-duplicates across folds, which flatters every "
            f"system: run `archiveprobe audit {dataset.task.shell_path} --apply`"
        )
    return warnings


def _examples(groups: Sequence[Group]) -> str:
    return first_few([" = ".join(group.ids[:NAMED]) for group in groups], NAMED)


def across_folds(dataset: Dataset, number: np.ndarray) -> int:
    """Count the groups, by the number (n,) of every labelled row, that are spread over folds."""
    _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
    spread = (dataset.fold[:, first[inverse]] != dataset.fold).any(0)
    return len(np.unique(number[spread]))


def _table(groups: Sequence[Group]) -> bytes:
    rows = [
        (number, id_, label or "", group.found_by)
        for number, group in enumerate(groups)
        for id_, label in zip(group.ids, group.labels, strict=True)
    ]
    return csv_table(("group", "id", "label", "found_by"), rows)


def find_duplicates(data: AuditData, embeddings: np.ndarray) -> Duplicates:
    """Group rows by bytes, hash and unit embeddings (N, D); rows of NaN have none.

    Blank and tiny images all look alike to a network, so only equal bytes join them.
    """
    by_hash = near_duplicate_groups(data.entries)
    comparable = np.array([entry.status not in ("blank", "tiny") for entry in data.entries])
    places = np.flatnonzero(comparable & np.isfinite(embeddings).all(1))
    places = _first_of([data.entries[place].digest for place in places], places)
    x = np.ascontiguousarray(embeddings[places])
    # Copies that are known already say nothing of how alike unrelated images are.
    threshold = copy_threshold(x[_first_of(by_hash[places], np.arange(len(places)))])
    number = by_hash
    if threshold is not None:
        number = join_alike(x, threshold, number, places)
    alike = np.empty((0, 0)) if threshold is None else embeddings
    return Duplicates(tuple(_groups(data, number, by_hash, alike)), number, threshold)


def _first_of(values: Sequence[Any] | np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the places of the first of every value, in their order."""
    if not len(places):
        return places
    return places[np.sort(np.unique(np.asarray(values), return_index=True)[1])]


def copy_threshold(x: np.ndarray) -> float | None:
    """Return the cosine from which two unit rows x (n, D) count as copies; None for very few rows.

    It lies far beyond the nearest neighbours that unrelated images have in these very embeddings:
    6.5 spreads above their median, after Fisher's transformation. Spread is measured below the
    median, where copies do not reach as long as most images have none: between the first decile
    and the median of a normal distribution lie 1.2816 standard deviations.
    """
    if len(x) < _FEWEST:
        return None
    sample = np.arange(len(x))
    if len(x) > _SAMPLE:
        sample = np.sort(np.random.default_rng(0).choice(len(x), _SAMPLE, replace=False))
    nearest = np.empty(len(sample))
    step = max(1, _COSINES // len(x))
    for start in range(0, len(sample), step):
        part = sample[start : start + step]
        cosines = x[part] @ x.T
        cosines[np.arange(len(part)), part] = -1
        nearest[start : start + step] = cosines.max(1)
    low, middle = np.arctanh(np.clip(np.quantile(nearest, [0.1, 0.5]), -0.999, 0.999))
    spread = (middle - low) / 1.2816
    return float(np.clip(np.tanh(middle + _SPREADS * spread), _LOWEST, _HIGHEST))


def join_alike(
    x: np.ndarray, threshold: float, number: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """Join the groups `number` (N,) of rows whose embeddings x (n, D) reach the cosine threshold.

    Row i of x lies at `places[i]`. scikit-learn's radius_neighbors_graph compares every pair twice,
    in double precision, and keeps all of them.
    """
    for heads, tails, _ in pairs_alike(x, threshold):
        number = join_groups(number, places[heads], places[tails])
    return number


def _groups(
    data: AuditData, number: np.ndarray, by_hash: np.ndarray, embeddings: np.ndarray
) -> Iterator[Group]:
    order = np.argsort(number, kind="stable")
    ends = np.flatnonzero(np.diff(number[order])) + 1
    for together in np.split(order, ends):
        members = _without_strangers(together, embeddings) if len(together) > 1 else together
        if len(members) > 1:
            labels = data.labels[members]
            yield Group(
                tuple(str(data.ids[place]) for place in members),
                tuple(data.dataset.classes[label] if label >= 0 else None for label in labels),
                _found_by(data, members, by_hash),
            )


def _without_strangers(members: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """Return the members that resemble another one; those without an embedding stay."""
    if not len(embeddings) or len(members) > _SAMPLE:
        return members
    x = embeddings[members]
    cosines = x @ x.T
    np.fill_diagonal(cosines, -1)
    known = np.isfinite(x).all(1)
    nearest = np.where(known, cosines, 1.0).max(1, initial=-1.0)
    return np.asarray(members[~known | (nearest >= _STRANGERS)])


def _found_by(data: AuditData, members: np.ndarray, by_hash: np.ndarray) -> str:
    digests = {data.entries[place].digest for place in members}
    if len(digests) == 1:
        return BYTES
    return HASH if len(set(by_hash[members].tolist())) == 1 else EMBEDDINGS
