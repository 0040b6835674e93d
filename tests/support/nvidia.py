"""Stand-ins for GPUs with CUDA: what is moved to "cuda:1" stays on the CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch


def is_cuda(place: Any) -> bool:
    """Say whether this names a GPU, as text or as torch's own."""
    return isinstance(place, str | torch.device) and str(place).startswith("cuda")


class Cards:
    """Two GPUs: which was current when something was moved or computed, in order.

    `pinned` are arrays in memory that a GPU copies from by itself, `sent` are tensors that were
    copied to one, with whether the copy was waited for. Whatever else asks CUDA for something
    fails, since this torch has none.
    """

    def __init__(self, capability: tuple[int, int]) -> None:
        self.capability = capability
        self.current: list[str] = []
        self.moved: list[str] = []
        self.pinned: list[torch.Tensor] = []
        self.sent: list[tuple[torch.Tensor, bool]] = []

    @contextmanager
    def device(self, device: Any) -> Iterator[None]:
        """Stand in for torch.cuda.device."""
        self.current.append(str(device))
        yield


def pretend(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)) -> Cards:
    """Let torch see two GPUs."""
    cards = Cards(capability)

    def standing_in(real: Callable[..., Any]) -> Callable[..., Any]:
        def to(self: Any, *places: Any, **how: Any) -> Any:
            cards.moved += [str(place) for place in places if is_cuda(place)]
            if isinstance(self, torch.Tensor) and any(map(is_cuda, places)):
                cards.sent.append((self, not how.get("non_blocking", False)))
            return real(self, *("cpu" if is_cuda(place) else place for place in places), **how)

        return to

    real_empty, real_autocast = torch.empty, torch.autocast

    def empty(*arguments: Any, pin_memory: bool = False, **named: Any) -> torch.Tensor:
        result = real_empty(*arguments, **named)
        if pin_memory:
            cards.pinned.append(result)
        return result

    def autocast(kind: str, *arguments: Any, **named: Any) -> Any:
        return real_autocast("cpu" if kind == "cuda" else kind, *arguments, **named)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch, "autocast", autocast)
    monkeypatch.setattr(torch.Tensor, "to", standing_in(torch.Tensor.to))
    monkeypatch.setattr(torch.nn.Module, "to", standing_in(torch.nn.Module.to))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device", cards.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: cards.capability)
    return cards
