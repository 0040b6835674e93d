"""Collect everything that a page shows of a task, from its table and from work/ alone.

Nothing is fitted but what an audit fits, and nothing is written. What is not there yet, or damaged,
is left out and named in `meta["missing"]`, with the command that brings it.
"""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from archiveprobe.api.state import Pinned, pin
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.evaluate.system_names import systems
from archiveprobe.evaluate.system_status import FROM_CACHE
from archiveprobe.look.collect.collection import FORM, Collection
from archiveprobe.look.collect.curves import learning_curves
from archiveprobe.look.collect.data_report import collect_data
from archiveprobe.look.collect.embedding_columns import collect_embeddings
from archiveprobe.look.collect.missing import in_order, missing_of
from archiveprobe.look.collect.parts import Missing, Part, RowWords
from archiveprobe.look.collect.rows import collect_rows
from archiveprobe.look.collect.systems import collect_systems, load_current_runs
from archiveprobe.look.embeddings.maps import MAPS
from archiveprobe.look.embeddings.matrix import standing_caches
from archiveprobe.look.embeddings.similar import NEIGHBOURS, rows_digest
from archiveprobe.probe.audit.shift import Shift
from archiveprobe.probe.run import data_warnings
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.corrections import read_corrections
from archiveprobe.task.snapshot import digest_of_words

_MOST_LABELS = 127


def collect(
    task: Task,
    *,
    partial: bool = False,
    neighbours: int = NEIGHBOURS,
    maps: Sequence[str] = ("PCA",),
    made: str | None = None,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Collection:
    """Collect what a page shows of a task. The same state gives the same bytes, but for `made`.

    With `partial`, rows that wait for `embed` are left out. Of every row the nearest `neighbours`
    are found, where the rows are not too many to compare all of them. `maps` are names in `MAPS`;
    `made` is the time that the page shows, by default now.

    Raises:
        InputError: nothing is embedded yet, embed was interrupted or rows came since (which
            `partial` allows), a file is damaged, or an unknown map.
    """
    _check(task, maps)
    pinned = pin(task, partial=partial, notify=notify)
    rows = pinned.keyed
    part = Part(meta=_head(pinned, made))
    part.add(collect_rows(pinned))
    label = part.columns["label"]
    report = collect_data(pinned, label, notify, progress)
    part.add(_systems(pinned, label, report.shift))
    part.add(report.part)
    readers, gone = standing_caches(pinned, rows)
    part.missing += gone
    part.add(
        collect_embeddings(
            pinned, rows, readers, maps=maps, neighbours=neighbours, progress=progress
        )
    )
    part.add(_learning(pinned))
    return _put_together(pinned, part)


def _check(task: Task, maps: Sequence[str]) -> None:
    if len(task.labels) > _MOST_LABELS:
        raise InputError(
            f"{task.file} has {len(task.labels)} labels, a page shows at most {_MOST_LABELS}: "
            "join some of them"
        )
    for name in maps:
        if name not in MAPS:
            raise InputError(f"unknown map {name!r}{nearest(name, MAPS)}: use {', '.join(MAPS)}")


def _head(pinned: Pinned, made: str | None) -> dict[str, object]:
    task = pinned.task
    return {
        "form": FORM,
        "task": task.name,
        # Under which name a browser keeps decisions. Rows are no part of it: if new images changed
        # it, decisions that are in no file yet would be lost. Whose they are, their digests say.
        "key": digest_of_words(task.name, *task.labels, *(t.name for t in task.tables.values())),
        "snapshot": pinned.digest,
        "rows": rows_digest(pinned),
        "partial": pinned.partial,
        "made": made or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "version": version("archiveprobe"),
        "stored": len(systems(task)),
        "command": f"archiveprobe probe {shlex.quote(str(task.file))}",
        # Those of rows that are gone, too: what a page saves replaces the whole file.
        "corrections": [asdict(correction) for correction in read_corrections(task).values()],
    }


def _systems(pinned: Pinned, label: np.ndarray, shift: Shift) -> Part:
    """Collect the systems, as far as there are labels and folds to have any."""
    nothing = Part(meta={"systems": [], "board": None})
    if pinned.dataset is None:
        fault = InputError(pinned.fault)
        nothing.missing.append(missing_of(fault, what="no systems"))
        return nothing
    runs, gone = load_current_runs(pinned.dataset)
    nothing.missing += gone
    if not runs:
        return nothing
    warnings, caution = data_warnings(pinned.dataset, shift=shift)
    nothing.add(collect_systems(pinned.dataset, label, runs, warnings, caution))
    return nothing


def _learning(pinned: Pinned) -> Part:
    """Collect the learning curves of fine-tuned systems, and say which folds are still missing."""
    task, dataset = pinned.task, pinned.dataset
    part = Part(meta={"learning": []})
    said: list[str] = []
    parts = None if dataset is None else dataset.parts
    curves = learning_curves(task, parts, notify=said.append)
    again = "archiveprobe finetune TASK --recipe RECIPE --fold all"
    part.missing += [missing_of(InputError(text), again) for text in said]
    part.meta["learning"] = [curve.record() for curve in curves]
    trained = Counter(curve.system for curve in curves if curve.fold is not None)
    stored = systems(task)
    for system, folds in trained.items():
        if dataset is not None and system not in stored:
            recipe, cached, _ = system.partition(FROM_CACHE)
            command = f"archiveprobe finetune TASK --recipe {recipe} --fold all"
            part.missing.append(
                Missing(
                    f"{system} has {folds} of {dataset.folds} folds, and no figures yet",
                    f"{command} --from-cache" if cached else command,
                )
            )
    return part


def _put_together(pinned: Pinned, part: Part) -> Collection:
    gaps = in_order(part.missing, str(pinned.task.file))
    meta = part.meta | {"missing": [asdict(gap) for gap in gaps]}
    collection = Collection(meta, part.columns, RowWords(pinned.rows, pinned.entries))
    meta["columns"] = collection.types
    return collection
