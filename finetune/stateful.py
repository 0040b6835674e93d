"""What a checkpoint holds of a network: the trained part only, of it and of its average."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from archiveprobe.embed import libraries
from archiveprobe.finetune.model import Network


@dataclass(frozen=True)
class Tuned:
    """A network as a checkpoint sees it: frozen weights come from their own file, not from here."""

    network: Network

    def state_dict(self) -> dict[str, Any]:
        """Copies of what training may change."""
        return self.network.state(whole=False)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self.network.load_state(state, "the checkpoint")


class Averaged(Tuned):
    """The same of a running average of a network."""

    def __init__(self, network: Network, average: Any) -> None:
        super().__init__(replace(network, module=average.module))


def in_layout_of(optimiser: Any) -> None:
    """Bring the optimiser's tensors into the memory order of their parameters.

    Stored they were contiguous. Beside channels-last parameters those are slow, and nothing
    promises that mixed orders round alike, as a resumed run must.
    """
    torch = libraries.torch()
    for parameter, state in optimiser.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
