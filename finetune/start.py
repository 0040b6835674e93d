"""What every part of a system starts from, and whether finished parts agree on it.

A network is one object that takes turns: it learns a fold, and it answers with a finished fold's
weights. Its start is therefore read once, from the network as it was built, and every part names
the digest of it; a fold that began at another fold's weights would have learnt its own rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.cache.spec import differences
from archiveprobe.embed.models import tensor_digest
from archiveprobe.finetune.model import Network
from archiveprobe.finetune.outcome import Outcome


@dataclass(frozen=True)
class Start:
    """The first state of what is trained, and what a part's record says of it.

    `made_of` has the digest of the backbone as it was loaded ("weights"), of `state` ("start"), and
    the preprocessing.
    """

    state: Mapping[str, Any]
    made_of: Mapping[str, Any]


def start_of(network: Network) -> Start:
    """Read the start of a network that was just built."""
    state = network.state(whole=False)
    made_of = {
        "weights": network.digest,
        "start": tensor_digest(state),
        "preprocess": network.preprocess.record(),
    }
    return Start(state, made_of)


def check_start(part: Outcome, made_of: Mapping[str, Any], other: str) -> None:
    """Check that a finished part started from what `made_of` says, which is that of the `other`.

    Raises:
        InputError: it did not; what differs is named.
    """
    changed = ", ".join(field for field, _, _ in differences(part.made_of, made_of))
    if changed:
        raise InputError(
            f"{part.part} started from another network than {other} ({changed}): bring that one "
            f"back, or delete {part.folder} to train it again"
        )


def check_agreement(parts: Sequence[Outcome]) -> None:
    """Check that all parts of a system started from the same network.

    Raises:
        InputError: two did not; both are named.
    """
    for part in parts[1:]:
        check_start(part, parts[0].made_of, parts[0].part)
