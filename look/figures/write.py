"""Figures for papers: `look TASK --figures DIR` writes each as SVG and as PDF."""

from collections.abc import Callable, Iterator
from functools import partial as bound
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.evaluate.ensemble import rank_stored
from archiveprobe.evaluate.leaderboard import Leaderboard, Line
from archiveprobe.evaluate.majority import majority_decision
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_names import SYSTEM_NAME
from archiveprobe.evaluate.system_status import load_systems
from archiveprobe.look.collect.curves import learning_curves
from archiveprobe.look.embeddings.maps import pca_map
from archiveprobe.look.figures import plots, task_plots
from archiveprobe.look.figures.files import FORMS, Plot, check_targets, render, write
from archiveprobe.look.figures.numbers import answers_of
from archiveprobe.look.figures.style import MOST_SERIES, literal
from archiveprobe.probe.features import find_reader, read_matrix
from archiveprobe.probe.run import data_warnings
from archiveprobe.task.config import Task

_MOST_SYSTEMS, _MOST_IMAGES = 100, 20_000
_WIDE = (4.6, 3.4)


def write_figures(
    task: Task,
    folder: Path,
    *,
    system: str | None = None,
    partial: bool = False,
    notify: Notify = lambda _: None,
) -> list[Path]:
    """Write figures of all stored systems, and of one of them, into a folder; the files written.

    That one is the recommended system, or the first, unless `system` names another. Figures that
    were written there before are replaced, anything else is not. `notify` is told what is left out.

    Raises:
        InputError: no system is up to date, no such system, matplotlib is not installed, a file of
            such a name is there that is no figure, or the disk refuses.
    """
    dataset = load_dataset(task, partial=partial)
    board = rank_stored(dataset, data_warnings)
    for warning in board.warnings:
        notify(f"note: {warning}")
    name = system or board.best or board.lines[0].system
    stored = load_systems(dataset, [name])[0]
    every = [
        Plot("forest", *_forest(board, notify)),
        *_of_system(stored, board, notify),
        *_of_map(dataset, stored, notify),
        *_of_learning(dataset, notify),
    ]
    groups = number_of(board.lines[0].groups, "group")
    remark = f"{number_of(len(dataset), 'labelled row')}, {groups}"
    if dataset.partial is not None:
        remark += f", {dataset.partial}"
    names = [f"{plot.name}.{form}" for plot in every for form in FORMS]
    targets = check_targets(task, folder, names)
    contents = render(every, dataset.snapshot_digest, remark, notify)
    write({target: contents[target.name] for target in targets})
    return targets


def _forest(
    board: Leaderboard, notify: Notify
) -> tuple[tuple[float, float], str, Callable[..., None]]:
    lines: list[Line] = board.lines[:_MOST_SYSTEMS]
    if len(lines) < len(board.lines):
        notify(f"forest: the first {len(lines)} of {len(board.lines)} systems")
    if board.selection is not None:
        lines = [*lines, board.selection]
    size = (5.6, 1.3 + 0.22 * len(lines))
    draw = bound(
        task_plots.draw_forest,
        lines=lines,
        best=board.best,
        majority=board.majority.macro_f1,
    )
    return size, "Systems", draw


def _of_system(stored: Predictions, board: Leaderboard, notify: Notify) -> Iterator[Plot]:
    answers = answers_of(stored, MOST_SERIES)
    names, title = answers.names, literal(stored.system, 60)
    one_by_one, taller = title, 0.0
    if not answers.binary:
        count, known = len(answers.shown), number_of(len(names), "label")
        which = f"all {known}" if count == len(names) else f"the {count} commonest of {known}"
        notify(f"precision-recall, roc, calibration: {which}, each against the rest")
        notify(f"scores: {which}, each row by the probability of its own label")
        one_by_one, taller = f"{title}\neach label against the rest", 0.2 * len(answers.shown)
    if answers.shown:
        about: dict[str, Any] = {"stored": stored, "answers": answers}
        for name, height, draw in (
            ("precision-recall", 3.9, bound(plots.draw_precision_recall, **about)),
            ("roc", 3.9, bound(plots.draw_roc, **about)),
            ("calibration", 4.4, bound(plots.draw_calibration, answers=answers)),
        ):
            yield Plot(name, (3.6, height + taller), one_by_one, draw)
        yield Plot("scores", _WIDE, title, bound(plots.draw_scores, **about))
        if answers.binary:
            nested = next(line for line in board.lines if line.system == stored.system)
            draw = bound(plots.draw_threshold, **about, nested=nested)
            yield Plot("threshold", _WIDE, title, draw)
        else:
            notify(f"threshold: left out, it is for two labels, here are {len(names)}")
    decision = majority_decision(stored)
    side = 2.4 + 0.3 * min(len(names), 40)
    draw = bound(plots.draw_confusion, names=names, labels=stored.labels, decision=decision)
    yield Plot("confusion", (side, side), title, draw)


def _of_map(dataset: Dataset, stored: Predictions, notify: Notify) -> Iterator[Plot]:
    backbone = dataset.task.embed.backbones[0]
    n, m = len(dataset), len(dataset.unlabelled)
    step = -(-(n + m) // _MOST_IMAGES)
    labelled, unlabelled = np.arange(0, n, step), np.arange(0, m, step)
    if step > 1:
        notify(f"map: {len(labelled) + len(unlabelled)} of {n + m} images, evenly picked")
    try:
        reader = find_reader(dataset, backbone)
        parts = [
            read_matrix(reader, rows.select(picked), backbone, "mean", dataset.task)[:, 0]
            for rows, picked in ((dataset.labelled, labelled), (dataset.unlabelled, unlabelled))
        ]
    except InputError as error:
        notify(f"map: left out: {error}")
        return
    places = pca_map(np.concatenate(parts))
    known = np.isfinite(places).all(1)
    labels = np.r_[dataset.labels[labelled], np.full(len(unlabelled), -1)]
    wrong = (majority_decision(stored) != stored.labels)[labelled]
    is_wrong = np.r_[wrong, np.zeros(len(unlabelled), bool)]
    draw = bound(
        task_plots.draw_map,
        places=places[known],
        labels=labels[known],
        names=dataset.classes,
        is_wrong=is_wrong[known],
    )
    random = " with RANDOM WEIGHTS" if reader.fingerprint.get("random_weights") else ""
    title = f"{literal(backbone)}{random}, mistakes of {literal(stored.system, 50)}"
    yield Plot("map", (4.6, 4.9), title, draw)


def _of_learning(dataset: Dataset, notify: Notify) -> Iterator[Plot]:
    curves = learning_curves(dataset.task, dataset.parts, notify=notify)
    for system, of_system in groupby(curves, lambda each: each.system):
        if SYSTEM_NAME.fullmatch(system):
            draw = bound(task_plots.draw_learning, curves=list(of_system))
            yield Plot(f"learning-{system}", (6.4, 3.2), literal(system, 60), draw)
