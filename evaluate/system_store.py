"""Systems on disk: work/runs/<system>/, proved by digests before anything in it is parsed.

    run.json                       sealed: the record, and bytes and SHA-256 of the other files
    predictions-<digest16>.npz     files that never change: their names are their digests
    model-<digest16>.safetensors

A system is replaced in one step, which comes last: its run.json. Before it the old system is there
in whole, after it the new one, whenever the writer is killed or the power goes. Files that no
run.json names any more are removed at the end of every save.
"""

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import discard, make_folder, write_whole
from archiveprobe.base.lock import wait_for_lock
from archiveprobe.base.reading import read_ordinary
from archiveprobe.base.sealed import read_sealed, write_sealed
from archiveprobe.base.wording import one_line
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_names import RECORD, SYSTEM_NAME, no_system, runs_folder
from archiveprobe.task.config import Task

PREDICTIONS, MODEL = "predictions.npz", "model.safetensors"
_AGAIN = "run that system again"
_TRIES = 20
_KINDS = ("probe", "finetune", "ensemble")
# Every name that a writer of this version or of an earlier one gives to a file of a system.
_OWN = re.compile(r"(predictions|model)(-[0-9a-f]{16})?\.(npz|safetensors)|digests\.json|\.tmp-.*")


class _File(BaseModel):
    """What a system's run.json says of one of its other files."""

    model_config = ConfigDict(extra="forbid", strict=True)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    def path(self, folder: Path, name: str) -> Path:
        """Return where it lies."""
        stem, dot, ending = name.partition(".")
        return folder / f"{stem}-{self.sha256[:16]}{dot}{ending}"


class _RunFile(BaseModel):
    """The content of run.json."""

    model_config = ConfigDict(strict=True)
    record: dict[str, Any]
    files: dict[str, _File]

    def paths(self, folder: Path) -> dict[str, Path]:
        """Return where the other files lie. Raises ValueError: they are not those of a system."""
        if self.files.keys() not in ({PREDICTIONS}, {PREDICTIONS, MODEL}):
            raise ValueError("its list of files is not that of a system")
        return {name: file.path(folder, name) for name, file in self.files.items()}


@dataclass(frozen=True)
class Run:
    """A system as it lies on disk: its record, and its other files, all checked.

    `files` are their bytes, `paths` where they lie; both by PREDICTIONS and MODEL.
    """

    folder: Path
    record: Mapping[str, Any]
    files: Mapping[str, bytes]
    paths: Mapping[str, Path]

    @property
    def system(self) -> str:
        """Return the name of the system."""
        return self.folder.name

    def predictions(self) -> Predictions:
        """Read its predictions.

        Raises:
            InputError: they are damaged.
        """
        return Predictions.from_bytes(self.files[PREDICTIONS], str(self.paths[PREDICTIONS]))

    def arrays(self) -> dict[str, np.ndarray]:
        """Read the arrays of its fitted model.

        Raises:
            InputError: the system has none, or they are damaged.
        """
        from safetensors.numpy import load

        if MODEL not in self.files:
            raise InputError(f"{self.folder} holds no fitted model: name one of its members")
        try:
            arrays: dict[str, np.ndarray] = load(self.files[MODEL])
        except Exception as error:
            raise InputError(
                f"{self.paths[MODEL]} is no model ({_short(error)}): {_AGAIN}"
            ) from None
        return arrays


def save_run(
    task: Task,
    system: str,
    record: Mapping[str, Any],
    predictions: Predictions,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a system in one step, replacing one of the same name; durable on return. Its folder.

    Raises:
        InputError: the name is no plain folder name, or that of a system of another kind, or the
            disk refuses.
    """
    check_name(task, system, record.get("kind"))
    contents = {PREDICTIONS: predictions.to_bytes()}
    if arrays is not None:
        contents[MODEL] = _model_bytes(arrays)
    files = {
        name: _File(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    }
    folder = runs_folder(task) / system
    try:
        make_folder(folder.parent)
        with wait_for_lock(folder.parent):
            try:
                for name, content in contents.items():
                    # Also where a file of that name is there: it may be what was found damaged.
                    write_whole(files[name].path(folder, name), content)
                listed = {name: file.model_dump() for name, file in files.items()}
                write_sealed(folder / RECORD, {"record": record, "files": listed})
            finally:
                _remove_unnamed(folder)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror or error}: make space or correct permissions"
        ) from None
    return folder


def _remove_unnamed(folder: Path) -> None:
    """Remove the files of a system that its run.json on disk does not name."""
    # Where run.json is damaged or cannot be read nothing is known, and everything stays.
    with suppress(InputError, OSError, ValueError):
        sealed = read_sealed(folder / RECORD)
        named = {} if sealed is None else _RunFile(**sealed).paths(folder)
        for file in folder.glob("*"):
            if _OWN.fullmatch(file.name) and file not in named.values():
                discard(file)
        if sealed is None:
            folder.rmdir()


def check_name(task: Task, system: str, kind: Any) -> None:
    """Check that a system of a kind may have that name.

    Raises:
        InputError: it is no plain folder name, or a system of another kind has it.
    """
    if not SYSTEM_NAME.fullmatch(system):
        raise InputError(
            f"{system!r} cannot name a system: use letters, digits and ._+=,@- (at most 200)"
        )
    # What is absent or damaged may be written.
    before = (stored_record(task, system) or {}).get("kind")
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


def load_run(task: Task, system: str) -> Run:
    """Read a system's files after checking all of them against their digests.

    Raises:
        InputError: no such system (the nearest is named), a file that is missing or changed.
    """
    folder = runs_folder(task) / system
    for attempt in range(_TRIES if SYSTEM_NAME.fullmatch(system) else 0):
        sealed = read_sealed(folder / RECORD, remedy=_AGAIN)
        if sealed is None:
            break
        try:
            return _read(folder, sealed)
        except (OSError, ValueError, TypeError) as error:
            # A file is also missing where a writer has replaced the system since its run.json was
            # read: then that is another one now.
            if not isinstance(error, FileNotFoundError) or attempt == _TRIES - 1:
                raise InputError(f"{folder} is damaged ({_short(error)}): {_AGAIN}") from None
    raise no_system(task, system)


def stored_record(task: Task, system: str) -> Mapping[str, Any] | None:
    """Read the record of a system alone, also where its other files are damaged; None if absent."""
    if not SYSTEM_NAME.fullmatch(system):
        return None
    try:
        sealed = read_sealed(runs_folder(task) / system / RECORD)
        return None if sealed is None else _RunFile(**sealed).record
    except (InputError, OSError, ValueError, TypeError):
        return None


def _read(folder: Path, sealed: dict[str, Any]) -> Run:
    """Read the files that run.json names. Raises OSError, ValueError, TypeError."""
    run_file = _RunFile(**sealed)
    paths, contents = run_file.paths(folder), {}
    for name, file in run_file.files.items():
        contents[name] = read_ordinary(paths[name], file.bytes)
        if hashlib.sha256(contents[name]).hexdigest() != file.sha256:
            raise ValueError(f"{paths[name].name} has changed since it was written")
    return Run(folder, run_file.record, contents, paths)


def _short(error: Exception) -> str:
    """Say in few words, on one line, what went wrong."""
    if isinstance(error, OSError) and error.filename:
        return f"{Path(error.filename).name}: {error.strerror}"
    return one_line(error)
