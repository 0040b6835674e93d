"""What can be ranked: the rows to predict of a task, or the answers that `predict` wrote."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import one_line
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.predict.answers.read import iterate_parts, open_record
from archiveprobe.predict.checks import check_images
from archiveprobe.predict.columns import probability_columns
from archiveprobe.predict.systems import load_system
from archiveprobe.task.config import Task
from archiveprobe.task.tables.table import read_table

if TYPE_CHECKING:
    import pyarrow

_AT_ONCE = 16_384


@dataclass(frozen=True)
class Candidates:
    """A block of n images: digests of their bytes ("" where there are none), and answers.

    `labels` are None and `proba` (n, K) is NaN where an image could not be read or nobody answered.
    """

    ids: Sequence[str]
    digests: Sequence[str]
    labels: Sequence[str | None]
    proba: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def keys(self) -> list[bytes | None]:
        """Return the keys of the images in a cache."""
        return [bytes.fromhex(digest) if digest else None for digest in self.digests]


def rows_to_predict(dataset: Dataset, system: str | None) -> Iterator[Candidates]:
    """Yield the rows to predict with the answers of a system, if one is named.

    Raises:
        InputError: there are none, the system is out of date, or images are missing.
    """
    task, rows = dataset.task, dataset.unlabelled
    if not len(rows):
        raise InputError(
            f"nothing to rank in {task.place}: every row has a label; name answers of an archive, "
            "which `predict --images` writes"
        )
    digests = ["" if key is None else key.hex() for key in rows.keys]
    labels: list[str | None] = [None] * len(rows)
    proba = np.full((len(rows), len(task.labels)), np.nan)
    if system is not None:
        check_images(dataset, rows)
        answers = load_system(dataset, system).answer(rows)
        proba, labels = answers.proba, answers.labels(task.labels)
    yield Candidates(rows.ids.tolist(), digests, labels, proba)


def answers_in(task: Task, places: Sequence[Path]) -> Iterator[Candidates]:
    """Yield the answers of folders and tables that `predict` wrote, block by block.

    Folders and Parquet are read piece by piece, other tables whole.

    Raises:
        InputError: one of them is missing, damaged, or holds no answers for the task's labels.
    """
    for place in places:
        if place.is_dir():
            proba = probability_columns(open_record(place).classes)
            _check_columns(task, place, ["id", "digest", "label", *proba])
            tables: Iterable[Any] = iterate_parts(place, _columns(task))
        elif place.suffix.lower() == ".parquet":
            tables = _parquet(task, place)
        else:
            yield from _table(task, place)
            continue
        for table in tables:
            yield from _blocks(task, place, table)


def _columns(task: Task) -> list[str]:
    return ["id", "digest", "label", *probability_columns(task.labels)]


def _check_columns(task: Task, place: Path, columns: Sequence[str]) -> None:
    missing = [name for name in _columns(task) if name not in columns]
    if missing:
        raise InputError(
            f"{place} holds no answers for {task.file}: it lacks the columns {', '.join(missing)}: "
            "name what `archiveprobe predict` wrote for this task"
        )


def _parquet(task: Task, file: Path) -> Iterator["pyarrow.Table"]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as stored:
            _check_columns(task, file, stored.schema_arrow.names)
            for batch in stored.iter_batches(_AT_ONCE, columns=_columns(task)):
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        reason = one_line(error)
        raise InputError(
            f"cannot read {file} ({reason}): name what `archiveprobe predict` wrote"
        ) from None


def _blocks(task: Task, place: Path, table: "pyarrow.Table") -> Iterator[Candidates]:
    import pyarrow as pa

    names = _columns(task)
    forms = pa.schema(
        [(name, pa.string() if at < 3 else pa.float64()) for at, name in enumerate(names)]
    )
    for start in range(0, table.num_rows, _AT_ONCE):
        try:
            part = table.slice(start, _AT_ONCE).select(names).cast(forms)
        except pa.ArrowException as error:
            raise InputError(
                f"{place} holds no answers ({one_line(error)}): name what `archiveprobe predict` "
                "wrote"
            ) from None
        ids, digests, labels = (part[name].to_pylist() for name in names[:3])
        proba = np.stack([part[name].to_numpy() for name in names[3:]], 1)
        yield _checked(ids, digests, labels, proba)


def _table(task: Task, file: Path) -> Iterator[Candidates]:
    if not file.is_file():
        raise InputError(f"no answers {file}: name what `archiveprobe predict` wrote")
    table = read_table(file)
    _check_columns(task, file, table.columns)
    for start in range(0, len(table.rows), _AT_ONCE):
        rows = table.rows[start : start + _AT_ONCE]
        ids, digests, labels, *numbers = ([row[name] for row in rows] for name in _columns(task))
        try:
            proba = np.array([[float(cell or "nan") for cell in column] for column in numbers]).T
        except ValueError as error:
            raise InputError(f"{file}: {error}: probabilities are numbers from 0 to 1") from None
        yield _checked(ids, digests, labels, proba)


def _checked(
    ids: Sequence[str | None],
    digests: Sequence[str | None],
    labels: Sequence[str | None],
    proba: np.ndarray,
) -> Candidates:
    """Make a block; what is no SHA-256, as in a table that was edited, is no digest."""
    known = [digest or "" for digest in digests]
    bad = next((each for each in known if each and not _is_digest(each)), None)
    if bad is not None:
        raise InputError(f"{bad[:80]!r} in the column digest is no SHA-256: predict again")
    return Candidates([id_ or "" for id_ in ids], known, [label or None for label in labels], proba)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(each in "0123456789abcdef" for each in text)
