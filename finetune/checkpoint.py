"""States on disk: what a training run goes on from.

A run keeps one file per epoch, named after its own SHA-256.

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
                f"{error.strerror or type(error).__name__}; the state of the epoch before is "
                "whole: free some space or repair the disk, and run the same command again"
            ) from error

    def load(self) -> dict[str, Any] | None:
        """Read the last state, or None where there is none.

        Raises:
            InputError: the settings have changed (the message names which), or it is damaged.
        """
        import torch

        file = max(self._files(), default=None)
        if file is None:
            return None
        try:
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() not in file.name:
                raise ValueError("its digest is another one")
            state = dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
            settings = json.loads(state.pop("settings"))
            changed = differences(settings, self.settings)
        except Exception as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
            raise InputError(
                f"{file} is damaged ({reason}): delete {self.folder} and train again from the start"
            ) from None
        if changed:
            fields = ", ".join(f"{key} was {a!r:.60} and is now {b!r:.60}" for key, a, b in changed)
            raise InputError(
                f"cannot go on with the run in {self.folder}: {fields}: set it back, or delete "
                "that folder to train from the start"
            )
        # A run that was killed after it wrote the state had no time for it.
        with contextlib.suppress(OSError):
            self._remove_all_but(file.name)
            files.drop_temporaries(self.folder)
        return state

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


def random_states() -> dict[str, Any]:
    """Return the states of the global generators of Python, numpy and torch, all GPUs' too."""
    import torch

    name, key, *rest = np.random.get_state()  # noqa: NPY002
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "python": random.getstate(),
        "numpy": (name, np.asarray(key).tolist(), *rest),
        "torch": torch.get_rng_state(),
        # Asking a GPU that is not in use would start it.
        "cuda": torch.cuda.get_rng_state_all() if started else [],
        "mps": [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put the global generators where `random_states` found them."""
    import torch

    random.setstate(states["python"])
    name, key, *rest = states["numpy"]
    np.random.set_state((name, np.array(key, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    # Checkpoints of earlier versions have none.
    for state in states.get("mps", []):
        torch.mps.set_rng_state(state)
