"""States of a run: killed at any moment and resumed equals uninterrupted; no fault is silent."""

import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.finetune.average import make_average
from archiveprobe.finetune.checkpoint import Checkpoints, capture, restore
from archiveprobe.finetune.schedule import batches, epoch_order
from archiveprobe.finetune.settings import Ema

torch = libraries.torch()
EPOCHS = 4
SETTINGS = {"recipe": {"optimiser": {"batch": 8, "rates": (1e-2, 1e-3)}}, "fold": 1}


class KilledError(BaseException):
    """The process is gone: nothing catches this."""


def made() -> tuple[Any, Any, Any]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)
    )
    groups = [
        {"params": list(network[0].parameters()), "lr": 1e-2},
        {"params": list(network[3].parameters()), "lr": 1e-3, "weight_decay": 0.0},
    ]
    return network, torch.optim.AdamW(groups), make_average(network, Ema(decay=0.9), 100)


def train(folder: Path, kept: Checkpoints | None = None) -> dict[str, Any]:
    """Train from wherever the states are, drawing from all generators; the final tree."""
    kept = kept or Checkpoints(folder, SETTINGS)
    network, optimiser, average = made()
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    state = kept.load()
    start, history = 0, []
    if state is not None:
        history = restore(state, network, optimiser, average)["history"]
        start = state.epoch
    x = torch.linspace(-1, 1, 30 * 6).reshape(30, 6).sin()
    y = torch.arange(30) % 2
    for epoch in range(start, EPOCHS):
        for rows in batches(epoch_order(y.numpy(), "shuffle", 0, epoch), 8):
            noise = random.random() + np.random.rand()  # noqa: NPY002
            loss = torch.nn.functional.cross_entropy(network(x[rows] * noise), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            average.update(network)
        history.append(float(loss.detach()))
        best = average.module.state_dict() if history[-1] == min(history) else None
        kept.save(epoch + 1, capture(network, optimiser, average, history=history), best)
    final = kept.load()
    assert final is not None
    return {**final.tree, "best": kept.best()}


def same(one: Any, other: Any) -> bool:
    """Bit by bit, types too."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=True)
        return type(one) is type(other) and all(same(a, b) for a, b in pairs)
    return type(one) is type(other) and one == other


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, Any]:
    return train(tmp_path_factory.mktemp("whole") / "states")


class Dying:
    """`os` as cache/disk sees it, whose nth call that changes the disk fails; later ones too."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.left, self.error = at, error

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in {"open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir"}:
            return real

        def call(*words: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise self.error
            return real(*words, **more)

        return call


def calls_of_a_run(folder: Path, monkeypatch) -> int:
    counting = Dying(10**6, KilledError())
    with monkeypatch.context() as patched:
        patched.setattr(files, "os", counting)
        train(folder)
    return 10**6 - counting.left


def test_killed_at_any_call_and_resumed_equals_uninterrupted(
    tmp_path, monkeypatch, uninterrupted
) -> None:
    calls = calls_of_a_run(tmp_path / "counted", monkeypatch)
    assert calls > 10 * EPOCHS
    for at in range(0, calls, 7):
        folder = tmp_path / str(at)
        with monkeypatch.context() as patched:
            patched.setattr(files, "os", Dying(at, KilledError()))
            with pytest.raises(KilledError):
                train(folder)
        assert same(train(folder), uninterrupted), at
        # The states named by the index, and nothing that the killed run left.
        assert len(list(folder.iterdir())) == 3


def test_killed_by_a_signal_and_resumed_equals_uninterrupted(tmp_path, uninterrupted) -> None:
    script = (
        "import importlib.util, sys, pathlib\n"
        "spec = importlib.util.spec_from_file_location('states', sys.argv[1])\n"
        "states = importlib.util.module_from_spec(spec); spec.loader.exec_module(states)\n"
        "states.torch.set_num_threads(1); print('ready', flush=True)\n"
        "states.train(pathlib.Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", script, __file__, str(tmp_path / "states")]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        while process.poll() is None and not list((tmp_path).glob("states/state.json")):
            pass
        process.send_signal(signal.SIGKILL)
    assert same(train(tmp_path / "states"), uninterrupted)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_leaves_the_old_state_whole(tmp_path, monkeypatch, code) -> None:
    kept = Checkpoints(tmp_path / "states", SETTINGS)
    old = {"a": torch.arange(5.0), "n": 1}
    new = {"a": torch.arange(5.0) + 1, "n": 2}
    for at in range(40):
        kept.save(1, old, {"w": torch.ones(2)})
        with monkeypatch.context() as patched:
            patched.setattr(files, "os", Dying(at, OSError(code, os.strerror(code))))
            try:
                kept.save(2, new, {"w": torch.zeros(2)})
            except InputError as error:
                assert "epoch 2" in str(error)
                assert os.strerror(code) in str(error)
            else:
                break
        state = kept.load()
        assert state is not None
        best = kept.best()
        assert best is not None
        # Whole, and both of the same moment.
        assert state.epoch in (1, 2)
        assert same(state.tree, (old, new)[state.epoch - 1])
        assert best["w"].tolist() == [[1, 1], [0, 0]][state.epoch - 1]
    assert 5 < at < 39


def test_the_best_stays_until_there_is_a_better_one(tmp_path) -> None:
    kept = Checkpoints(tmp_path / "states", {})
    assert kept.load() is None
    assert kept.best() is None
    for epoch, best in ((1, None), (2, 2.0), (3, None), (4, 4.0)):
        kept.save(epoch, {}, None if best is None else {"w": torch.tensor(best)})
        found = kept.best()
        expected = {1: None, 2: 2.0, 3: 2.0, 4: 4.0}[epoch]
        assert (found and float(found["w"])) == expected
    assert len(list(kept.folder.iterdir())) == 3
    kept.clear()
    assert not kept.folder.exists()
    kept.clear()


def test_every_flipped_byte_is_found(tmp_path) -> None:
    kept = Checkpoints(tmp_path / "states", SETTINGS)
    kept.save(1, {"a": torch.arange(3.0)}, {"w": torch.ones(2)})
    for file in sorted(kept.folder.iterdir()):
        content = file.read_bytes()
        for at in range(len(content)):
            file.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
            with pytest.raises(InputError, match=r"damaged.*train again"):
                kept.best() if file.name.startswith("best") else kept.load()
        file.unlink()
        if file.suffix == ".safetensors":
            with pytest.raises(InputError, match="damaged"):
                kept.best() if file.name.startswith("best") else kept.load()
        file.write_bytes(content)


def test_changed_settings_are_refused_by_name(tmp_path) -> None:
    Checkpoints(tmp_path, SETTINGS).save(1, {})
    other = {"recipe": {"optimiser": {"batch": 16, "rates": (1e-2, 1e-3)}}, "seed": 3}
    with pytest.raises(InputError) as caught:
        Checkpoints(tmp_path, other).load()
    message = str(caught.value)
    assert "recipe.optimiser.batch was 8 and is now 16" in message
    assert "fold was 1 and is now not set" in message
    assert "seed was not set and is now 3" in message
    assert "rates" not in message
    assert Checkpoints(tmp_path, SETTINGS).load() is not None


def test_what_a_state_can_hold_comes_back_as_it_was(tmp_path) -> None:
    half = torch.arange(6).half().reshape(2, 3)
    tree = {
        "t": (1, [2.5, None, True], "x"),
        "numbers": {0: half.t(), 1: torch.tensor(3), "dict": {"tensor": "no tensor"}},
        "nan": float("inf"),
        "shared": [half, half],
        "empty": {},
    }
    kept = Checkpoints(tmp_path, {})
    kept.save(1, tree)
    state = kept.load()
    assert state is not None
    assert same(state.tree, tree)


def test_what_a_state_cannot_hold_is_refused_before_anything_is_written(tmp_path) -> None:
    with pytest.raises(TypeError, match="/a/0: a state cannot hold a set"):
        Checkpoints(tmp_path, {}).save(1, {"a": [{1}]})
    assert not list(tmp_path.iterdir())
