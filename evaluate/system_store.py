"""Systems on disk: work/runs/<system>/, proved by digests before anything in it is parsed.

    run.json                       sealed: the record, and bytes and SHA-256 of the other files
    predictions-<digest16>.npz     files that never change: their names are their digests
    model-<digest16>.safetensors

A system is replaced in one step, which comes last: its run.json. Before it the old system is there
in whole, after it the new one, whenever the writer is killed or the power goes; the old files are
removed when nothing names them any more.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import discard, make_folder, write_whole
from archiveprobe.base.lock import wait_for_lock
from archiveprobe.base.reading import read_ordinary
from archiveprobe.base.sealed import read_sealed, write_sealed
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.task.config import Task, nearest

RECORD, PREDICTIONS, MODEL = "run.json", "predictions.npz", "model.safetensors"
_AGAIN = "run that system again"
_TRIES = 20
_KINDS = ("probe", "finetune", "ensemble")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,@-]{0,199}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# What reading a record that is none of this version's leads to.
_FOREIGN = (OSError, ValueError, TypeError, KeyError, RecursionError)
# Every name that a writer of this version or of an earlier one gives to a file of a system.
_OWN = re.compile(r"(predictions|model)(-[0-9a-f]{16})?\.(npz|safetensors)|digests\.json|\.tmp-.*")


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
            reason = " ".join(str(error).split())[:120]
            raise InputError(f"{self.paths[MODEL]} is no model ({reason}): {_AGAIN}") from None
        return arrays


def runs_folder(task: Task) -> Path:
    """Return where the systems of a task lie."""
    return task.work / "runs"


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
    files = {PREDICTIONS: predictions.to_bytes()}
    if arrays is not None:
        files[MODEL] = _model_bytes(arrays)
    stored = {
        name: _Stored(len(entry), hashlib.sha256(entry).hexdigest())
        for name, entry in files.items()
    }
    content = {"record": record, "files": {name: entry._asdict() for name, entry in stored.items()}}
    folder = runs_folder(task) / system
    contents = {entry.path(folder, name): files[name] for name, entry in stored.items()}
    try:
        make_folder(folder.parent)
        with wait_for_lock(folder.parent):
            _replace(folder, content, contents)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror or error}: make space or correct permissions"
        ) from None
    return folder


def check_name(task: Task, system: str, kind: Any) -> None:
    """Check that a system of a kind may have that name.

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


class _Stored(NamedTuple):
    """What a system's run.json says of one of its other files."""

    bytes: int
    sha256: str

    def path(self, folder: Path, name: str) -> Path:
        """Return where it lies."""
        stem, dot, ending = name.partition(".")
        return folder / f"{stem}-{self.sha256[:16]}{dot}{ending}"


def _replace(folder: Path, record: Mapping[str, Any], files: Mapping[Path, bytes]) -> None:
    before = set(_own_files(folder))
    try:
        make_folder(folder)
        for file, content in files.items():
            # Also where a file of that name is there: it may be what was found damaged.
            write_whole(file, content)
        write_sealed(folder / RECORD, record)
    except BaseException:
        _give_up(folder, before)
        raise
    _remove_others(folder, files)


def _give_up(folder: Path, before: Collection[Path]) -> None:
    """Remove what a failed writer has added, unless its last step was taken all the same."""
    with suppress(InputError, *_FOREIGN):
        sealed = read_sealed(folder / RECORD)
        named = {} if sealed is None else _paths(folder, _parse(sealed)[1])
        _remove_others(folder, {*before, *named.values()})
        folder.rmdir()


def _own_files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.glob("*") if _OWN.fullmatch(file.name))


def _remove_others(folder: Path, keep: Collection[Path]) -> None:
    for file in set(_own_files(folder)) - set(keep):
        discard(file)


def load_run(task: Task, system: str) -> Run:
    """Read a system's files after checking all of them against their digests.

    Raises:
        InputError: no such system (the nearest is named), a file that is missing or changed.
    """
    folder = runs_folder(task) / system
    for attempt in range(_TRIES if _NAME.fullmatch(system) else 0):
        sealed = read_sealed(folder / RECORD, remedy=_AGAIN)
        if sealed is None:
            break
        try:
            return _read(folder, sealed)
        except _FOREIGN as error:
            # A writer may have replaced the system since its record was read.
            if not isinstance(error, FileNotFoundError) or attempt == _TRIES - 1:
                raise _damaged(folder, error) from None
    known = systems(task)
    raise InputError(
        f"no system {system!r} in {runs_folder(task)}{nearest(system, known)}: "
        f"`archiveprobe list systems {task.file}` shows them"
    )


def _read(folder: Path, sealed: Mapping[str, Any]) -> Run:
    """Raise what `_FOREIGN` names."""
    record, stored = _parse(sealed)
    paths = _paths(folder, stored)
    files = {name: read_ordinary(paths[name], entry.bytes) for name, entry in stored.items()}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != stored[name].sha256:
            raise ValueError(f"{paths[name].name} has changed since it was written")
    return Run(folder, record, files, paths)


def _parse(sealed: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, _Stored]]:
    """Raise what `_FOREIGN` names."""
    files = {name: _Stored(**entry) for name, entry in dict(sealed["files"]).items()}
    sound = all(
        type(entry.bytes) is int and _DIGEST.fullmatch(entry.sha256) for entry in files.values()
    )
    if not sound or files.keys() not in ({PREDICTIONS}, {PREDICTIONS, MODEL}):
        raise ValueError("its list of files is not that of a system")
    return dict(sealed["record"]), files


def _paths(folder: Path, stored: Mapping[str, _Stored]) -> dict[str, Path]:
    return {name: entry.path(folder, name) for name, entry in stored.items()}


def _damaged(folder: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120]
    if isinstance(error, OSError) and error.filename:
        reason = f"{Path(error.filename).name}: {error.strerror}"
    return InputError(f"{folder} is damaged ({reason}): {_AGAIN}")


def systems(task: Task) -> list[str]:
    """List the names of the systems of a task, sorted."""
    root = runs_folder(task)
    if not root.is_dir():
        return []
    named = [folder for folder in root.iterdir() if _NAME.fullmatch(folder.name)]
    return sorted(folder.name for folder in named if (folder / RECORD).is_file())
