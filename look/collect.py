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
from archiveprobe.base.progress import Progress, silent
from archiveprobe.look.collect_embeddings import collect_embeddings
from archiveprobe.look.collect_groups import group_numbers
from archiveprobe.look.collect_rows import collect_rows
from archiveprobe.look.collect_systems import collect_systems, load_current_runs
from archiveprobe.look.collection import FORM, Collection
from archiveprobe.look.embeddings import standing_caches
from archiveprobe.look.maps import MAPS
from archiveprobe.look.missing import missing_of
from archiveprobe.look.parts import Notify, Part, RowWords
from archiveprobe.probe.run import data_warnings
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.corrections import read_corrections
from archiveprobe.task.snapshot import digest_of_words

_MOST_LABELS = 127


def collect(
    task: Task,
    *,
    partial: bool = False,
    maps: Sequence[str] = ("PCA",),
    made: str | None = None,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Collection:
    """Collect what a page shows of a task. The same state gives the same bytes, but for `made`.

    With `partial`, rows that wait for `embed` are left out. `maps` are names in `MAPS`; `made` is
    the time that the page shows, by default now.

    Raises:
        InputError: nothing is embedded yet, embed was interrupted or rows came since (which
            `partial` allows), a file is damaged, or an unknown map.
    """
    _check(task, maps)
    pinned = pin(task, partial=partial, notify=notify)
    rows = pinned.keyed
    part = Part(meta=_head(pinned, made))
    with progress("collecting", 3) as advance:
        part.add(collect_rows(pinned))
        part.columns["group"] = group_numbers(pinned)
        part.add(_data(pinned, part.columns["group"]))
        advance()
        part.add(_systems(pinned, part.columns["label"]))
        advance()
        readers, gone = standing_caches(pinned, rows)
        part.missing += gone
        part.add(collect_embeddings(task, rows, readers, maps))
        advance()
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
        "key": digest_of_words(task.name, *task.labels),
        "snapshot": pinned.digest,
        "partial": pinned.partial,
        "made": made or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "version": version("archiveprobe"),
        "command": f"archiveprobe probe {shlex.quote(str(task.file))}",
        "learning": [],
        # Those of rows that are gone, too: what a page saves replaces the whole file.
        "corrections": [asdict(correction) for correction in read_corrections(task).values()],
    }


def _data(pinned: Pinned, group: np.ndarray) -> Part:
    """Say of the data what needs no audit."""
    count = len(group)
    columns: dict[str, np.ndarray] = {
        "suspect": np.full(count, np.nan, np.float32),
        "suggested": np.full(count, -1, np.int8),
    }
    unreadable = Counter(entry.status for entry in pinned.entries if not entry.usable)
    data = {
        "unreadable": dict(sorted(unreadable.items())),
        "groups": {"count": int(group.max(initial=-1)) + 1, "rows": int((group >= 0).sum())},
        "suspects": {"judge": None, "count": 0},
        "shortcuts": [],
        "shift": None,
    }
    return Part(columns, {"data": data})


def _systems(pinned: Pinned, label: np.ndarray) -> Part:
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
    try:
        warnings, caution = data_warnings(pinned.dataset)
    except InputError as error:
        warnings, caution = [], 1.0
        nothing.missing.append(missing_of(error, what="no look for a shift"))
    nothing.add(collect_systems(pinned.dataset, label, runs, warnings, caution))
    return nothing


def _put_together(pinned: Pinned, part: Part) -> Collection:
    meta = part.meta | {
        "missing": [{"what": gap.what, "command": gap.command} for gap in part.missing]
    }
    collection = Collection(meta, part.columns, RowWords(pinned.rows, pinned.entries))
    meta["columns"] = collection.types
    return collection
