"""What every audit is given, and what it returns."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.probe.features import find_reader, read_matrix
from archiveprobe.task.manifest import Entry

NAMED = 3
"""How many names a line or a warning gives before it says "and 3 more"."""


@dataclass(frozen=True)
class AuditData:
    """N rows: n labelled ones, then those to predict.

    `labels` (N,) are indices into `dataset.classes`, -1 for a row to predict; `entries` say what
    was observed of every image; `sources` maps every backbone with a cache to the digest of its
    fingerprint. With `apply`, an audit may change the folds.
    """

    dataset: Dataset
    sources: Mapping[str, str]
    ids: np.ndarray
    labels: np.ndarray
    entries: list[Entry]
    apply: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def usable(self) -> np.ndarray:
        """Say of every row (N,) whether its image was decoded."""
        return np.array([entry.usable for entry in self.entries], bool)

    def unit_embeddings(self, places: np.ndarray) -> np.ndarray:
        """Read embeddings (len(places), D) float32 of length one, NaN where there is none.

        Views are averaged. Every backbone is centred and scaled to length one before they are put
        side by side, and all rows have length one, so products of rows are mean cosines over the
        backbones. Centring spreads the cosines: in the raw space of a network all images point the
        same way.

        Raises:
            InputError: rows are not embedded yet.
            InputError: a cache is damaged.
        """
        both = (self.dataset.labelled, self.dataset.unlabelled)
        rows = Rows(
            self.ids,
            [key for part in both for key in part.keys],
            [caption for part in both for caption in part.captions],
        ).select(places)
        parts = []
        for name in self.sources:
            reader = find_reader(self.dataset, name)
            x = read_matrix(reader, rows, name, "mean", self.dataset.task)[:, 0]
            known = np.isfinite(x).all(1)
            if known.any():
                x -= x[known].mean(0, dtype=np.float64).astype(np.float32)
            length = np.linalg.norm(x, axis=1, keepdims=True)
            parts.append(x / np.where(length > 0, length, 1))
        return np.asarray(np.concatenate(parts, 1) / np.float32(np.sqrt(len(parts))))


@dataclass(frozen=True)
class Finding:
    """What one audit found.

    `value` stands under the audit's own key in the JSON of `audit --json`, `details` beside it.
    `lines` are rows of the table for people; `files` are written below work/audit/.
    """

    value: Any
    lines: Sequence[Mapping[str, str]]
    warnings: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def line(subject: str, result: str, about: str) -> dict[str, str]:
    """Make a row of the table for people."""
    return {"looked for": subject, "found": result, "about": about}


def audit_data(
    dataset: Dataset, *, apply: bool = False, notify: Notify = lambda _: None
) -> AuditData:
    """Gather the rows of a task with what was observed of them, and the caches that stand.

    Raises:
        InputError: no image was decoded, no backbone has a cache, or embedding is not finished.
        InputError: a cache is damaged.
    """
    task = dataset.task
    names = list(dict.fromkeys(task.embed.backbones))
    absent = [name for name in names if dataset.snapshot.cache(task.asks(name)) is None]
    if len(absent) < len(names):
        for name in absent:
            notify(f"{name}: left out, it has no cache yet")
        names = [name for name in names if name not in absent]
    entries = [*dataset.labelled.entries, *dataset.unlabelled.entries]
    sources = {name: find_reader(dataset, name).record.digest for name in names}
    if not any(entry.usable for entry in entries):
        raise InputError(
            f"no image of {task.file} was decoded: run `archiveprobe embed {task.shell_path}`"
        )
    return AuditData(
        dataset,
        sources,
        np.concatenate([dataset.labelled.ids, dataset.unlabelled.ids]),
        np.concatenate([dataset.labels, np.full(len(dataset.unlabelled), -1, np.int64)]),
        entries,
        apply,
    )


def csv_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Write a table as CSV; ids that are no valid text keep their bytes."""
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    return out.getvalue().encode("utf-8", "surrogateescape")
