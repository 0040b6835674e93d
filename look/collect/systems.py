"""What the stored systems say of every row, and how good they are."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.embed.view_sets import view_set
from archiveprobe.evaluate.compare import Difference, paired_differences
from archiveprobe.evaluate.corrected_labels import leaderboard_of
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.leaderboard import Leaderboard, Line
from archiveprobe.evaluate.majority import final_decision, majority_decision
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_names import runs_folder, systems
from archiveprobe.evaluate.system_status import check_up_to_date, command_again
from archiveprobe.evaluate.system_store import Run, load_run, stored_record
from archiveprobe.look.collect.aims import MOST_SYSTEMS, aims_of
from archiveprobe.look.collect.missing import missing_of
from archiveprobe.look.collect.parts import Missing, Part
from archiveprobe.task.config import Task
from archiveprobe.task.snapshot import digest_of_words


def load_current_runs(dataset: Dataset) -> tuple[list[tuple[Run, Predictions]], list[Missing]]:
    """Load every stored system that is whole and up to date, and say of the others what to do."""
    task = dataset.task
    found, missing = [], []
    names = systems(task)
    for name in names:
        try:
            run = load_run(task, name)
            check_up_to_date(run, dataset)
            found.append((run, run.predictions()))
        except InputError as error:
            missing.append(missing_of(error, _made_again(task, name)))
    if not names:
        missing.append(Missing("no systems yet", f"archiveprobe probe {task.shell_path}"))
    return found, missing


def _made_again(task: Task, name: str) -> str:
    """Return the command that makes a damaged system again, as far as its record is readable."""
    record = stored_record(task, name)
    if record is None:
        return f"archiveprobe probe {task.shell_path}"
    return command_again(Run(runs_folder(task) / name, record, {}, {}), task)


def collect_systems(
    dataset: Dataset,
    label: np.ndarray,
    runs: Sequence[tuple[Run, Predictions]],
    warnings: Sequence[str],
    caution: float,
) -> Part:
    """Collect probabilities and answers of the systems, sorted as the leaderboard has them.

    `label` (N,) is that of every row, -1 where it is to be predicted.
    """
    every = [stored for _, stored in runs]
    board = leaderboard_of(dataset, every, seconds=0.0, warnings=warnings, caution=caution)
    by_name = {run.system: (run, stored) for run, stored in runs}
    part = Part(meta={"board": _board(board), "systems": []})
    ranked = [by_name[line.system] for line in board.lines]
    differences = paired_differences([stored for _, stored in ranked], 0)
    for number, (line, (run, stored), difference) in enumerate(
        zip(board.lines, ranked, differences, strict=True)
    ):
        part.meta["systems"].append(
            _system(line, run, stored, dataset.task)
            | {
                "difference": _difference(difference) if number else None,
                "aims": aims_of(run, stored, dataset.unreadable) if number < MOST_SYSTEMS else None,
            }
        )
        part.add(_columns(number, run, stored, dataset, label))
    return part


def _difference(difference: Difference) -> dict[str, Any]:
    found = difference.macro_f1
    return {
        "against": difference.reference,
        "macro_f1": found.difference,
        "low": found.low,
        "high": found.high,
        "noise": difference.is_noise,
    }


def _board(board: Leaderboard) -> dict[str, Any]:
    record = board.record()
    return {
        "best": board.best,
        "reason": board.reason,
        "majority": asdict(board.majority),
        "selection": record["model_selection"],
        "warnings": board.warnings,
        "groups": board.lines[0].groups,
        "corrections": board.corrections,
    }


def _system(line: Line, run: Run, stored: Predictions, task: Task) -> dict[str, Any]:
    record = line.record()
    del record["system"]
    return {
        "name": line.system,
        "kind": str(run.record.get("kind")),
        **record,
        "views": _view_names(run.record, stored, task),
    }


def _view_names(record: Mapping[str, Any], stored: Predictions, task: Task) -> list[str]:
    """Return the names of the views that a system looks at one by one."""
    if stored.oof_views is None:
        return []
    count = stored.oof_views.shape[2]
    asked = task.embed.views
    if record.get("kind") == "finetune":
        asked = record["recipe"]["predict"]["views"]
    try:
        names = [view.name for view in view_set(str(asked))]
    except InputError:
        names = []
    # Views of a system that was made otherwise have no names, only numbers.
    return names if len(names) == count else [str(number + 1) for number in range(count)]


def _columns(
    number: int, run: Run, stored: Predictions, dataset: Dataset, label: np.ndarray
) -> Part:
    """Return the columns of one system: of labelled rows out of fold, of the others final."""
    k, count = len(stored.classes), len(label)
    labelled = np.flatnonzero(label >= 0)
    places, answered, missing = _answered(run, stored, dataset, label)
    p = np.full((count, k), np.nan)
    p[labelled], p[places] = stored.oof.mean(0), stored.test[answered]
    answer = np.full(count, -1, np.int8)
    answer[labelled] = majority_decision(stored)
    final = final_decision(stored, stored.test) if stored.answer is None else stored.answer
    readable = np.isfinite(stored.test).all(1)
    answer[places] = np.where(readable, final, dataset.unreadable)[answered]
    columns = {f"p:{number}": p.ravel(), f"answer:{number}": answer}
    if stored.oof_views is not None and stored.test_views is not None:
        views = np.full((count, stored.oof_views.shape[2]), np.nan, np.float32)
        views[labelled] = stored.oof_views.mean(0)[..., stored.positive]
        views[places] = stored.test_views[answered][..., stored.positive]
        columns[f"views:{number}"] = views.ravel()
    return Part(columns, missing=missing)


def _answered(
    run: Run, stored: Predictions, dataset: Dataset, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[Missing]]:
    """Return the places of rows to predict that a system has answers for, and where these stand.

    Rows that came since have none. Where the images of the others are not surely those that it
    answered for, none has.
    """
    to_predict = np.flatnonzero(label < 0)
    stands = {id_: at for at, id_ in enumerate(stored.test_ids.tolist())}
    where = np.array([stands.get(id_, -1) for id_ in dataset.unlabelled.ids.tolist()], np.intp)
    then = str(run.record["snapshot"].get("to predict"))
    if then != _digest_of(dataset, stored.test_ids):
        where[:] = -1
    lacking = int((where < 0).sum())
    again = command_again(run, dataset.task)
    what = f"{run.system} has no answers for {lacking} of {len(where)} rows to predict"
    missing = [Missing(f"{what}, which came or changed since", again)] if lacking else []
    return to_predict[where >= 0], where[where >= 0], missing


def _digest_of(dataset: Dataset, ids: np.ndarray) -> str:
    """Digest rows to predict and their images now, as a system's record does."""
    rows = dataset.unlabelled
    images = {
        id_: "" if key is None else key.hex()
        for id_, key in zip(rows.ids.tolist(), rows.keys, strict=True)
    }
    known = [str(id_) for id_ in ids]
    return digest_of_words(*known, *(images.get(id_, "") for id_ in known))
