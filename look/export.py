"""One row for every row of the table, in one file: for Embedding Atlas, FiftyOne, DuckDB, pandas.

Parquet holds everything, with the snapshot in its metadata: `parquet_kv_metadata` of DuckDB and
`pyarrow.parquet.read_schema` show it. Other forms of table have no embeddings.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.api.state import Pinned, pin
from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import number_of
from archiveprobe.embed.view_sets import place_of_view
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.evaluate.ensemble import rank_stored
from archiveprobe.evaluate.majority import majority_decision
from archiveprobe.evaluate.system_status import check_up_to_date
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.look.embeddings.maps import pca_map
from archiveprobe.look.embeddings.matrix import read_embeddings
from archiveprobe.predict.columns import probability_columns
from archiveprobe.predict.file_forms import library
from archiveprobe.predict.images import answer_images
from archiveprobe.predict.tables import Target, answer_target, write_answers
from archiveprobe.probe.run import data_warnings
from archiveprobe.task.config import Task
from archiveprobe.task.find_images import printable
from archiveprobe.task.output import writing
from archiveprobe.task.own_answers import remember_answers

OUT_OF_FOLD, PREDICTED, NO_ANSWER = "out-of-fold", "predicted", ""
_PARQUET = ".parquet"
_ROWS_AT_ONCE = 8_192


@dataclass(frozen=True)
class Column:
    """A column of the file: its name, its type as pyarrow calls it, and its values (n,).

    None and NaN are missing values.
    """

    name: str
    type: str
    values: Sequence[Any] | np.ndarray

    def cells(self) -> list[str]:
        """Return the values as text from which the same numbers are read, "" where missing."""
        if self.type not in ("float32", "float64"):
            return ["" if value is None else str(value) for value in self.values]
        numbers = np.asarray(self.values, np.float64).tolist()
        return ["" if number != number else repr(number) for number in numbers]


@dataclass(frozen=True)
class ExportedRows:
    """Says what was written: rows, the system and the backbone of its columns, None without."""

    file: Path
    rows: int
    columns: list[str]
    system: str | None
    backbone: str
    view: str
    snapshot: str
    sources: dict[str, int]
    seconds: float
    notes: list[str]

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        record = asdict(self)
        del record["notes"]
        return {**record, "file": str(self.file), "seconds": round(self.seconds, 3)}

    def summary(self) -> str:
        """Return what was written, in a sentence."""
        by = "without answers" if self.system is None else f"with answers of {self.system}"
        return f"{number_of(self.rows, 'row')} {by} and the map of {self.backbone} in {self.file}"

    def lines(self) -> list[dict[str, Any]]:
        """Return where the answers come from, for people."""
        return [{"answers": name or "none", "rows": n} for name, n in self.sources.items()]


def export_rows(
    task: Task,
    file: Path,
    *,
    system: str | None = None,
    backbone: str | None = None,
    view: str = "mean",
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> ExportedRows:
    """Write one row for every row of the table, in its order.

    Without `system` the answers are those of the recommended one, without `backbone` the
    embeddings those of the task's first; `view` is "mean" or the name of a view.

    Raises:
        InputError: nothing is embedded yet, rows wait for `embed`, no such system, backbone or
            view, or the file must not or cannot be written.
    """
    started = time.monotonic()
    target = answer_target(task, file, spreadsheet_safe=False)
    if target.form.ending == _PARQUET:
        library("pyarrow.parquet")
    with progress("exporting", 3) as advance:
        pinned = pin(task, notify=notify)
        chosen = _answering(pinned, system, notify)
        answers = [] if chosen is None else _answers(pinned, chosen)
        advance()
        name = backbone or task.embed.backbones[0]
        embedding = _embeddings(pinned, name, view, notify)
        advance()
        columns = [*_about_rows(pinned, answers), *_map(pinned, embedding)]
        about = {"snapshot": pinned.digest, "system": chosen, "backbone": name, "view": view}
        notes = _write(target, columns, embedding, {"task": task.name, **about})
        advance()
    sources = next((each.values for each in answers if each.name == "source"), ())
    return ExportedRows(
        file=target.named,
        rows=len(pinned.rows),
        columns=[column.name for column in columns] + ["embedding"] * (not notes),
        system=chosen,
        backbone=name,
        view=view,
        snapshot=pinned.digest,
        sources=dict(Counter(sources).most_common()),
        seconds=time.monotonic() - started,
        notes=[*notes, *target.notes()],
    )


def _answering(pinned: Pinned, system: str | None, notify: Notify) -> str | None:
    """Return the system whose answers are written, and say which where it was not named."""
    if pinned.dataset is None:
        if system is not None:
            raise InputError(pinned.fault)
        notify(f"no columns of answers: {pinned.fault}")
        return None
    if system is not None:
        return system
    try:
        board = rank_stored(pinned.dataset, data_warnings)
    except InputError as error:
        notify(f"no columns of answers: {error}")
        return None
    if board.best is None:
        notify(
            f"no columns of answers, as no system is recommended ({board.reason}): name one with "
            "--system"
        )
        return None
    notify(f"the answers are those of {board.best}, which is recommended; --system names another")
    return board.best


def _answers(pinned: Pinned, name: str) -> list[Column]:
    """Return answers: out of fold for labelled rows, by the final model for the others."""
    dataset = pinned.dataset
    assert dataset is not None
    run = load_run(pinned.task, name)
    check_up_to_date(run, dataset)
    stored, count, k = run.predictions(), len(pinned.rows), len(dataset.classes)
    labelled, others = _places(pinned)
    proba = np.full((count, k), np.nan)
    answer: list[str | None] = [None] * count
    source = [NO_ANSWER] * count
    proba[labelled] = stored.oof.mean(0)
    for at, decision in zip(labelled, majority_decision(stored), strict=True):
        answer[at], source[at] = dataset.classes[decision], OUT_OF_FOLD
    if len(others):
        predicted = answer_images(dataset, name)
        proba[others] = predicted.proba
        for at, label in zip(others, predicted.labels, strict=True):
            # An image that nobody saw has no answer: it would be counted as one.
            answer[at], source[at] = label, NO_ANSWER if label is None else PREDICTED
    names = probability_columns(dataset.classes)
    return [
        Column("answer", "string", answer),
        *(Column(column, "float64", proba[:, at]) for at, column in enumerate(names)),
        Column("source", "string", source),
    ]


def _places(pinned: Pinned) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the labelled rows and of the others, in the order of the table."""
    known = np.array([row.label is not None for row in pinned.rows], bool)
    return np.flatnonzero(known), np.flatnonzero(~known)


def _about_rows(pinned: Pinned, answers: Sequence[Column]) -> list[Column]:
    rows, entries = pinned.rows, pinned.entries
    fold, group = _folds_and_groups(pinned)
    return [
        Column("id", "string", [row.id for row in rows]),
        Column("path", "string", [printable(row.path) for row in rows]),
        Column("label", "string", [row.label for row in rows]),
        *answers,
        Column("fold", "int32", fold),
        Column("group", "int64", group),
        Column("split", "string", [row.split for row in rows]),
        Column("status", "string", [entry.status for entry in entries]),
    ]


def _folds_and_groups(pinned: Pinned) -> tuple[list[int | None], list[int | None]]:
    """Return fold (of the first repeat) and near-duplicate group, which only labelled rows have."""
    fold: list[int | None] = [None] * len(pinned.rows)
    group, dataset = list(fold), pinned.dataset
    if dataset is not None:
        places = _places(pinned)[0].tolist()
        pairs = zip(places, dataset.fold[0].tolist(), dataset.groups.tolist(), strict=True)
        for at, of_row, number in pairs:
            fold[at], group[at] = of_row, number
    return fold, group


def _embeddings(pinned: Pinned, name: str, view: str, notify: Notify) -> np.ndarray:
    """Read the embeddings (n, d) of one view or of their mean, NaN where there is none."""
    rows = pinned.keyed
    reader = open_in_use(pinned.task, pinned.snapshot, name, keys=rows.keys)
    if reader.fingerprint.get("random_weights"):
        notify(f"{name}: RANDOM WEIGHTS, for trials only")
    place = None
    if view != "mean":
        place = place_of_view(view, reader.fingerprint.get("views", ()), name)
    return read_embeddings(pinned.task, rows, name, reader, place)


def _map(pinned: Pinned, embedding: np.ndarray) -> list[Column]:
    """Return the coordinates of every image and where its thumbnail lies, below the task."""
    task, places = pinned.task, pca_map(embedding)
    folder = task.work / "thumbs"
    below = folder.relative_to(task.folder).as_posix()
    # Listed once: to ask for each of a million takes longer.
    there = {file.stem for file in folder.glob("??/*.jpg")}
    thumbnails = [
        f"{below}/{entry.digest[:2]}/{entry.digest}.jpg" if entry.digest in there else None
        for entry in pinned.entries
    ]
    return [
        Column("x", "float32", places[:, 0]),
        Column("y", "float32", places[:, 1]),
        Column("thumbnail", "string", thumbnails),
    ]


def _write(
    target: Target, columns: Sequence[Column], embedding: np.ndarray, about: dict[str, str | None]
) -> list[str]:
    """Write the columns in the form that the file's ending names; what to say of it."""
    if target.form.ending == _PARQUET:
        _write_parquet(target.file, columns, embedding, about)
        remember_answers(target.work, target.file)
        return []
    numbers = frozenset(column.name for column in columns if column.type.startswith("float"))
    rows = [list(cells) for cells in zip(*(column.cells() for column in columns), strict=True)]
    write_answers(replace(target, numbers=numbers), [column.name for column in columns], rows)
    return [f"no embeddings and no snapshot in {target.form.ending}: -o FILE.parquet has both"]


def _write_parquet(
    file: Path, columns: Sequence[Column], embedding: np.ndarray, about: dict[str, str | None]
) -> None:
    """Write a Parquet file in row groups; `about` goes into its metadata, as text."""
    pa, parquet = library("pyarrow"), library("pyarrow.parquet")
    width = embedding.shape[1]
    fields = [pa.field(column.name, pa.type_for_alias(column.type)) for column in columns]
    fields.append(pa.field("embedding", pa.list_(pa.float32(), width)))
    said = {name: value for name, value in about.items() if value is not None}
    schema = pa.schema(fields, metadata={**said, "archiveprobe": version("archiveprobe")})
    texts = [column.name for column in columns if column.type == "string"]

    def part(start: int) -> Any:
        stop = start + _ROWS_AT_ONCE
        arrays = [
            pa.array(column.values[start:stop], field.type, from_pandas=True)
            for column, field in zip(columns, fields, strict=False)
        ]
        rows = embedding[start:stop]
        missing = pa.array(~np.isfinite(rows).all(1))
        values = pa.array(rows.ravel())
        arrays.append(pa.FixedSizeListArray.from_arrays(values, width, mask=missing))
        return pa.table(arrays, schema=schema)

    with writing(file):
        files.make_folder(file.parent)
        with (
            files.replacing(file) as temporary,
            parquet.ParquetWriter(
                temporary, schema, compression="zstd", use_dictionary=texts
            ) as writer,
        ):
            for start in range(0, len(embedding), _ROWS_AT_ONCE):
                writer.write_table(part(start))
