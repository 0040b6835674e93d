"""Threshold rules that a person chose for a system: kept, aloud, when the system is made again."""

from collections.abc import Mapping
from typing import Any

from archiveprobe.base.progress import Notify
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.system_names import RECORD, runs_folder
from archiveprobe.evaluate.system_store import stored_record
from archiveprobe.evaluate.thresholding import DEFAULT_RULE, described, rule_of

CHOSEN = "threshold_chosen"
"""Marks the record of a system whose threshold rule a person chose with `threshold`."""


def rule_for(
    dataset: Dataset,
    system: str,
    given: str | None,
    *,
    default: str = DEFAULT_RULE,
    possible: bool = True,
    notify: Notify = lambda _: None,
) -> tuple[str, dict[str, Any]]:
    """Return the threshold rule of a system that is made again, and how its record marks it.

    What a person chose for it before is kept, unless `given`, a rule for this run, replaces it, or
    it is not `possible`; `notify` is told either.
    """
    rule = given or default
    record = stored_record(dataset.task, system)
    if record is None:
        if (runs_folder(dataset.task) / system / RECORD).exists():
            notify(f"{system}: whether a threshold was chosen for it cannot be read any more")
        return rule, {}
    chosen = _chosen_rule(record)
    if chosen is None:
        return rule, {}
    if chosen == given:
        return chosen, {CHOSEN: True}
    said = f"{system}: threshold {described(chosen)}"
    dropped = None
    if given is not None:
        dropped = f"--threshold-rule {given}"
    elif not possible:
        dropped = "this system has no threshold"
    elif (record.get("classes"), record.get("positive")) != (
        list(dataset.classes),
        dataset.positive,
    ):
        dropped = "it was for other labels"
    if dropped is not None:
        notify(f"{said}, dropped: {dropped}")
        return rule, {}
    notify(
        f"{said}, kept; `archiveprobe threshold {dataset.task.shell_path} --system {system} "
        f"--threshold-rule {DEFAULT_RULE}` chooses it again"
    )
    return chosen, {CHOSEN: True}


def _chosen_rule(record: Mapping[str, Any]) -> str | None:
    """Return the rule that a person chose; None where nobody did, or it is none of this version."""
    rule = record.get("threshold_rule")
    if record.get(CHOSEN) is not True or not isinstance(rule, str):
        return None
    try:
        rule_of(rule)
    except ValueError:
        return None
    return rule
