"""Systems on disk: work/runs/<system>/, written whole, and checked by digest before it is read."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluate.predictions import Predictions
from task.config import Task, nearest
from task.errors import InputError

RECORD, PREDICTIONS, MODEL, DIGESTS = (
    "run.json",
    "predictions.npz",
    "model.safetensors",
    "digests.json",
)
_KINDS = ("probe", "finetune", "ensemble")
# What a writer that is killed leaves begins with one of these.
_NEW, _OLD = ".tmp-", ".old-"
_FILES = {RECORD, PREDICTIONS, MODEL}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,@-]{0,199}")


@dataclass(frozen=True)
class Run:
    """A system as it lies on disk: its record, and the bytes of its other files, all checked."""

    folder: Path
    record: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def system(self) -> str:
        """The name of the system."""
        return self.folder.name

    def predictions(self) -> Predictions:
        """Its predictions.

        Raises:
            InputError: they are damaged.
        """
        return Predictions.from_bytes(self.files[PREDICTIONS], str(self.folder / PREDICTIONS))

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of its fitted model.

        Raises:
            InputError: the system has none, or they are damaged.
        """
        from safetensors.numpy import load

        if MODEL not in self.files:
            raise InputError(f"{self.folder} holds no fitted model: name one of its members")
        try:
            arrays: dict[str, np.ndarray] = load(self.files[MODEL])
        except Exception as error:
            reason = " ".join(str(error).split())[:120]
            raise InputError(
                f"{self.folder / MODEL} is no model ({reason}): run that system again"
            ) from None
        return arrays


def runs_folder(task: Task) -> Path:
    """Where the systems of a task lie."""
    return task.work / "runs"


def save_run(
    task: Task,
    system: str,
    record: Mapping[str, Any],
    predictions: Predictions,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a system in one step, replacing one of the same name; its folder.

    Raises:
        InputError: the name is no plain folder name, or that of a system of another kind, or the
            disk refuses.
    """
    check_name(task, system, record.get("kind"))
    files = {
        RECORD: f"{json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode(),
        PREDICTIONS: predictions.to_bytes(),
    }
    if arrays is not None:
        files[MODEL] = _model_bytes(arrays)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[DIGESTS] = f"{json.dumps(digests, indent=2)}\n".encode()
    folder = runs_folder(task) / system
    try:
        _replace_folder(folder, files)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror or error}: make space or correct permissions"
        ) from None
    return folder


def check_name(task: Task, system: str, kind: Any) -> None:
    """Whether a system of a kind may have that name.

    Raises:
        InputError: it is no plain folder name, or a system of another kind has it.
    """
    if not _NAME.fullmatch(system):
        raise InputError(
            f"{system!r} cannot name a system: use letters, digits and ._+=,@- (at most 200)"
        )
    try:
        before = load_run(task, system).record.get("kind")
    except InputError:
        return
    if before in _KINDS and kind in _KINDS and before != kind:
        folder = runs_folder(task) / system
        raise InputError(
            f"{folder} is a system of the kind {before!r}, and one of the kind {kind!r} is not "
            "written over it: give this one another name, or move that folder away"
        )


def _model_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    from safetensors.numpy import load, save

    # safetensors scrambles arrays in Fortran order without a word, so what was saved is compared.
    plain = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    content: bytes = save(plain)
    back = load(content)
    if any(not np.array_equal(back[name], value, equal_nan=True) for name, value in plain.items()):
        raise RuntimeError("safetensors changed the arrays of a model")
    return content


def _replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _one_writer(folder.parent):
        _tidy(folder.parent)
        new = folder.parent / f"{_NEW}{secrets.token_hex(4)}"
        old = folder.parent / f"{_OLD}{folder.name}"
        try:
            new.mkdir()
            for name, content in files.items():
                (new / name).write_bytes(content)
            if folder.exists():
                folder.rename(old)
            try:
                new.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _one_writer(root: Path) -> Iterator[None]:
    """Systems are written one after the other; a killed writer holds up nobody."""
    descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _tidy(root: Path) -> None:
    """Remove what killed writers left; an old system whose successor was not there yet is back."""
    for left in sorted(root.glob(f"{_NEW}*")):
        shutil.rmtree(left, ignore_errors=True)
    for left in sorted(root.glob(f"{_OLD}*")):
        name = left.name.removeprefix(_OLD)
        if (root / name).exists():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.rename(root / name)


def load_run(task: Task, system: str) -> Run:
    """Read a system's files after checking all of them against their digests.

    Raises:
        InputError: no such system (the nearest is named), a file that is missing or changed.
    """
    folder = runs_folder(task) / system
    if not _NAME.fullmatch(system) or not (folder / DIGESTS).is_file():
        known = systems(task)
        raise InputError(
            f"no system {system!r} in {runs_folder(task)}{nearest(system, known)}: "
            f"`archiveprobe list systems {task.file}` shows them"
        )
    try:
        digests = dict(json.loads((folder / DIGESTS).read_bytes()))
        if {RECORD, PREDICTIONS} - digests.keys() or digests.keys() - _FILES:
            raise ValueError("its list of files is not that of a system")
        files = {name: (folder / name).read_bytes() for name in digests}
        for name, content in files.items():
            if hashlib.sha256(content).hexdigest() != digests[name]:
                raise ValueError(f"{name} has changed since it was written")
        record = dict(json.loads(files[RECORD]))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = _reason(error)
        raise InputError(f"{folder} is damaged ({reason}): run that system again") from None
    return Run(folder, record, files)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{Path(error.filename).name}: {error.strerror}"
    return " ".join(str(error).split())[:120]


def systems(task: Task) -> list[str]:
    """The names of the systems of a task, sorted."""
    root = runs_folder(task)
    if not root.is_dir():
        return []
    # What a killed writer has left begins with a dot.
    named = [folder for folder in root.iterdir() if _NAME.fullmatch(folder.name)]
    return sorted(folder.name for folder in named if (folder / DIGESTS).is_file())
