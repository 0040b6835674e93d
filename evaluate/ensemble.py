"""Ensembles of stored systems: combined, stored, ranked; and what every system's record holds."""

import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import first_few, number_of
from archiveprobe.evaluate.combine import combine
from archiveprobe.evaluate.corrected_labels import leaderboard_of
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.evaluate.kept_rule import CHOSEN, rule_for
from archiveprobe.evaluate.leaderboard import Leaderboard
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system import Assembled, assemble
from archiveprobe.evaluate.system_status import load_current, load_systems
from archiveprobe.evaluate.system_store import save_run, stored_record
from archiveprobe.task.config import Task

DataWarnings = Callable[[Dataset], tuple[Sequence[str], float]]
# Every ensemble is more complex than every probe and every fine-tuned network.
_COMPLEXITY = 1000


def common_record(dataset: Dataset, system: str, threshold_rule: str, seed: int) -> dict[str, Any]:
    """Record what every system has: the task's settings, digests of its inputs, versions."""
    return {
        "system": system,
        "task": dataset.task.name,
        "classes": list(dataset.classes),
        "positive": dataset.positive,
        "unreadable": dataset.unreadable,
        "threshold_rule": threshold_rule,
        "seed": seed,
        "snapshot": {
            "digest": dataset.snapshot_digest,
            **dataset.parts,
            **({} if dataset.partial is None else {"partial": dataset.partial}),
        },
        "versions": {name: version(name) for name in ("numpy", "scipy", "scikit-learn")},
    }


def origin(record: Mapping[str, Any]) -> dict[str, Any]:
    """Select what predictions carry of their system's record.

    That it is about a part of the rows only is said wherever the system is listed.
    """
    names = ("system", "kind", "features", "complexity", "seconds", "snapshot", "threshold_rule")
    carried = {name: record[name] for name in names}
    if CHOSEN in record:
        carried[CHOSEN] = record[CHOSEN]
    partial = record["snapshot"].get("partial")
    if partial is not None:
        carried |= {"features": f"{record['features']} ({partial})", "partial": partial}
    return carried


def decided(done: Assembled) -> dict[str, Any]:
    """Record the threshold and the calibration that new rows are answered with."""
    threshold = done.predictions.threshold
    return {
        "threshold": None if np.isnan(threshold) else float(threshold),
        "calibration": {
            "method": done.calibration.method,
            "parameters": [float(value) for value in done.calibration.parameters],
        },
    }


def keep_ensemble(
    dataset: Dataset,
    members: Sequence[Predictions],
    method: str,
    threshold_rule: str | None = None,
    name: str | None = None,
    ties: str = "mean",
    notify: Notify = lambda _: None,
) -> Predictions:
    """Combine systems into one, called like its method unless named, and write it down.

    Its threshold is found by a rule; None: the one that a person chose for it, or else the default.

    Raises:
        InputError: an unknown method or tie rule, members that do not fit together, or the name of
            a member or of a system that is no ensemble.
    """
    started = time.monotonic()
    combined = combine(members, method, ties)
    system = name or method
    if system in [member.system for member in members]:
        raise InputError(
            f"{system!r} is one of the members: give the ensemble its own name (--name)"
        )
    _say_replaced(dataset.task, system, [member.system for member in members], notify)
    possible = combined.decision is None and len(dataset.classes) == 2
    rule, kept = rule_for(dataset, system, threshold_rule, possible=possible, notify=notify)
    common = common_record(dataset, system, rule, 0)
    # Rows to predict may have come or changed since: the answers are about those of the members.
    about = {str(member.origin.get("snapshot", {}).get("to predict")) for member in members}
    common["snapshot"] |= {"to predict": about.pop() if len(about) == 1 else ""}
    record = {
        **common,
        **kept,
        "kind": "ensemble",
        "method": method,
        "ties": ties,
        "features": f"{len(members)} systems",
        "members": [
            {"system": member.system, "weight": float(weight), "predictions": member.digest}
            for member, weight in zip(members, combined.final, strict=True)
        ],
        "complexity": _COMPLEXITY + len(members),
        "seconds": time.monotonic() - started,
    }
    done = assemble(
        dataset,
        combined.logits,
        combined.unlabelled,
        origin(record),
        method=rule,
        decision=combined.decision,
        answer=combined.answer,
        test_ids=members[0].test_ids,
    )
    record |= decided(done)
    save_run(dataset.task, system, record, done.predictions)
    return done.predictions


def _say_replaced(task: Task, system: str, members: Sequence[str], notify: Notify) -> None:
    """Say where an ensemble of other members goes, and how to make it again."""
    record = stored_record(task, system) or {}
    before = [str(entry["system"]) for entry in record.get("members", ())]
    lost = [name for name in before if name not in members]
    if lost:
        words = " ".join(f"--system {name}" for name in before)
        notify(
            f"{system}: {number_of(len(members), 'member')} now, {len(before)} before, without "
            f"{first_few(lost)}; `archiveprobe ensemble {task.shell_path} "
            f"--method {record['method']} --name {system} {words}` combines those again"
        )


def run_ensemble(
    task: Task,
    method: str,
    names: Sequence[str] = (),
    *,
    threshold_rule: str | None = None,
    name: str | None = None,
    ties: str = "mean",
    data_warnings: DataWarnings = lambda _: ((), 1.0),
    partial: bool = False,
) -> Leaderboard:
    """Combine stored systems, all that are no ensembles unless named, and rank it among them.

    Fine-tuned systems are ranked in any case.

    `data_warnings` gives the leaderboard's warnings, and its caution.

    Raises:
        InputError: an unknown method, tie rule or system, fewer than two, systems that do not fit,
            or a name that is taken.
    """
    started = time.monotonic()
    dataset = load_dataset(task, partial=partial)
    members = load_systems(dataset, names)
    said: list[str] = []
    combined = keep_ensemble(dataset, members, method, threshold_rule, name, ties, said.append)
    kinds = ("finetune",) if names else ("probe", "finetune")
    others, left_out = load_current(dataset, kinds, but=[member.system for member in members])
    warnings, caution = data_warnings(dataset)
    return leaderboard_of(
        dataset,
        [*members, *others, combined],
        seconds=time.monotonic() - started,
        warnings=[*said, *left_out, *warnings],
        caution=caution,
    )


def stored_leaderboard(
    task: Task, *, data_warnings: DataWarnings = lambda _: ((), 1.0), partial: bool = False
) -> Leaderboard:
    """Rank every stored system that is up to date, ensembles too; nothing is fitted.

    Raises:
        InputError: no system is up to date.
    """
    return rank_stored(load_dataset(task, partial=partial), data_warnings)


def rank_stored(dataset: Dataset, data_warnings: DataWarnings) -> Leaderboard:
    """Rank the stored systems of a dataset. See `stored_leaderboard`."""
    started = time.monotonic()
    found, left_out = load_current(dataset, ("probe", "finetune", "ensemble"))
    if not found:
        what = f"none of {len(left_out)} systems is up to date" if left_out else "no systems yet"
        raise InputError(f"{what}: run `archiveprobe probe {dataset.task.shell_path}`")
    try:
        warnings, caution = data_warnings(dataset)
    except InputError as error:
        # Figures that are stored need no cache.
        warnings, caution = [f"no look for a shift: {error}"], 1.0
    return leaderboard_of(
        dataset,
        found,
        seconds=time.monotonic() - started,
        warnings=[*left_out, *warnings],
        caution=caution,
    )
