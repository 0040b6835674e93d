"""From trained parts to figures, a stored system, and a file of answers."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
from archiveprobe.embed.views import View, view_set
from archiveprobe.evaluate.choose_threshold import BY_HAND
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.ensemble import common_record, decided, origin
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system import assemble
from archiveprobe.evaluate.system_store import save_run
from archiveprobe.evaluate.thresholding import decide
from archiveprobe.finetune.outcome import Outcome
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.start import check_agreement
from archiveprobe.finetune.verdict import averaged, voted

KIND = "finetune"
_COMPLEXITY = 500


@dataclass(frozen=True)
class Line:
    """A trained part: the epoch that was kept of those trained, its mean loss, and macro-F1 without
    a threshold (but a fixed one) on the rows that were predicted but not learnt, `rows` of them.
    """

    part: str
    epoch: int
    epochs: int
    loss: float
    macro_f1: float | None
    rows: int
    seconds: float

    def record(self) -> dict[str, Any]:
        """The form of `--json`."""
        return {**asdict(self), "seconds": round(self.seconds, 2)}


def line_of(dataset: Dataset, recipe: Recipe, views: Sequence[View], one: Outcome) -> Line:
    """The figures of a part; of a fold, on its reported rows only."""
    logits = one.logits[: len(dataset)]
    known = np.isfinite(logits).all((1, 2))
    if one.part.startswith("fold-"):
        known &= dataset.fold[0] == int(one.part.removeprefix("fold-"))
    score = None
    if known.any():
        decision = decisions(recipe, views, logits[known], dataset.positive)
        score = macro_f1(dataset.labels[known], decision, len(dataset.classes))
    loss = one.history[one.epoch - 1].loss
    rows = int(known.sum())
    return Line(one.part, one.epoch, len(one.history), loss, score, rows, one.seconds)


def decisions(
    recipe: Recipe, views: Sequence[View], logits: np.ndarray, positive: int
) -> np.ndarray:
    """The class (n,) of logits (n, V, K) of views, without a threshold but a fixed one.

    NaN gets any class.
    """
    if recipe.predict.combine == "vote":
        return voted(logits, views, positive)
    mean = np.nan_to_num(averaged(logits, 1))
    if recipe.predict.threshold is None:
        return np.asarray(mean.argmax(-1))
    return decide(softmax(mean, -1)[:, positive], recipe.predict.threshold, positive)


def check_threshold(dataset: Dataset, recipe: Recipe) -> None:
    """Check, before anything is trained, that a fixed threshold has two labels to decide between.

    Raises:
        InputError: the task has more.
    """
    if recipe.predict.threshold is not None and len(dataset.classes) > 2:
        raise InputError(
            f"predict.threshold of recipe {recipe.name} decides between two labels, and "
            f"{dataset.task.file} has {len(dataset.classes)}: leave it out in a copy of the recipe "
            "under another name"
        )


def keep_system(
    dataset: Dataset,
    recipe: Recipe,
    system: str,
    features: str,
    how: Mapping[str, Any],
    folds: Sequence[Outcome],
    networks: Sequence[Outcome],
) -> Predictions:
    """Put the folds together into a system with one repeat of out-of-fold predictions, and save it.

    The rows to predict are answered by the mean of `networks`: the final one, or those of the
    folds. `how` it was trained is kept in the record.

    Raises:
        InputError: parts started from different networks, or the disk refuses.
    """
    check_agreement([*folds, *networks])
    fixed = recipe.predict.threshold
    method = recipe.predict.threshold_rule if fixed is None else BY_HAND
    views = view_set(recipe.predict.views)
    n = len(dataset)
    held = np.full(folds[0].logits[:n].shape, np.nan)
    for fold, one in enumerate(folds):
        inside = dataset.fold[0] == fold
        held[inside] = one.logits[:n][inside]
    unlabelled = averaged(np.stack([one.logits[n:] for one in networks]), 0)
    record = {
        **common_record(dataset, system, method, recipe.seed),
        "kind": KIND,
        "recipe": recipe.model_dump(mode="json", exclude={"name"}),
        "features": features,
        "networks": [
            {
                "part": one.part,
                "file": one.weights.relative_to(dataset.task.work).as_posix(),
                "sha256": one.digest,
                "epoch": one.epoch,
            }
            for one in networks
        ],
        "made_of": dict(networks[0].made_of),
        "to_predict": dataset.unlabelled.digest,
        **how,
        "complexity": _COMPLEXITY + len(networks),
        "seconds": sum({one.folder: one.seconds for one in (*folds, *networks)}.values()),
    }
    record["versions"] |= {name: version(name) for name in ("torch", "timm")}
    vote = recipe.predict.combine == "vote"
    several = len(views) > 1
    # As they come from the networks: what is remembered of images that need no second look.
    answers = {"logits": averaged(unlabelled, 1)}
    if vote:
        answers["answer"] = voted(unlabelled, views, dataset.positive)
    done = assemble(
        dataset,
        averaged(held, 1)[None],
        answers["logits"],
        origin(record),
        method=method,
        decision=voted(held, views, dataset.positive)[None] if vote else None,
        answer=answers.get("answer"),
        views=held[None] if several else None,
        unlabelled_views=unlabelled if several else None,
        calibrated=recipe.predict.calibrate,
        fixed=fixed,
    )
    record |= decided(done)
    save_run(dataset.task, system, record, done.predictions, answers)
    return done.predictions


def write_answers(
    dataset: Dataset, recipe: Recipe, views: Sequence[View], one: Outcome
) -> Path | None:
    """A part's answers for the rows to predict: id, label and p_<label> columns.

    They are decided without a threshold but a fixed one. None where there are no such rows.

    Raises:
        InputError: the file cannot be written.
    """
    logits = one.logits[len(dataset) :]
    if not len(logits):
        return None
    known = np.isfinite(logits).all((1, 2))
    decided_ = decisions(recipe, views, logits, dataset.positive)
    labels = np.where(known, decided_, dataset.unreadable)
    proba = softmax(averaged(logits, 1), -1)
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["id", "label", *(f"p_{name}" for name in dataset.classes)])
    for id_, label, p, readable in zip(dataset.unlabelled.ids, labels, proba, known, strict=True):
        numbers = [f"{value:.6f}" if readable else "" for value in p]
        table.writerow([id_, dataset.classes[label], *numbers])
    file = one.folder / "answers.csv"
    try:
        write_whole(file, out.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}: make room, run again") from None
    return file
