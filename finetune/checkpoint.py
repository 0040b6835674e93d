"""The resumable state of a training run, left after every epoch: safetensors, and one JSON index.

A state is a tree of dicts, lists, tuples, plain values and tensors. Its tensors go into a file of
their own and the rest into `state.json`, whose replacement is the only moment at which the state
changes: whatever comes before leaves the old state whole, whatever comes after only tidies up.
"""

import contextlib
import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries

INDEX = "state.json"
_FILE = re.compile(r"(last|best)-\d+-[0-9a-f]{16}\.safetensors")
# What a file gives that has the right digest and is no state.
_FOREIGN = (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError)
_WHOLE = "the state of the epoch before is whole"


@dataclass(frozen=True)
class State:
    """What a run goes on from: finished epochs, and the tree that was saved after the last."""

    epoch: int
    tree: dict[str, Any]


@dataclass(frozen=True)
class Checkpoints:
    """The states of one run in a folder of its own, which only one process writes.

    `settings` (JSON) are what the numbers depend on: recipe, rows, weights, device. A run with
    other ones is not gone on with.
    """

    folder: Path
    settings: Mapping[str, Any]

    def save(self, epoch: int, tree: dict[str, Any], best: Mapping[str, Any] | None = None) -> None:
        """Keep the state after `epoch` finished epochs; `best` (names, tensors) if it is the best.

        Without `best` the best weights stay those of an earlier epoch.

        Raises:
            InputError: the disk refuses; the state before is whole.
        """
        try:
            files.make_folder(self.folder)
            files.drop_temporaries(self.folder)
            old = self._index() or {}
            tensors: dict[str, Any] = {}
            packed = _pack(tree, tensors, "")
            record = {"epoch": epoch, "settings": _plain(self.settings), "tree": packed}
            record["last"] = self._write(f"last-{epoch}", tensors)
            record["best"] = old.get("best")
            if best is not None:
                record["best"] = self._write(f"best-{epoch}", best)
            files.write_whole(self.folder / INDEX, _sealed(record))
            self._tidy(record)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError(
                f"cannot keep the state after epoch {epoch} in {self.folder}: {reason}; {_WHOLE}: "
                "free some space or mend the disk, and run the same command again"
            ) from error

    def load(self) -> State | None:
        """The last state, or None where there is none.

        Raises:
            InputError: the settings have changed (the message names which), or a file is damaged.
        """
        index = self._index()
        if index is None:
            return None
        self._check_settings(index["settings"])
        # A run that was killed after its last commit had no time for it.
        with contextlib.suppress(OSError):
            self._tidy(index)
            files.drop_temporaries(self.folder)
        tensors = self._read(index["last"])
        try:
            return State(int(index["epoch"]), _unpack(index["tree"], tensors))
        except _FOREIGN as error:
            raise self._foreign(error) from None

    def best(self) -> dict[str, Any] | None:
        """The weights of the best epoch, or None where none was kept.

        Raises:
            InputError: a file is damaged.
        """
        index = self._index()
        return None if index is None or index["best"] is None else self._read(index["best"])

    def clear(self) -> None:
        """Remove all states: the run is over, or starts anew. Raises OSError."""
        if self.folder.is_dir():
            files.remove(self.folder / INDEX)
            self._tidy({})
            files.drop_temporaries(self.folder)
            files.remove_folder(self.folder)

    def _write(self, name: str, tensors: Mapping[str, Any]) -> dict[str, str]:
        from safetensors.torch import save

        # Parameters may share memory or lie in another order, and safetensors takes neither.
        content = save({key: _own(tensor) for key, tensor in tensors.items()})
        digest = hashlib.sha256(content).hexdigest()
        # Named by content: an epoch done again never writes over what the index still names.
        name = f"{name}-{digest[:16]}.safetensors"
        files.write_whole(self.folder / name, content)
        return {"file": name, "sha256": digest}

    def _read(self, entry: Mapping[str, str]) -> dict[str, Any]:
        from safetensors.torch import load

        file = self.folder / entry["file"]
        try:
            content = file.read_bytes()
        except OSError as error:
            raise self._damaged(file, error.strerror or "cannot be read") from None
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise self._damaged(file, "its digest is another one")
        # safetensors gives them in another order every time.
        return dict(sorted(load(content).items()))

    def _index(self) -> dict[str, Any] | None:
        file = self.folder / INDEX
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._damaged(file, error.strerror or "cannot be read") from None
        digest, _, body = content.partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise self._damaged(file, "its digest is another one")
        try:
            index: dict[str, Any] = json.loads(body)
            dict(index["settings"])
            names = [index[key]["file"] for key in ("last", "best") if index[key] is not None]
        except _FOREIGN as error:
            raise self._foreign(error) from None
        strange = [name for name in names if not _FILE.fullmatch(name)]
        if strange:
            raise self._damaged(file, f"it names {strange[0]!r}")
        return index

    def _foreign(self, error: Exception) -> InputError:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        return self._damaged(self.folder / INDEX, reason)

    def _damaged(self, file: Path, reason: str) -> InputError:
        return InputError(
            f"{file} is damaged ({reason}): delete {self.folder} and train again from the start"
        )

    def _check_settings(self, then: Mapping[str, Any]) -> None:
        before, now = dict(_flat(then)), dict(_flat(_plain(self.settings)))
        changed = sorted(
            key
            for key in before.keys() | now.keys()
            if key not in before or key not in now or before[key] != now[key]
        )
        if changed:
            told = ", ".join(
                f"{key} was {_shown(before, key)} and is now {_shown(now, key)}" for key in changed
            )
            raise InputError(
                f"cannot go on with the run in {self.folder}: {told}: set it back, or delete that "
                "folder to train from the start"
            )

    def _tidy(self, index: Mapping[str, Any]) -> None:
        named = {entry["file"] for key in ("last", "best") if (entry := index.get(key))}
        for path in sorted(self.folder.iterdir()):
            if _FILE.fullmatch(path.name) and path.name not in named:
                files.remove(path)


def capture(network: Any, optimiser: Any, average: Any = None, **progress: Any) -> dict[str, Any]:
    """The tree of a run between two epochs: weights, average, optimiser, random states, progress.

    `progress` holds plain values: history, best score, epochs without a better one. Rates and
    orders follow from the epoch (finetune/schedule.py), so the epoch is all there is of them.
    """
    return {
        "weights": dict(network.state_dict()),
        "average": None if average is None else dict(average.state_dict()),
        "optimiser": optimiser.state_dict(),
        "random": random_states(),
        "progress": progress,
    }


def restore(state: State, network: Any, optimiser: Any, average: Any = None) -> dict[str, Any]:
    """Put a captured tree back, random states included, and give its progress."""
    network.load_state_dict(state.tree["weights"])
    optimiser.load_state_dict(state.tree["optimiser"])
    if average is not None:
        average.load_state_dict(state.tree["average"])
    set_random_states(state.tree["random"])
    progress: dict[str, Any] = state.tree["progress"]
    return progress


def random_states() -> dict[str, Any]:
    """The states of the global generators of Python, numpy and torch, all GPUs' too."""
    torch = libraries.torch()
    name, key, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (name, np.asarray(key).tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put the global generators where `random_states` found them."""
    torch = libraries.torch()
    random.setstate(states["python"])
    name, key, *rest = states["numpy"]
    np.random.set_state((name, np.array(key, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


def _own(tensor: Any) -> Any:
    return tensor.detach().cpu().contiguous().clone()


def _sealed(record: Mapping[str, Any]) -> bytes:
    body = json.dumps(record).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _plain(settings: Mapping[str, Any]) -> Any:
    """Settings as JSON gives them back, where a tuple is a list."""
    return json.loads(json.dumps(settings))


def _flat(settings: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from _flat(value, f"{above}.{key}" if above else key)
    else:
        yield above, settings


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key])[:60] if key in settings else "not set"


def _pack(value: Any, tensors: dict[str, Any], path: str) -> Any:
    """The tree as JSON, which knows neither tuples nor keys that are numbers nor tensors."""
    if isinstance(value, Mapping):
        items = [[key, _pack(inner, tensors, f"{path}/{key}")] for key, inner in value.items()]
        return {"dict": items}
    if isinstance(value, list | tuple):
        inner = [_pack(each, tensors, f"{path}/{at}") for at, each in enumerate(value)]
        return {"tuple": inner} if isinstance(value, tuple) else inner
    if isinstance(value, libraries.torch().Tensor):
        tensors[path] = value
        return {"tensor": path}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: a state cannot hold a {type(value).__name__}")


def _unpack(value: Any, tensors: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_unpack(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_unpack(each, tensors) for each in value["tuple"])
    return {key: _unpack(inner, tensors) for key, inner in value["dict"]}
