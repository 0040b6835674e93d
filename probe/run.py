"""The probe stage: systems cross-validated on the cache, ensembled, written down and compared."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from math import ceil
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.corrected_labels import leaderboard_of
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.evaluate.ensemble import common_record, decided, keep_ensemble, origin
from archiveprobe.evaluate.kept_rule import rule_for
from archiveprobe.evaluate.leaderboard import Leaderboard
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system import assemble
from archiveprobe.evaluate.system_status import load_current
from archiveprobe.evaluate.system_store import save_run
from archiveprobe.probe.audit.shift import Shift, find_shift
from archiveprobe.probe.base import Probe
from archiveprobe.probe.choice import Choice, parse_choice
from archiveprobe.probe.crossval import ProbeResult, cross_validate
from archiveprobe.probe.features import Features, load_features, load_prompts
from archiveprobe.probe.table import PROBES, ProbeEntry, probe_entry
from archiveprobe.task.config import Task

ENSEMBLE = "greedy"
_PER_BACKBONE = 10
# As a fine-tuned system, which stands behind it.
_TUNED = 500
_LONGEST_NAME = 100
_ENOUGH_ANSWERS = 100_000


@dataclass(frozen=True)
class Options:
    """What to try; None leaves the choice to the task: every probe on all backbones.

    `threshold_rule` None: the one that a person chose for a system, or else the default.
    """

    probes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    threshold_rule: str | None = None
    seed: int = 0
    workers: int | None = None
    partial: bool = False


@dataclass(frozen=True)
class _Plan:
    """The probes to fit on one choice of features."""

    features: Features
    makes: Mapping[str, Callable[[], Probe]]


def run_probes(
    task: Task,
    options: Options,
    *,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Leaderboard:
    """Cross-validate probes on the task's cache, write every system, and rank them.

    Raises:
        InputError: an unknown probe or backbone, nothing embedded yet, or too few rows.
        InputError: a cache is damaged.
    """
    started = time.monotonic()
    dataset = load_dataset(task, partial=options.partial)
    plans = _plans(dataset, options, notify)
    systems: list[Predictions] = []
    said: list[str] = []
    fitted = with_few_repeats(dataset, notify)
    total = 0
    for plan in plans:
        repeats = 1 if plan.features.by_fold else len(fitted.fold)
        total += len(plan.makes) * (1 + repeats * fitted.folds)
    with progress("fitting", total) as advance:
        for plan in plans:
            results = cross_validate(
                plan.makes, plan.features, fitted, workers=options.workers, advance=advance
            )
            for name, result in results.items():
                systems.append(
                    _keep_probe(dataset, plan.features, name, result, options, said.append)
                )
    if len(systems) > 1:
        rule = options.threshold_rule
        systems.append(keep_ensemble(dataset, systems, ENSEMBLE, rule, notify=said.append))
    tuned, left_out = load_current(dataset, ("finetune",), but=[one.system for one in systems])
    warnings, caution = data_warnings(dataset, notify)
    return leaderboard_of(
        dataset,
        [*systems, *tuned],
        seconds=time.monotonic() - started,
        warnings=[*said, *left_out, *warnings],
        caution=caution,
    )


def with_few_repeats(dataset: Dataset, notify: Notify) -> Dataset:
    """Return a dataset with as many repeats of the folds as its figures need, at least two.

    The standard error of a macro-F1 is about 0.36 / sqrt(n) by the held-out rows alone, however
    often they are held out again: .0016 at 50,000 rows. What repeats average out is how much a
    figure moves with the folds, which shrinks with the rows as well. With two the interval still
    has the part of the training rows (evaluate/variance.py). A number that the task file names is
    used as it is.
    """
    repeats = max(2, ceil(_ENOUGH_ANSWERS / max(1, len(dataset))))
    if "repeats" in dataset.task.folds.model_fields_set or repeats >= len(dataset.fold):
        return dataset
    notify(
        f"{len(dataset)} labelled rows: probes use {repeats} of the {len(dataset.fold)} repeats of "
        f"the folds, more would narrow no interval (set folds.repeats in {dataset.task.file} to "
        "have all)"
    )
    return replace(dataset, fold=dataset.fold[:repeats])


def data_warnings(
    dataset: Dataset, notify: Notify = lambda _: None, *, shift: Shift | None = None
) -> tuple[list[str], float]:
    """Return what a leaderboard must say of the data, and how careful to be in picking a system.

    The second is the number of standard errors within which the simpler of two is recommended. The
    `shift` is looked for where it is not given.
    """
    warnings = []
    if dataset.partial is not None:
        warnings.append(f"{dataset.partial}, the others wait for embed")
    if dataset.spanning:
        warnings.append(
            f"{dataset.spanning} near-duplicate groups span several folds, which flatters figures: "
            f"run `archiveprobe audit {dataset.task.shell_path} --apply`, which assigns the folds "
            "again"
        )
    shift = shift or find_shift(dataset, notify=notify)
    if shift.warning is not None:
        warnings.append(shift.warning)
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    warnings += [
        f"{label!r} has {number_of(count, 'labelled row')} only, fewer than there are folds: its "
        "figures mean little, label more"
        for label, count in zip(dataset.classes, counts, strict=True)
        if count < dataset.folds
    ]
    return warnings, shift.caution


def _plans(dataset: Dataset, options: Options, notify: Notify) -> list[_Plan]:
    task = dataset.task
    entries = _entries(options.probes)
    texts = options.features or (f"{'+'.join(dict.fromkeys(task.embed.backbones))}:mean",)
    plans = []
    for choice in dict.fromkeys(map(parse_choice, texts)):
        features = load_features(dataset, choice)
        makes = {
            entry.name: partial(entry.make, seed=options.seed)
            for entry in entries
            if not entry.prompts and _fits(entry, features, options, notify)
        }
        if makes:
            plans.append(_Plan(features, makes))
    plans += _prompted_plans(dataset, [entry for entry in entries if entry.prompts], options)
    if not plans:
        raise InputError(f"no probe to try on {task.file}: name one with --probe")
    return plans


def _entries(names: Sequence[str] | None) -> list[ProbeEntry]:
    return [probe_entry(name) for name in dict.fromkeys(PROBES if names is None else names)]


def _fits(entry: ProbeEntry, features: Features, options: Options, notify: Notify) -> bool:
    """Say whether a probe can learn from so many rows; one that is named is tried in any case."""
    rows = features.labelled.shape[0] * features.labelled.shape[1]
    if options.probes is not None or entry.most_rows is None or rows <= entry.most_rows:
        return True
    notify(f"{entry.name}: left out, {rows} rows are more than its {entry.most_rows}")
    return False


def _prompted_plans(
    dataset: Dataset, entries: Sequence[ProbeEntry], options: Options
) -> list[_Plan]:
    """Plan the probes that need prompts, on every single backbone with a text tower."""
    if not entries:
        return []
    plans = []
    choices = [parse_choice(text).backbones for text in options.features or ()]
    single = [names[0] for names in choices if len(names) == 1]
    for backbone in dict.fromkeys(single or dataset.task.embed.backbones):
        prompts = load_prompts(dataset, backbone)
        if prompts is None:
            continue
        features = load_features(dataset, Choice((backbone,)))
        settings = {"prompts": prompts.vectors, "scale": prompts.scale, "bias": prompts.bias}
        makes = {
            entry.name: partial(entry.make, seed=options.seed, **settings) for entry in entries
        }
        plans.append(_Plan(replace(features, sources=features.sources | prompts.sources), makes))
    if not plans and options.probes is not None:
        names = ", ".join(entry.name for entry in entries)
        raise InputError(
            f"{names}: no backbone has prompts for every label: write [prompts] in "
            f"{dataset.task.file}, put a CLIP under [embed], and run embed"
        )
    return plans


def system_name(kind: str, choice: Choice) -> str:
    """Name a system: its folder's name, so plain characters, and not too long."""
    text = str(choice).removesuffix(":mean").replace(":", "@")
    plain = re.sub(r"[^A-Za-z0-9._+=,@-]", "-", text)
    if plain != text or len(plain) > _LONGEST_NAME:
        digest = blake2b(text.encode(), digest_size=4).hexdigest()
        plain = f"{plain[:_LONGEST_NAME]}-{digest}"
    return f"{kind}-{plain}"


def _keep_probe(
    dataset: Dataset,
    features: Features,
    name: str,
    result: ProbeResult,
    options: Options,
    notify: Notify,
) -> Predictions:
    """Assemble a cross-validated probe into a system and write it down."""
    choice, model = features.choice, result.model
    system = system_name(name, choice)
    settings = model.get_params()
    # They are part of the fitted arrays.
    settings.pop("prompts", None)
    possible = len(dataset.classes) == 2
    rule, kept = rule_for(dataset, system, options.threshold_rule, possible=possible, notify=notify)
    record = {
        **common_record(dataset, system, rule, options.seed),
        **kept,
        "kind": "probe",
        "probe": name,
        "settings": {key: _plain(value) for key, value in settings.items()},
        "features": str(choice),
        "sources": features.sources,
        "candidates": [
            {**candidate, "weight": float(weight)}
            for candidate, weight in zip(model.candidates(), result.final, strict=True)
            if weight
        ],
        "complexity": list(PROBES).index(name)
        + _PER_BACKBONE * (len(choice.backbones) - 1)
        + _TUNED * bool(features.by_fold),
        "seconds": result.seconds,
    }
    done = assemble(
        dataset,
        result.logits,
        result.unlabelled,
        origin(record),
        method=rule,
        views=result.views,
        unlabelled_views=result.unlabelled_views,
    )
    record |= decided(done)
    save_run(dataset.task, system, record, done.predictions, model.arrays())
    return done.predictions


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, tuple) else value
