"""States written aside: no step waits for the disk, and no fault of it is silent."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from archiveprobe.base.errors import InputError
from archiveprobe.finetune import checkpoint_writer as module
from archiveprobe.finetune.checkpoint import Checkpoints, random_states, set_random_states
from archiveprobe.finetune.checkpoint_writer import CheckpointWriter, copied_to_cpu


class Clock:
    """A clock that tests move."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(module, "monotonic", moved)
    return moved


def test_a_state_is_kept_at_once_and_then_once_a_minute(tmp_path: Path, clock: Clock) -> None:
    kept = Checkpoints(tmp_path / "state", {})
    asked: list[int] = []

    def state(epoch: int) -> dict[str, Any]:
        asked.append(epoch)
        return {"epoch": epoch}

    with CheckpointWriter(kept) as writer:
        for epoch in range(1, 32):
            writer.offer(epoch, lambda epoch=epoch: state(epoch))
            writer._thread.submit(lambda: None).result()
            clock.now += 4
    # Epochs of 4 s: after the first one every fifteenth.
    assert asked == [1, 16, 31]
    assert kept.load() == {"epoch": 31}


@pytest.mark.proves("killed")
def test_a_slow_disk_lets_no_step_wait_and_what_is_written_is_as_it_was(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, open_again = Checkpoints(tmp_path / "state", {}), threading.Event()
    real = Checkpoints.save

    def slow(self: Checkpoints, epoch: int, state: Any) -> None:
        open_again.wait(60)
        real(self, epoch, state)

    monkeypatch.setattr(Checkpoints, "save", slow)
    weights = torch.zeros(3)
    with CheckpointWriter(kept) as writer:
        for epoch in range(1, 6):
            writer.offer(epoch, lambda: {"weights": weights, "deep": [{"a": (weights,)}]})
            weights.add_(1)
            clock.now += 61
        assert kept.load() is None
        open_again.set()
    found = kept.load()
    assert found is not None and found["weights"].tolist() == [0, 0, 0]
    assert found["deep"][0]["a"][0].tolist() == [0, 0, 0]


@pytest.mark.proves("disk")
@pytest.mark.parametrize("later", [True, False])
def test_a_disk_that_refuses_is_said_at_the_next_state_or_at_the_end(
    tmp_path: Path, clock: Clock, later: bool
) -> None:
    # The folder of the states is a file.
    (tmp_path / "state").write_bytes(b"")
    offered = []

    def run() -> None:
        with CheckpointWriter(Checkpoints(tmp_path / "state", {})) as writer:
            writer.offer(1, lambda: {"n": 1})
            if later:
                writer._thread.submit(lambda: None).result()
                clock.now += 61
                writer.offer(2, lambda: {"n": 2})
                offered.append(2)

    with pytest.raises(InputError, match="cannot keep the state after epoch 1") as error:
        run()
    assert "\n" not in str(error.value) and offered == []


def test_copies_share_nothing_with_what_is_trained() -> None:
    tensor = torch.arange(3.0, requires_grad=True)
    copied = copied_to_cpu({"a": [tensor, 5, "b", None]})
    assert copied["a"][1:] == [5, "b", None] and not copied["a"][0].requires_grad
    assert copied["a"][0].data_ptr() != tensor.data_ptr()


class Generators:
    """The generators of `count` GPUs, of which only those asked for start a context."""

    def __init__(self, count: int) -> None:
        self.states = [torch.tensor([number]) for number in range(count)]
        self.touched: set[int] = set()

    def _place(self, device: str) -> int:
        place = int(device.partition(":")[2] or 0)
        self.touched.add(place)
        return place

    def get_rng_state(self, device: str) -> torch.Tensor:
        return self.states[self._place(device)].clone()

    def set_rng_state(self, state: torch.Tensor, device: str) -> None:
        self.states[self._place(device)] = state


@pytest.mark.proves("killed")
@pytest.mark.parametrize(("device", "expected"), [("cuda", 0), ("cuda:1", 1)])
def test_a_state_of_a_machine_with_more_gpus_serves_one_with_fewer(
    monkeypatch: pytest.MonkeyPatch, device: str, expected: int
) -> None:
    many, two = Generators(8), Generators(2)
    monkeypatch.setattr(torch, "cuda", many)
    state = random_states(device)
    assert many.touched == {expected}
    monkeypatch.setattr(torch, "cuda", two)
    two.states = [torch.tensor([-1]), torch.tensor([-1])]
    set_random_states(state, device)
    assert two.touched == {expected} and two.states[expected].item() == expected
    # As earlier versions wrote it: the generators of all eight.
    del state["device"]
    two.states = [torch.tensor([-1]), torch.tensor([-1])]
    set_random_states({**state, "cuda": many.states, "mps": []}, device)
    assert two.touched == {expected} and two.states[expected].item() == expected
    set_random_states({**state, "cuda": [], "mps": []}, device)
    set_random_states({**state, "cuda": many.states[:1], "mps": []}, "cpu")
