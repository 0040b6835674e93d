"""Learning curves of fine-tuned systems, from the sealed records of their parts."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.reading import SETTINGS_BYTES
from archiveprobe.base.sealed import read_sealed
from archiveprobe.evaluate.dataset import PARTS
from archiveprobe.finetune.train import Epoch
from archiveprobe.finetune.trained_parts import RECORD, PartRecord
from archiveprobe.task.config import Task


@dataclass(frozen=True)
class Curves:
    """The figures of every epoch of one training, and the epoch whose weights were kept.

    `part` is "fold-K", "full", "merged" or "split"; `fold` is K, None for the others.
    """

    system: str
    part: str
    fold: int | None
    kept: int
    epochs: tuple[Epoch, ...]

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`: one list per figure, null where it was not computed."""
        figures = [asdict(epoch) for epoch in self.epochs]
        lists = {name: [each[name] for each in figures] for name in ("loss", "macro_f1", "lr")}
        about = {"system": self.system, "part": self.part, "fold": self.fold, "kept": self.kept}
        return about | {"epoch": [epoch.epoch for epoch in self.epochs]} | lists


def learning_curves(
    task: Task,
    parts: Mapping[str, str] | None = None,
    *,
    notify: Notify = lambda _: None,
) -> list[Curves]:
    """Read the learning curves of all trainings that are finished, by system, folds in order.

    With `parts`, digests by name as a dataset has them, trainings on other rows, labels, images,
    folds or groups are left out. `notify` is told of those, and of records that are damaged.
    """
    found = []
    # A folder that is gone, or cannot be listed, has none.
    for file in sorted((task.work / "finetune").glob(f"*/*/{RECORD}"), key=_order):
        try:
            record = _read(file)
        except InputError as error:
            notify(f"left out: {error}")
            continue
        if parts is not None and not _is_about(record, parts):
            notify(f"left out: the learning curves in {file.parent}, trained on another snapshot")
            continue
        name = file.parent.name
        epochs = tuple(record.history)
        found.append(Curves(file.parents[1].name, name, _fold(name), record.epoch, epochs))
    return found


def _read(file: Path) -> PartRecord:
    """Read the record of a part. Raises InputError: it is damaged."""
    remedy = f"delete {file.parent} and train that part again"
    sealed = read_sealed(file, largest=SETTINGS_BYTES, remedy=remedy)
    try:
        return PartRecord.model_validate_json(json.dumps(sealed))
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InputError(f"{file} is damaged ({reason:.100}): {remedy}") from None


def _is_about(record: PartRecord, parts: Mapping[str, str]) -> bool:
    snapshot = record.settings.get("snapshot")
    then = snapshot if isinstance(snapshot, Mapping) else {}
    return bool(then) and all(then.get(name) == parts.get(name) for name in PARTS)


def _order(file: Path) -> tuple[str, bool, int, str]:
    name = file.parent.name
    fold = _fold(name)
    return file.parents[1].name, fold is None, fold or 0, name


def _fold(part: str) -> int | None:
    number = part.removeprefix("fold-")
    return int(number) if number != part and number.isdecimal() else None
