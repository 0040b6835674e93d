"""The probe stage: systems cross-validated on the cache, ensembled, written down and compared."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.evaluate.ensemble import common_record, decided, keep_ensemble, origin
from archiveprobe.evaluate.leaderboard import Leaderboard, leaderboard
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system import assemble
from archiveprobe.evaluate.system_store import save_run
from archiveprobe.probe.audit_shift import shift
from archiveprobe.probe.base import Probe
from archiveprobe.probe.crossval import Held, cross_validate
from archiveprobe.probe.features import (
    Choice,
    Features,
    load_features,
    load_prompts,
    parse_choice,
)
from archiveprobe.probe.table import PROBES, PROMPTS, ProbeEntry
from archiveprobe.task.config import Task, nearest

ENSEMBLE = "greedy"
_PER_BACKBONE = 10
_LONGEST_NAME = 100
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to try; None leaves the choice to the task: every default probe on all backbones."""

    probes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    threshold_rule: str = "smoothed"
    seed: int = 0
    workers: int | None = None
    partial: bool = False


def run_probes(
    task: Task,
    options: Options,
    *,
    notify: Notify = lambda _: None,
    progress: Callable[[str, int], Any] | None = None,
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
    total = sum(len(plan.makes) for plan in plans) * (1 + dataset.fold.shape[0] * dataset.folds)
    with _progress(progress, total) as advance:
        for plan in plans:
            held = cross_validate(
                plan.makes, plan.features, dataset, workers=options.workers, advance=advance
            )
            for name, one in held.items():
                systems.append(_keep_probe(dataset, plan, name, one, options))
    if len(systems) > 1:
        systems.append(keep_ensemble(dataset, systems, ENSEMBLE, options.threshold_rule))
    warnings, caution = beware(dataset, notify)
    seconds = time.monotonic() - started
    return leaderboard(systems, seconds=seconds, warnings=warnings, caution=caution)


def beware(dataset: Dataset, notify: Notify = lambda _: None) -> tuple[list[str], float]:
    """What to say of the rows to predict, and how wary to be in picking a system for them."""
    moved = shift(dataset, notify=notify)
    said = [moved.warning] if moved.warning else []
    return [*_unfit(dataset), *said, *_rare(dataset)], moved.caution


def _unfit(dataset: Dataset) -> list[str]:
    """What in the rows themselves flatters figures, or leaves them incomplete."""
    said = [] if dataset.partial is None else [f"{dataset.partial}, the others wait for embed"]
    if dataset.spanning:
        said.append(
            f"{dataset.spanning} near-duplicate groups span several folds, which flatters figures: "
            f"run `archiveprobe audit {dataset.task.file} --apply`, which cuts the folds anew"
        )
    return said


def _rare(dataset: Dataset) -> list[str]:
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    return [
        f"{label!r} has {count} labelled rows only, fewer than there are folds: its figures mean "
        "little, label more"
        for label, count in zip(dataset.classes, counts, strict=True)
        if count < dataset.folds
    ]


def _progress(progress: Callable[[str, int], Any] | None, total: int) -> Any:
    return nullcontext(lambda: None) if progress is None else progress("fitting", total)


@dataclass(frozen=True)
class _Plan:
    """The probes to fit on one choice of features."""

    features: Features
    makes: Mapping[str, Callable[[], Probe]]


def _plans(dataset: Dataset, options: Options, notify: Notify) -> list[_Plan]:
    task = dataset.task
    entries = _entries(options.probes)
    texts = options.features or (f"{'+'.join(dict.fromkeys(task.embed.backbones))}:mean",)
    choices = [parse_choice(text) for text in dict.fromkeys(texts)]
    plans = []
    for choice in choices:
        features = load_features(dataset, choice)
        makes = {
            entry.name: partial(entry.make, seed=options.seed)
            for entry in entries
            if PROMPTS not in entry.needs and _fits(entry, dataset, options, notify)
        }
        if makes:
            plans.append(_Plan(features, makes))
    prompted = [entry for entry in entries if PROMPTS in entry.needs]
    plans += _prompted_plans(dataset, prompted, options)
    if not plans:
        raise InputError(f"no probe to try on {task.file}: name one with --probe")
    return plans


def _entries(names: Sequence[str] | None) -> list[ProbeEntry]:
    if names is None:
        return [entry for entry in PROBES.values() if entry.default]
    for name in names:
        if name not in PROBES:
            known = ", ".join(PROBES)
            raise InputError(f"unknown probe {name!r}{nearest(name, PROBES)}: use one of {known}")
    return [PROBES[name] for name in dict.fromkeys(names)]


def _fits(entry: ProbeEntry, dataset: Dataset, options: Options, notify: Notify) -> bool:
    if options.probes is not None or entry.most_rows is None or len(dataset) <= entry.most_rows:
        return True
    notify(f"{entry.name}: left out, {len(dataset)} rows are more than its {entry.most_rows}")
    return False


def _prompted_plans(
    dataset: Dataset, entries: Sequence[ProbeEntry], options: Options
) -> list[_Plan]:
    """Probes that need prompts, on every backbone with a text tower, each alone."""
    plans = []
    named = [parse_choice(text) for text in options.features or ()]
    alone = [choice.backbones[0] for choice in named if len(choice.backbones) == 1]
    for backbone in alone or dict.fromkeys(dataset.task.embed.backbones):
        prompts = load_prompts(dataset, backbone) if entries else None
        if prompts is None:
            continue
        features = load_features(dataset, Choice((backbone,)))
        plans.append(
            _Plan(
                replace(features, sources=features.sources | prompts.sources),
                {
                    entry.name: partial(
                        entry.make,
                        prompts=prompts.vectors,
                        scale=prompts.scale,
                        bias=prompts.bias,
                        seed=options.seed,
                    )
                    for entry in entries
                },
            )
        )
    if entries and not plans and options.probes is not None:
        names = ", ".join(entry.name for entry in entries)
        raise InputError(
            f"{names}: no backbone has prompts for every label: write [prompts] in "
            f"{dataset.task.file}, put a CLIP under [embed], and run embed"
        )
    return plans


def system_name(kind: str, choice: Choice | None = None) -> str:
    """The name of a system: its folder's, so plain characters, and not too long."""
    if choice is None:
        return kind
    text = str(choice).removesuffix(":mean").replace(":", "@")
    plain = re.sub(r"[^A-Za-z0-9._+=,@-]", "-", text)
    if plain != text or len(plain) > _LONGEST_NAME:
        digest = blake2b(text.encode(), digest_size=4).hexdigest()
        plain = f"{plain[:_LONGEST_NAME]}-{digest}"
    return f"{kind}-{plain}"


def _keep_probe(
    dataset: Dataset, plan: _Plan, name: str, held: Held, options: Options
) -> Predictions:
    """Assemble a cross-validated probe into a system and write it down."""
    choice = plan.features.choice
    system = system_name(name, choice)
    complexity = PROBES[name].complexity + _PER_BACKBONE * (len(choice.backbones) - 1)
    record = {
        **common_record(dataset, system, options.threshold_rule, options.seed),
        "kind": "probe",
        "probe": name,
        "settings": _settings(held.model),
        "features": str(choice),
        "sources": plan.features.sources,
        "candidates": [
            {**candidate, "weight": float(weight)}
            for candidate, weight in zip(held.model.candidates(), held.final, strict=True)
            if weight
        ],
        "complexity": complexity,
        "seconds": held.seconds,
    }
    done = assemble(
        dataset,
        held.logits,
        held.unlabelled,
        origin(record),
        method=options.threshold_rule,
        views=held.views,
        unlabelled_views=held.unlabelled_views,
    )
    record |= decided(done)
    save_run(dataset.task, system, record, done.predictions, held.model.arrays())
    return done.predictions


def _settings(model: Probe) -> dict[str, Any]:
    settings = model.get_params()
    # These are part of the fitted arrays.
    for name in ("prompts", "weights"):
        settings.pop(name, None)
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, tuple) else value
