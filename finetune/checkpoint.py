"""States on disk: what a training run goes on from.

A run keeps one file, that of the last state, named after its epoch and its own SHA-256.

`torch.save` has no checksum that `torch.load` looks at, so the digest is compared before anything
is parsed, and `weights_only=True` lets no code run. The new file is whole before the old one is
removed, so whenever a run is killed there is a state to go on from.
"""

import contextlib
import hashlib
import io
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import memory_for
from archiveprobe.base.wording import one_line
from archiveprobe.cache.spec import differences

_FILE = re.compile(r"epoch-(\d{6})-([0-9a-f]{64})\.pt")


@dataclass(frozen=True)
class Checkpoints:
    """The states of one run in a folder of its own, which only one process writes.

    `settings` (JSON) are what the numbers depend on: recipe, rows, weights, device. A run with
    other ones is not gone on with.
    """

    folder: Path
    settings: Mapping[str, Any]

    def save(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Keep the state after `epoch` finished epochs: tensors, numbers, text, and tables of them.

        Raises:
            InputError: the disk refuses; the state before is whole.
        """
        import torch

        buffer = io.BytesIO()
        torch.save({**state, "settings": json.dumps(self.settings)}, buffer)
        content = buffer.getvalue()
        name = f"epoch-{epoch:06}-{hashlib.sha256(content).hexdigest()}.pt"
        try:
            files.make_folder(self.folder)
            files.drop_temporaries(self.folder)
            files.write_whole(self.folder / name, content)
            self._remove_all_but(name)
        except OSError as error:
            raise InputError(
                f"cannot keep the state after epoch {epoch} in {self.folder}: "
                f"{error.strerror or type(error).__name__}; the state before it is whole: free "
                "some space or repair the disk, and run the same command again"
            ) from error

    def check(self) -> None:
        """Check that the last state, if there is one, is of these settings; it may have more.

        Raises:
            InputError: a setting is another one (the message names it), or the state is damaged.
        """
        _, settings = self._read() or ({}, self.settings)
        self._compare({name: settings.get(name) for name in self.settings})

    def load(self) -> dict[str, Any] | None:
        """Read the last state, or None where there is none.

        Raises:
            InputError: the settings have changed (the message names which), or it is damaged.
        """
        kept = self._read()
        if kept is None:
            return None
        state, settings = kept
        self._compare(settings)
        # A run that was killed after it wrote the state had no time for it.
        with contextlib.suppress(OSError):
            self._remove_all_but(max(self._files()).name)
            files.drop_temporaries(self.folder)
        return state

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return the last state, and its settings."""
        import torch

        file = max(self._files(), default=None)
        if file is None:
            return None
        try:
            with memory_for(f"reading {file}", "free some and run the same command again"):
                content = file.read_bytes()
                if hashlib.sha256(content).hexdigest() not in file.name:
                    raise ValueError("its digest is another one")
                state = dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
                return state, dict(json.loads(state.pop("settings")))
        except InputError:
            raise
        except Exception as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            raise InputError(
                f"{file} is damaged ({reason}): delete {self.folder} and train again from the start"
            ) from None

    def _compare(self, settings: Mapping[str, Any]) -> None:
        changed = differences(settings, self.settings)
        if changed:
            fields = ", ".join(f"{key} was {a!r:.60} and is now {b!r:.60}" for key, a, b in changed)
            raise InputError(
                f"cannot go on with the run in {self.folder}: {fields}: set it back, or delete "
                "that folder to train from the start"
            )

    def clear(self) -> None:
        """Remove all states: the run is over. Raises OSError."""
        if self.folder.is_dir():
            self._remove_all_but("")
            files.drop_temporaries(self.folder)
            files.remove_folder(self.folder)

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if _FILE.fullmatch(path.name)]

    def _remove_all_but(self, name: str) -> None:
        for path in sorted(self._files()):
            if path.name != name:
                files.remove(path)


def random_states(device: str = "cpu") -> dict[str, Any]:
    """Return the states of the global generators of Python, numpy, torch and the device in use."""
    import torch

    name, key, *rest = np.random.get_state()  # noqa: NPY002
    states = {
        "python": random.getstate(),
        "numpy": (name, np.asarray(key).tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    if device != "cpu":
        states["device"] = _module(device).get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, Any], device: str = "cpu") -> None:
    """Put the global generators where `random_states` found them.

    Checkpoints of earlier versions have a list: all GPUs of the machine they were written on.
    """
    import torch

    random.setstate(states["python"])
    name, key, *rest = states["numpy"]
    np.random.set_state((name, np.array(key, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    kind, _, number = device.partition(":")
    of_machine = states.get(kind) or []
    state = states.get("device")
    if state is None and of_machine:
        state = of_machine[min(int(number or 0), len(of_machine) - 1)]
    if state is not None and device != "cpu":
        _module(device).set_rng_state(state, device)


def _module(device: str) -> Any:
    """Return torch's module of that kind of device, whose generators it asks no other GPU for."""
    import torch

    return getattr(torch, device.partition(":")[0])
