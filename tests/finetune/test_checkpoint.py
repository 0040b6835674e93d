"""States of a run: killed at any moment and resumed equals uninterrupted; no fault is silent."""

import errno
import hashlib
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.finetune.checkpoint import Checkpoints, random_states, set_random_states
from archiveprobe.finetune.loader import BatchSampler
from archiveprobe.finetune.optimizer import make_average
from archiveprobe.finetune.recipe import Ema

EPOCHS = 4
SETTINGS = {"recipe": {"optimizer": {"batch_size": 8, "rates": (1e-2, 1e-3)}}, "fold": 1}


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


def train(folder: Path) -> dict[str, Any]:
    """Train from wherever the states are, drawing from all generators; the final state."""
    kept = Checkpoints(folder, SETTINGS)
    network, optimizer, average = made()
    parts = {"network": network, "optimizer": optimizer, "average": average}
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    state, history = kept.load(), []
    if state is not None:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        set_random_states(state["random"])
        history = state["history"]
    x = torch.linspace(-1, 1, 30 * 6).reshape(30, 6).sin()
    y = torch.arange(30) % 2
    for epoch in range(len(history), EPOCHS):
        sampler = BatchSampler(np.arange(30), y.numpy(), batch_size=8, seed=0)
        for batch in sampler.epoch(epoch):
            rows = [draw.row for draw in batch]
            noise = random.random() + np.random.rand()  # noqa: NPY002
            loss = torch.nn.functional.cross_entropy(network(x[rows] * noise), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update(network)
        history.append(float(loss.detach()))
        states = {name: part.state_dict() for name, part in parts.items()}
        kept.save(epoch + 1, {**states, "random": random_states(), "history": history})
    final = kept.load()
    assert final is not None
    return final


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


@pytest.mark.proves("killed")
def test_killed_at_any_call_and_resumed_equals_uninterrupted(
    tmp_path, monkeypatch, uninterrupted
) -> None:
    calls = calls_of_a_run(tmp_path / "counted", monkeypatch)
    assert calls > 8 * EPOCHS
    for at in range(0, calls - 2, 2):
        folder = tmp_path / str(at)
        with monkeypatch.context() as patched:
            patched.setattr(files, "os", Dying(at, KilledError()))
            with pytest.raises(KilledError):
                train(folder)
        assert same(train(folder), uninterrupted), at
        # The last state, and nothing that the killed run left.
        assert len(list(folder.iterdir())) == 1


@pytest.mark.proves("disk")
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_fails_leaves_the_old_state_whole(tmp_path, monkeypatch, code) -> None:
    kept = Checkpoints(tmp_path / "states", SETTINGS)
    states = [{"a": torch.arange(5.0) + n, "n": n} for n in range(2)]
    for at in range(40):
        kept.clear()
        kept.save(1, states[0])
        with monkeypatch.context() as patched:
            patched.setattr(files, "os", Dying(at, OSError(code, os.strerror(code))))
            try:
                kept.save(2, states[1])
            except InputError as error:
                assert "epoch 2" in str(error)
                assert os.strerror(code) in str(error)
            else:
                break
        state = kept.load()
        assert state is not None and same(state, states[state["n"]])
    assert 5 < at < 39


def test_only_the_last_state_is_kept_and_clearing_leaves_nothing(tmp_path) -> None:
    kept = Checkpoints(tmp_path / "states", {})
    assert kept.load() is None
    for epoch in (1, 2, 10):
        kept.save(epoch, {"epoch": epoch})
        assert kept.load() == {"epoch": epoch}
        assert len(list(kept.folder.iterdir())) == 1
    kept.clear()
    assert not kept.folder.exists()
    kept.clear()


@pytest.mark.proves("damage")
def test_every_flipped_byte_is_found(tmp_path) -> None:
    kept = Checkpoints(tmp_path / "states", SETTINGS)
    kept.save(1, {"a": torch.arange(3.0)})
    (file,) = kept.folder.iterdir()
    content = file.read_bytes()
    for at in range(0, len(content), 3):
        file.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(InputError, match=r"damaged.*train again"):
            kept.load()
    # With the right digest, but no state: nothing is unpickled.
    foreign = pickle.dumps(Path, protocol=2)
    file.unlink()
    (kept.folder / f"epoch-000001-{hashlib.sha256(foreign).hexdigest()}.pt").write_bytes(foreign)
    with pytest.raises(InputError, match=r"damaged.*train again"):
        kept.load()


@pytest.mark.proves("training")
def test_changed_settings_are_refused_by_name(tmp_path) -> None:
    Checkpoints(tmp_path, SETTINGS).save(1, {"a": 1})
    other = {"recipe": {"optimizer": {"batch_size": 16, "rates": (1e-2, 1e-3)}}, "seed": 3}
    with pytest.raises(InputError) as caught:
        Checkpoints(tmp_path, other).load()
    message = str(caught.value)
    assert "recipe.optimizer.batch_size was 8 and is now 16" in message
    assert "fold was 1 and is now" in message
    assert "is now 3" in message
    assert "rates" not in message
    assert Checkpoints(tmp_path, SETTINGS).load() is not None


@pytest.mark.proves("memory")
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory")])
def test_a_state_that_memory_does_not_hold_is_not_called_damaged(
    tmp_path, monkeypatch, error, fault_of
) -> None:
    kept = Checkpoints(tmp_path / "states", SETTINGS)
    kept.save(1, {"n": 1})

    def load(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", load)
        for read in (kept.load, kept.check):
            assert "delete" not in fault_of(read, "out of memory reading ", ": free some")
    assert kept.load() == {"n": 1}
