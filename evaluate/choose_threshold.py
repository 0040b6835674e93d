"""The threshold of a stored system: shown, chosen by another rule, or set by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import number_of
from archiveprobe.evaluate import threshold_curve, thresholding
from archiveprobe.evaluate.calibration import Calibration, CrossFitted
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.evaluate.kept_rule import CHOSEN
from archiveprobe.evaluate.leaderboard import nested_score
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.review_load import ReviewLoad, review_load
from archiveprobe.evaluate.system_status import check_up_to_date
from archiveprobe.evaluate.system_store import MODEL, Run, load_run, save_run
from archiveprobe.evaluate.threshold_report import (
    AIMS,
    LabelReport,
    LabelThreshold,
    ThresholdReport,
)
from archiveprobe.evaluate.thresholding import DEFAULT_RULE, Chosen, decide
from archiveprobe.task.config import Task, nearest

_SHOWN = np.arange(0.05, 1, 0.05)


def report_threshold(
    task: Task,
    system: str,
    rule: str | None = None,
    *,
    partial: bool = False,
) -> ThresholdReport:
    """Show the threshold of a stored system; with a rule, choose it again, and store that.

    Raises:
        InputError: as `report_thresholds`, or there are more than two labels.
    """
    report = report_thresholds(task, system, rule, partial=partial)
    if isinstance(report, LabelReport):
        raise InputError(f"{system}: {report.why}, there is no threshold")
    return report


def report_thresholds(
    task: Task,
    system: str,
    rule: str | None = None,
    labels: Sequence[str] = (),
    *,
    partial: bool = False,
    notify: Notify = lambda _: None,
) -> ThresholdReport | LabelReport:
    """Show the threshold of a stored system; with a rule, choose it again, and store that.

    A rule has its number where it has one ("recall 0.95"). Those that aim at something also give
    thresholds for `labels` other than the positive one, or for all where there are more than two;
    these are not stored. With `partial`, rows that wait for `embed` are left out;
    `notify` is told of corrected labels.

    Raises:
        InputError: no such system or label, it is out of date, or it has no threshold; a recall or
            a precision that is never reached.
    """
    run = load_run(task, system)
    stored = run.predictions()
    aims = rule is not None and rule.split()[0] in AIMS
    _check(stored, run, aims)
    dataset = load_dataset(task, partial=partial)
    for remark in dataset.corrections.remarks():
        notify(remark)
    check_up_to_date(run, dataset)
    places = [_place(stored, label) for label in labels]
    report: ThresholdReport | LabelReport
    if rule is not None and (len(stored.classes) > 2 or any(p != stored.positive for p in places)):
        places = places or list(range(len(stored.classes)))
        report = _report_labels(stored, run, rule, places, dataset)
    else:
        before = str(run.record["threshold_rule"])
        if rule is not None:
            stored, run = _choose(stored, run, rule, dataset)
        report = _report(stored, run, rule or before, dataset)
    for place in places or [stored.positive]:
        if lost := _lost(stored, place, dataset.unreadable):
            rows = f"{number_of(lost, 'labelled row')} of {str(stored.classes[place])!r}"
            notify(f"{rows} without a readable image: missed at any threshold")
    return report


def _choose(stored: Predictions, run: Run, rule: str, dataset: Dataset) -> tuple[Predictions, Run]:
    """Choose the threshold of a system by a rule, and store it."""
    problem = _unreachable(stored, run, rule, stored.positive, dataset.unreadable)
    if problem is not None:
        raise InputError(problem)
    chosen = _chosen(stored, run, rule, stored.positive, dataset.unreadable)
    mark = {} if rule == DEFAULT_RULE else {CHOSEN: True}
    origin = {name: value for name, value in stored.origin.items() if name != CHOSEN}
    stored = replace(
        stored,
        thresholds=chosen.thresholds,
        threshold=chosen.threshold.value,
        decision=chosen.decision,
        origin={**origin, **mark, "threshold_rule": rule, "optimistic": chosen.optimistic},
    )
    kept = {name: value for name, value in run.record.items() if name != CHOSEN}
    record = {**kept, **mark, "threshold": chosen.threshold.value, "threshold_rule": rule}
    arrays = run.arrays() if MODEL in run.files else None
    save_run(dataset.task, run.system, record, stored, arrays)
    return stored, load_run(dataset.task, run.system)


def _report(stored: Predictions, run: Run, rule: str, dataset: Dataset) -> ThresholdReport:
    """Report the threshold that is stored, which the stored rule has found or somebody has set."""
    positive = stored.positive
    final_p = _probabilities(stored, run)[1][..., positive]
    try:
        found = thresholding.final(
            stored.labels,
            final_p,
            stored.groups,
            positive,
            rule,
            unreadable=dataset.unreadable,
        )
    except ValueError as error:
        raise InputError(f"{run.folder} is damaged ({error}): run that system again") from None
    value = stored.threshold
    chosen = replace(found, value=value, low=min(found.low, value), high=max(found.high, value))
    score, low, high = nested_score(stored, stored.decision)
    half = decide(stored.oof[..., positive], 0.5, positive)
    half = np.where(half < 0, dataset.unreadable, half)
    return ThresholdReport(
        stored.system,
        rule,
        str(stored.classes[positive]),
        chosen,
        score,
        (low, high),
        float(stored.origin["optimistic"]),
        nested_score(stored, half)[0],
        _load(stored, stored.decision == positive, positive, value),
        *(
            threshold_curve.curve(stored.labels, final_p, positive, at, dataset.unreadable)
            for at in (None, _shown_with(value))
        ),
    )


def _report_labels(
    stored: Predictions, run: Run, rule: str, places: Sequence[int], dataset: Dataset
) -> LabelReport:
    """Choose a threshold for each label against all others."""
    lines = [threshold_for(stored, run, rule, place, dataset.unreadable) for place in places]
    if all(line.threshold is None for line in lines):
        raise InputError("; ".join(line.problem or "" for line in lines))
    k = len(stored.classes)
    why = f"with {k} labels the likeliest one wins"
    if k == 2:
        why = f"the threshold that decides is that of {str(stored.classes[stored.positive])!r}"
    return LabelReport(stored.system, rule, lines, why)


def threshold_for(
    stored: Predictions, run: Run, rule: str, place: int, unreadable: int
) -> LabelThreshold:
    """Choose a threshold for the class at a place against all others; nothing is stored.

    Raises:
        InputError: the system is damaged.
    """
    label = str(stored.classes[place])
    problem = _unreachable(stored, run, rule, place, unreadable)
    if problem is not None:
        return LabelThreshold(label, None, None, problem)
    chosen = _chosen(stored, run, rule, place, unreadable)
    load = _load(stored, chosen.decision == place, place, chosen.threshold.value)
    return LabelThreshold(label, chosen.threshold, load)


def _load(stored: Predictions, above: np.ndarray, place: int, threshold: float) -> ReviewLoad:
    """Measure decisions (R, n), whether a row is above its nested threshold, for one label."""
    y, decision = (stored.labels == place).astype(int), above.astype(int)
    to_predict = stored.test[:, place]
    return review_load(y, decision, stored.fold, stored.groups, 1, to_predict, threshold)


def _chosen(stored: Predictions, run: Run, rule: str, place: int, unreadable: int) -> Chosen:
    """Choose thresholds for one label against all others, on the numbers that are stored.

    Decisions are -1 where it is any of several other labels.
    """
    by_fold, final_p = _probabilities(stored, run)
    chosen = thresholding.choose(
        (stored.labels == place).astype(int),
        stored.oof[..., place],
        by_fold[..., place],
        final_p[..., place],
        stored.fold,
        stored.groups,
        positive=1,
        rule=rule,
        unreadable=int(unreadable == place),
    )
    other = 1 - place if len(stored.classes) == 2 else -1
    return replace(chosen, decision=np.where(chosen.decision == 1, place, other))


def _lost(stored: Predictions, place: int, unreadable: int) -> int:
    """Count the labelled rows of a class that no threshold finds: their images cannot be read."""
    if unreadable == place:
        return 0
    return int(((stored.labels == place) & ~stored.readable).sum())


def _unreachable(
    stored: Predictions, run: Run, rule: str, place: int, unreadable: int
) -> str | None:
    """Say why a recall or a precision cannot be reached on the labelled rows, and what can."""
    name, _, number = rule.partition(" ")
    label, true = str(stored.classes[place]), stored.labels == place
    if name == "recall":
        lost = _lost(stored, place, unreadable)
        best = 1 - lost / max(1, int(true.sum()))
        if best < float(number):
            return (
                f"recall {number} of {label!r} cannot be reached: {lost} of its {true.sum()} "
                f"labelled rows cannot be read, so {best:.3f} is the most"
            )
    if name == "precision":
        final_p = _probabilities(stored, run)[1][..., place]
        curve = threshold_curve.curve(true.astype(int), final_p)
        best, recall = max(zip(np.nan_to_num(curve.precision), curve.recall, strict=True))
        if best < float(number):
            return (
                f"precision {number} of {label!r} is reached by no threshold on the labelled rows: "
                f"{best:.3f} is the most, and finds {recall:.3f} of them"
            )
    return None


def _place(stored: Predictions, label: str) -> int:
    """Return the place of a label among the classes. Raises InputError."""
    classes = stored.classes.tolist()
    if label not in classes:
        known = ", ".join(classes)
        raise InputError(f"unknown label {label!r}{nearest(label, classes)}: use one of {known}")
    return int(classes.index(label))


def _shown_with(chosen: float) -> np.ndarray:
    """Return the round thresholds and the chosen one, each once."""
    return np.sort(np.append(_SHOWN[~np.isclose(_SHOWN, chosen)], chosen))


def _check(stored: Predictions, run: Run, aims: bool) -> None:
    if stored.answer is not None or (len(stored.classes) == 2 and np.isnan(stored.threshold)):
        raise InputError(
            f"{stored.system} has no threshold of its own, its members vote: fix the thresholds of "
            + (", ".join(_names(run.record)) or "another system")
        )
    if len(stored.classes) > 2 and not aims:
        raise InputError(
            f"{stored.system}: with {len(stored.classes)} labels the likeliest wins, there is no "
            "threshold: ask for --recall, --precision or --cost"
        )


def _names(record: Mapping[str, Any]) -> list[str]:
    return [str(member["system"]) for member in record.get("members", ())]


def _probabilities(stored: Predictions, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Compute what thresholds are chosen on: nested (R, folds, n, K), final (R, n, K).

    The out-of-fold probabilities themselves where no calibration was recorded.
    """
    if "calibration" not in stored.origin:
        folds = int(stored.fold.max()) + 1
        return np.repeat(stored.oof[:, None], folds, 1), stored.oof
    try:
        calibrated = CrossFitted(np.array(stored.origin["calibration"], np.float64))
        logits = calibrated.undo(stored.oof, stored.fold)
        final = Calibration(**run.record["calibration"]).apply(logits)
        return calibrated.of_every_fold(logits), final
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{run.folder} is damaged ({error}): run that system again") from None
