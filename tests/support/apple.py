"""An Apple GPU's stand-in: what is moved to "mps" stays on the CPU, under that device's limits."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch


def is_mps(device: Any) -> bool:
    """Say whether this names the device, as text or as torch's own."""
    return str(device) == "mps"


def pretend(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch see an Apple GPU. Returns what was moved there, as a list that grows."""
    moved: list[str] = []

    def standing_in(real: Callable[..., Any]) -> Callable[..., Any]:
        def to(self: Any, *places: Any, **how: Any) -> Any:
            if not any(map(is_mps, places)):
                return real(self, *places, **how)
            moved.append(type(self).__name__)
            if isinstance(self, torch.Tensor):
                assert self.dtype != torch.float64, "it computes no float64"
                assert not how.get("non_blocking"), "such a copy may read what is freed"
                assert not self.is_pinned(), "it has no pinned memory"
            else:
                tensors = [*self.parameters(), *self.buffers()]
                assert all(each.is_contiguous() for each in tensors), "channels-last is wrong there"
            return real(self, *("cpu" if is_mps(place) else place for place in places), **how)

        return to

    def double(_: torch.Tensor) -> torch.Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "to", standing_in(torch.Tensor.to))
    monkeypatch.setattr(torch.Tensor, "double", double)
    monkeypatch.setattr(torch.nn.Module, "to", standing_in(torch.nn.Module.to))
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda *_: torch.zeros(4, dtype=torch.uint8))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda *_: None)
    return moved
