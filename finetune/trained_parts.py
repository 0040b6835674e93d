"""What a finished part leaves in work/finetune/<system>/<part>/: weights, logits and a record.

The record is sealed, written last, and names the digests of the other two. Logits are the only
ones that are ever written again, so their file is named after their digest: until the new record is
there the old one finds the old file.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import TypedDict

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import discard, write_whole
from archiveprobe.base.sealed import read_sealed, write_sealed
from archiveprobe.cache.spec import differences
from archiveprobe.embed.models import tensor_digest
from archiveprobe.embed.tuned import read_weights
from archiveprobe.finetune.inference import average
from archiveprobe.finetune.model import Network
from archiveprobe.finetune.recipe_values import Finite, Share
from archiveprobe.finetune.train import Epoch, Trained

RECORD, LOGITS, WEIGHTS, CURVES = "part.json", "logits.npy", "weights.safetensors", "curves.csv"
# A finished network is the same network wherever its run goes on.
_OF_THE_RUN = ("device", "precision")
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Origin(TypedDict):
    """What a part started from: digests of the backbone as it was loaded ("weights") and of the
    first state of all that is trained ("start"), and the preprocessing.
    """

    weights: str
    start: Digest
    preprocess: dict[str, Any]


def origin_of(network: Network) -> Origin:
    """Return what every part of a system starts from, for a network that was just built."""
    start = tensor_digest(network.state(whole=False))
    return Origin(weights=network.digest, start=start, preprocess=dict(network.preprocess.record()))


class MixedSeed(TypedDict):
    """One of several trainings of a part: its seed, the epoch it was kept at, the SHA-256 of its
    weights, and whether they are in the mean.
    """

    seed: int
    epoch: int
    sha256: Digest
    used: bool


class PartRecord(BaseModel):
    """What part.json holds, whoever wrote it.

    `selection` are the epochs of the training whose held-out rows chose the number of epochs, where
    these rows were learned afterwards; `seeds` the trainings whose weights were averaged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    settings: dict[str, Any]
    epoch: Annotated[int, Field(ge=1)]
    alpha: Share | None
    seconds: Annotated[Finite, Field(ge=0)]
    history: list[Epoch]
    made_of: Origin
    to_predict: str
    digests: dict[str, Digest]
    selection: list[Epoch] = []
    seeds: list[MixedSeed] = []

    @model_validator(mode="after")
    def _check(self) -> "PartRecord":
        if self.epoch > len(self.history):
            raise ValueError("the epoch that was kept is none of the history")
        if self.digests.keys() != {WEIGHTS, LOGITS}:
            raise ValueError("the digests are not those of a part")
        return self


@dataclass(frozen=True)
class TrainedPart:
    """A finished part: its record, and the logits (n + m, V, K) of the labelled rows and of those
    to predict, NaN where a row was trained on or has no image.

    One of several seeds whose probabilities are averaged has no weights of its own but `members`,
    and the record of the one that was kept at the middle epoch.
    """

    folder: Path
    record: PartRecord
    logits: np.ndarray
    members: tuple["TrainedPart", ...] = ()

    @property
    def networks(self) -> tuple["TrainedPart", ...]:
        """Return the parts whose networks answer: its members, or itself."""
        return self.members or (self,)

    @property
    def name(self) -> str:
        """Return its name."""
        return self.folder.name

    @property
    def weights(self) -> Path:
        """Return the file of what was trained."""
        return self.folder / WEIGHTS

    @property
    def digest(self) -> str:
        """Return the SHA-256 of that file."""
        return self.record.digests[WEIGHTS]

    def state(self) -> dict[str, Any]:
        """Read what was trained. Raises InputError: missing or changed."""
        return read_weights(self.weights, self.digest)

    def check_origin(self, origin: Mapping[str, Any], other: str) -> None:
        """Check that the part started from the same network as the `other`.

        A fold that began at another fold's weights would have been trained on its own rows.

        Raises:
            InputError: it did not; what differs is named.
        """
        changed = ", ".join(name for name, _, _ in differences(self.record.made_of, origin))
        if changed:
            raise InputError(
                f"{self.name} started from another network than {other} ({changed}): bring that "
                f"one back, or delete {self.folder} to train it again"
            )


def check_agreement(parts: Sequence[TrainedPart]) -> None:
    """Check that all parts of a system started from the same network.

    Raises:
        InputError: two did not; both are named.
    """
    for part in parts[1:]:
        part.check_origin(parts[0].record.made_of, parts[0].name)


def save_part(
    folder: Path,
    settings: Mapping[str, Any],
    trained: Trained,
    logits: np.ndarray,
    origin: Origin,
    to_predict: str,
    *,
    selection: Sequence[Epoch] = (),
    seeds: Sequence[MixedSeed] = (),
) -> TrainedPart:
    """Write a finished part. Raises InputError: the disk refuses."""
    from safetensors.torch import save

    weights = save(dict(trained.state))
    record = PartRecord.model_construct(
        settings=dict(settings),
        epoch=trained.epoch,
        alpha=trained.alpha,
        seconds=trained.seconds,
        history=trained.history,
        made_of=origin,
        to_predict=to_predict,
        digests={WEIGHTS: _sha256(weights)},
        selection=list(selection),
        seeds=list(seeds),
    )
    files = {WEIGHTS: weights, CURVES: _curves(trained.history)}
    return _write(TrainedPart(folder, record, logits), files)


def middle_of(parts: Sequence[TrainedPart]) -> TrainedPart:
    """Return the part that was kept at the median epoch; of two middle ones the earlier."""
    return sorted(parts, key=lambda part: part.record.epoch)[(len(parts) - 1) // 2]


def mean_of_parts(folder: Path, parts: Sequence[TrainedPart]) -> TrainedPart:
    """Return the part whose probabilities are the mean of those of its seeds."""
    seconds = sum(part.record.seconds for part in parts)
    record = middle_of(parts).record.model_copy(update={"seconds": seconds})
    logits = average(np.stack([part.logits for part in parts]), 0)
    return TrainedPart(folder, record, logits, tuple(parts))


def update_part(part: TrainedPart, logits: np.ndarray, to_predict: str) -> TrainedPart:
    """Write a finished part with logits for other rows to predict. Raises InputError."""
    record = part.record.model_copy(update={"to_predict": to_predict})
    return _write(replace(part, record=record, logits=logits), {})


def _write(part: TrainedPart, files: Mapping[str, bytes]) -> TrainedPart:
    rows = io.BytesIO()
    np.save(rows, part.logits, allow_pickle=False)
    content = rows.getvalue()
    digests = {**part.record.digests, LOGITS: _sha256(content)}
    part = replace(part, record=part.record.model_copy(update={"digests": digests}))
    logits = _logits_file(part.folder, digests[LOGITS])
    try:
        for name, data in {**files, logits.name: content}.items():
            write_whole(part.folder / name, data)
        write_sealed(part.folder / RECORD, part.record.model_dump(mode="json"))
    except OSError as error:
        raise InputError(
            f"cannot write {part.folder}: {error.strerror or error}: make room and run the same "
            "command again, the last epoch is kept"
        ) from None
    for old in set(part.folder.glob("logits-*.npy")) - {logits}:
        discard(old)
    return part


def _logits_file(folder: Path, digest: str) -> Path:
    return folder / f"logits-{digest[:16]}.npy"


def load_part(
    folder: Path, settings: Mapping[str, Any], rows: int, shape: tuple[int, int]
) -> TrainedPart | None:
    """Load a part that was finished before, or None: logits of at least `rows` rows, each (V, K).

    Raises:
        InputError: it was trained with other settings, which are named, or is damaged.
    """
    try:
        sealed = read_sealed(folder / RECORD, remedy=f"delete {folder} and train that part again")
        if sealed is None:
            return None
        # From text, since the strict rules for Python objects would refuse a dict for an Epoch.
        record = PartRecord.model_validate_json(json.dumps(sealed))
        _check_settings(folder, record.settings, settings)
        content = _logits_file(folder, record.digests[LOGITS]).read_bytes()
        if _sha256(content) != record.digests[LOGITS]:
            raise ValueError(f"{LOGITS} has changed")
        logits = np.load(io.BytesIO(content), allow_pickle=False)
        if logits.dtype != float or logits.shape[1:] != shape or len(logits) < rows:
            raise ValueError(f"{LOGITS} is not of that many rows, views and classes")
        return TrainedPart(folder, record, logits)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"{RECORD}: {place or 'all of it'}: {first['msg']}"
    except OSError as error:
        reason = f"{Path(error.filename or '').name}: {error.strerror}"
    except ValueError as error:
        reason = " ".join(str(error).split())
    raise InputError(f"{folder} is damaged ({reason:.120}): delete it and train that part again")


def _check_settings(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = (
        {key: value for key, value in each.items() if key not in _OF_THE_RUN}
        for each in (then, now)
    )
    changed = differences(old, new)
    if changed:
        fields = ", ".join(f"{name} was {a!r:.60} and is now {b!r:.60}" for name, a, b in changed)
        raise InputError(
            f"{folder} was trained otherwise: {fields}: set it back, delete that folder to train "
            "it again, or save the recipe under another name"
        )


def _curves(history: Sequence[Epoch]) -> bytes:
    """Return the learning curves as a table."""
    lines = ["epoch,loss,macro_f1,lr"]
    for epoch in history:
        score = "" if epoch.macro_f1 is None else f"{epoch.macro_f1:.6f}"
        lines.append(f"{epoch.epoch},{epoch.loss:.6f},{score},{epoch.lr:.3e}")
    return ("\n".join(lines) + "\n").encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
