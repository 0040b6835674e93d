"""States that are written aside, so that no step waits for the disk."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any, Self

from archiveprobe.finetune.checkpoint import Checkpoints

SECONDS = 60.0
"""Time from one state to the next: what a killed run loses at most, or an epoch if that is more."""


class CheckpointWriter:
    """Keeps states of a run in a thread of its own, some time apart.

    The first epoch is kept at once, so that a disk that cannot be written is known early. While one
    state is on its way to the disk no other is begun. Leaving the block waits for it.
    """

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self._checkpoints, self._last = checkpoints, float("-inf")
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self._thread.shutdown()
        # An error of the block goes before one of the disk.
        if kind is None:
            self._collect()

    def offer(self, epoch: int, state: Callable[[], Mapping[str, Any]]) -> None:
        """Keep the state after `epoch` finished epochs if it is time for one.

        It is copied to the memory of the CPU before this returns, and written later.

        Raises:
            InputError: the disk refused the state before.
        """
        if self._writing is not None and not self._writing.done():
            return
        self._collect()
        if self._checkpoints is None or monotonic() - self._last < SECONDS:
            return
        self._last = monotonic()
        copied = copied_to_cpu(state())
        self._writing = self._thread.submit(self._checkpoints.save, epoch, copied)

    def _collect(self) -> None:
        if self._writing is not None:
            written, self._writing = self._writing, None
            written.result()


def copied_to_cpu(state: Any) -> Any:
    """Return a state with copies of its tensors in the memory of the CPU."""
    import torch

    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {name: copied_to_cpu(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied_to_cpu(value) for value in state)
    return state
