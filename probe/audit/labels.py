"""Labels that are likely wrong, by what systems say of rows that they were not trained on.

Confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
Dataset Labels", JAIR 2021), as cleanlab has it, on the mean out-of-fold probabilities.
"""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate import calibration
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_names import systems
from archiveprobe.evaluate.system_status import out_of_date
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.probe.audit.data import AuditData, Finding, csv_table, line
from archiveprobe.probe.choice import Choice
from archiveprobe.probe.crossval import cross_validate
from archiveprobe.probe.features import load_features
from archiveprobe.probe.linear import Logistic
from archiveprobe.task.corrections import UNSURE

QUICK = "a quick logistic probe"
# With 2 % of the labels of 1,568 real images swapped, the first finds 24 of 30 among 41
# suspects, the second 23 among 30; but the first rounds a lone swap of a small table away.
_RULES = ("prune_by_noise_rate", "confident_learning")
_QUICK_CS = (1e-5, 1e-4, 1e-3, 1e-2)


@dataclass(frozen=True)
class Suspect:
    """A label that is likely wrong.

    `score` is the probability of the given label, `suggested` the likeliest of the others.
    """

    id: str
    given: str
    suggested: str
    score: float


def audit_labels(data: AuditData) -> Finding:
    """Report suspect labels, by the best stored system, or by a quick probe where none is sound."""
    dataset = data.dataset
    problem = None
    decided = _decided(dataset)
    rows: list[Suspect] = []
    judge: str | None = QUICK
    try:
        best = best_system(dataset)
        if best is None:
            rows = find_suspects(dataset, _quick_probabilities(dataset, list(data.sources)))
        else:
            judge, rows = best.system, find_suspects(dataset, best.oof.mean(0))
    except InputError as error:
        # A label may be too rare to be held out.
        judge, problem = None, f"suspect labels were not looked for: {error}"
    again = sum(row.id in decided for row in rows)
    rows = [row for row in rows if row.id not in decided]
    about = f"by {judge}" + (f", without {again} that a person has decided" if again else "")
    return Finding(
        value=len(rows),
        lines=[
            line("suspect labels", "-", "not looked for")
            if judge is None
            else line("suspect labels", str(len(rows)), about)
        ],
        warnings=[] if problem is None else [problem],
        details={
            "suspects": [asdict(suspect) for suspect in rows],
            "judge": judge,
            "decided": again,
        },
        # It can become the task's `corrections` once its lines have been looked at.
        files={
            "suspect_labels.csv": csv_table(
                ("id", "label", "given", "score"),
                [(row.id, row.suggested, row.given, row.score) for row in rows],
            )
        },
    )


def _decided(dataset: Dataset) -> set[str]:
    """Return ids of the rows that a person has looked at and left, or given, the label they have.

    A file of one's own, which says no time, may hold labels that nobody has looked at.
    """
    return {
        row.id
        for row in dataset.rows
        if (fix := row.correction)
        and fix.when
        and fix.decision != UNSURE
        and fix.label == row.label
    }


def best_system(dataset: Dataset) -> Predictions | None:
    """Return the stored system of highest nested macro-F1 that is whole and up to date."""
    best: tuple[float, Predictions] | None = None
    for name in systems(dataset.task):
        try:
            run = load_run(dataset.task, name)
            if out_of_date(run, dataset):
                continue
            predictions = run.predictions()
        except InputError:
            continue
        score = macro_f1(predictions.labels, predictions.decision, len(predictions.classes))
        if best is None or score > best[0]:
            best = score, predictions
    return best[1] if best else None


def _quick_probabilities(dataset: Dataset, backbones: Sequence[str]) -> np.ndarray:
    """Return out-of-fold probabilities (n, K) of a logistic probe on one repeat of the folds."""
    once = replace(dataset, fold=dataset.fold[:1])
    features = load_features(once, Choice(tuple(backbones)))
    makes = {"logistic": lambda: Logistic(Cs=_QUICK_CS)}
    logits = cross_validate(makes, features, once)["logistic"].logits
    fitted = calibration.cross_fitted(logits, once.labels, once.fold)
    return np.asarray(fitted.apply(logits, once.fold)[0])


def find_suspects(dataset: Dataset, proba: np.ndarray) -> list[Suspect]:
    """Return suspect labels by probabilities (n, K), NaN for images that cannot be read.

    The worst come first.
    """
    known = np.flatnonzero(np.isfinite(proba).all(1))
    labels, p = dataset.labels[known], proba[known] / proba[known].sum(1, keepdims=True)
    if len(np.unique(labels)) < 2:
        return []
    classes = dataset.classes
    suspects = []
    for place in _ranked(labels, p):
        others = np.where(np.arange(len(classes)) == labels[place], -1.0, p[place])
        suspects.append(
            Suspect(
                str(dataset.labelled.ids[known[place]]),
                classes[labels[place]],
                classes[int(others.argmax())],
                round(float(p[place, labels[place]]), 6),
            )
        )
    return suspects


def _ranked(labels: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Return places of suspect labels, the worst first; cleanlab wants labels 0..K-1, all used."""
    from cleanlab.filter import find_label_issues

    present, compact = np.unique(labels, return_inverse=True)
    kept = proba[:, present]
    total = kept.sum(1, keepdims=True)
    kept = np.where(total > 0, kept / np.where(total > 0, total, 1), 1 / len(present))
    issues = np.zeros(len(kept), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rule in _RULES:
            issues |= find_label_issues(compact, kept, filter_by=rule, n_jobs=1)
    places = np.flatnonzero(issues)
    given = kept[places, compact[places]]
    return np.asarray(places[np.argsort(given, kind="stable")])
