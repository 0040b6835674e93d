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
from archiveprobe.base.progress import Notify
from archiveprobe.embed.view_sets import view_set
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.ensemble import common_record, decided, origin
from archiveprobe.evaluate.kept_rule import rule_for
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.system import assemble
from archiveprobe.evaluate.system_store import save_run
from archiveprobe.evaluate.thresholding import BY_HAND, numbered
from archiveprobe.finetune.inference import average, decisions, vote
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.split import fold_of
from archiveprobe.finetune.trained_parts import TrainedPart, check_agreement

KIND = "finetune"
_COMPLEXITY = 500


@dataclass(frozen=True)
class Line:
    """The figures of a trained part: the epoch that was kept of those trained, its mean loss, and
    macro-F1 without a threshold (but a fixed one) on the `rows` rows that were predicted but not
    trained on.
    """

    part: str
    epoch: int
    epochs: int
    loss: float
    macro_f1: float | None
    rows: int
    seconds: float

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {**asdict(self), "seconds": round(self.seconds, 2)}


def line_of(dataset: Dataset, recipe: Recipe, part: TrainedPart) -> Line:
    """Return the figures of a part; of a fold, on its reported rows only."""
    record = part.record
    logits = part.logits[: len(dataset)]
    known = np.isfinite(logits).all((1, 2))
    fold = fold_of(part.name)
    if fold is not None:
        known &= dataset.fold[0] == fold
    score = None
    if known.any():
        decision = decisions(recipe.predict, logits[known], dataset.positive)
        score = macro_f1(dataset.labels[known], decision, len(dataset.classes))
    loss = record.history[record.epoch - 1].loss
    epochs, rows = len(record.history), int(known.sum())
    return Line(part.name, record.epoch, epochs, loss, score, rows, record.seconds)


def keep_system(
    dataset: Dataset,
    recipe: Recipe,
    system: str,
    features: str,
    how: Mapping[str, Any],
    folds: Sequence[TrainedPart],
    networks: Sequence[TrainedPart],
    notify: Notify = lambda _: None,
) -> None:
    """Put the folds together into a system with one repeat of out-of-fold predictions, and save it.

    The rows to predict are answered by the mean of `networks`: the final one, or those of the
    folds. `how` it was trained is kept in the record.

    Raises:
        InputError: parts started from different networks, or the disk refuses.
    """
    check_agreement([*folds, *networks])
    used = [network for part in (*folds, *networks) for network in part.networks]
    fixed = recipe.predict.threshold
    rule = recipe.predict.threshold_rule if fixed is None else numbered(BY_HAND, fixed)
    views = view_set(recipe.predict.views)
    possible = recipe.predict.combine != "vote" and len(dataset.classes) == 2
    method, kept = rule_for(dataset, system, None, default=rule, possible=possible, notify=notify)
    several, voted = len(views) > 1, recipe.predict.combine == "vote"
    n = len(dataset)
    oof = np.full(folds[0].logits[:n].shape, np.nan)
    for fold, part in enumerate(folds):
        rows = dataset.fold[0] == fold
        oof[rows] = part.logits[:n][rows]
    unlabelled = average(np.stack([part.logits[n:] for part in networks]), 0)
    record = {
        **common_record(dataset, system, method, recipe.seed),
        **kept,
        "kind": KIND,
        "recipe": recipe.model_dump(mode="json", exclude={"name"}),
        "features": features,
        "networks": [_network(dataset, each) for part in networks for each in part.networks],
        "folds": [_network(dataset, each) for part in folds for each in part.networks],
        "made_of": dict(networks[0].record.made_of),
        "to_predict": dataset.unlabelled.digest,
        **how,
        "complexity": _COMPLEXITY + sum(len(part.networks) for part in networks),
        "seconds": sum({part.folder: part.record.seconds for part in used}.values()),
    }
    record["versions"] |= {name: version(name) for name in ("torch", "timm")}
    # As they come from the networks: what is remembered of images that need no second look.
    arrays = {"logits": average(unlabelled, 1)}
    if voted:
        arrays["answer"] = vote(unlabelled, views, dataset.positive)
    done = assemble(
        dataset,
        average(oof, 1)[None],
        arrays["logits"],
        origin(record),
        method=method,
        decision=vote(oof, views, dataset.positive)[None] if voted else None,
        answer=arrays.get("answer"),
        views=oof[None] if several else None,
        unlabelled_views=unlabelled if several else None,
        calibrated=recipe.predict.calibrate,
    )
    record |= decided(done)
    save_run(dataset.task, system, record, done.predictions, arrays)


def _network(dataset: Dataset, part: TrainedPart) -> dict[str, Any]:
    settings = part.record.settings
    return {
        "part": settings["part"],
        **({"seed": settings["seed"]} if "seed" in settings else {}),
        "file": part.weights.relative_to(dataset.task.work).as_posix(),
        "sha256": part.digest,
        "epoch": part.record.epoch,
    }


def write_answers(dataset: Dataset, recipe: Recipe, part: TrainedPart) -> Path | None:
    """Write a part's answers for the rows to predict: id, label and p_<label> columns.

    They are decided without a threshold but a fixed one. None where there are no such rows.

    Raises:
        InputError: the file cannot be written.
    """
    logits = part.logits[len(dataset) :]
    if not len(logits):
        return None
    known = np.isfinite(logits).all((1, 2))
    decision = decisions(recipe.predict, logits, dataset.positive)
    labels = np.where(known, decision, dataset.unreadable)
    proba = softmax(average(logits, 1), -1)
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["id", "label", *(f"p_{name}" for name in dataset.classes)])
    for id_, label, p, readable in zip(dataset.unlabelled.ids, labels, proba, known, strict=True):
        numbers = [f"{value:.6f}" if readable else "" for value in p]
        table.writerow([id_, dataset.classes[label], *numbers])
    file = part.folder / "answers.csv"
    try:
        write_whole(file, out.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}: make room, run again") from None
    return file
