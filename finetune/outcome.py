"""What a finished part leaves in work/finetune/<system>/<part>/: weights, logits and a record.

The record is sealed, written last, and names the digests of the other two. Logits are the only
ones that are ever written again, so their file is named after their digest: until the new record is
there the old one finds the old file.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import TypedDict

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import discard, write_whole
from archiveprobe.base.sealed import read_sealed, write_sealed
from archiveprobe.cache.spec import differences
from archiveprobe.finetune.settings import Finite, Share
from archiveprobe.finetune.train import Epoch, Trained

RECORD, LOGITS, WEIGHTS, CURVES = "part.json", "logits.npy", "weights.safetensors", "curves.csv"
# A finished network is the same network wherever its run goes on.
_OF_THE_RUN = ("device", "precision")


Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _MadeOf(TypedDict):
    """What finetune.start says of a network."""

    weights: str
    start: Digest
    preprocess: dict[str, Any]


class _Record(BaseModel):
    """What part.json holds, whoever wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    settings: dict[str, Any]
    epoch: Annotated[int, Field(ge=1)]
    tuned: Share | None
    seconds: Annotated[Finite, Field(ge=0)]
    history: list[Epoch]
    made_of: _MadeOf
    to_predict: str
    digests: dict[str, Digest]

    @model_validator(mode="after")
    def _check(self) -> "_Record":
        if self.epoch > len(self.history):
            raise ValueError("the epoch that was kept is none of the history")
        if self.digests.keys() != {WEIGHTS, LOGITS}:
            raise ValueError("the digests are not those of a part")
        return self


@dataclass(frozen=True)
class Outcome:
    """A trained part: logits (n + m, V, K) of the labelled rows and of those to predict, NaN where
    a row was learnt or has no image; the epoch that was kept; the digest of the weights; the
    network that it started from; the digest of the rows to predict.
    """

    folder: Path
    logits: np.ndarray
    epoch: int
    history: list[Epoch]
    tuned: float | None
    seconds: float
    digest: str
    made_of: Mapping[str, Any]
    to_predict: str

    @property
    def part(self) -> str:
        """Its name."""
        return self.folder.name

    @property
    def weights(self) -> Path:
        """The file of what was trained."""
        return self.folder / WEIGHTS


def save_outcome(
    folder: Path,
    settings: Mapping[str, Any],
    trained: Trained,
    logits: np.ndarray,
    made_of: Mapping[str, Any],
    to_predict: str,
) -> Outcome:
    """Write a finished part.

    Raises:
        InputError: the disk refuses.
    """
    from safetensors.torch import save

    weights = save(dict(trained.state))
    done = Outcome(
        folder,
        logits,
        trained.epoch,
        trained.history,
        trained.tuned,
        trained.seconds,
        _sha256(weights),
        made_of,
        to_predict,
    )
    _write(done, settings, {WEIGHTS: weights, CURVES: _curves(trained.history)})
    return done


def renew_outcome(
    one: Outcome, settings: Mapping[str, Any], logits: np.ndarray, to_predict: str
) -> Outcome:
    """Write a finished part with logits for other rows to predict.

    Raises:
        InputError: the disk refuses.
    """
    renewed = replace(one, logits=logits, to_predict=to_predict)
    _write(renewed, settings, {})
    return renewed


def _write(one: Outcome, settings: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    rows = io.BytesIO()
    np.save(rows, one.logits, allow_pickle=False)
    record = {
        "settings": settings,
        "epoch": one.epoch,
        "tuned": one.tuned,
        "seconds": one.seconds,
        "history": [asdict(each) for each in one.history],
        "made_of": one.made_of,
        "to_predict": one.to_predict,
        "digests": {WEIGHTS: one.digest, LOGITS: _sha256(rows.getvalue())},
    }
    logits = _logits_file(one.folder, _sha256(rows.getvalue()))
    try:
        for name, content in {**files, logits.name: rows.getvalue()}.items():
            write_whole(one.folder / name, content)
        write_sealed(one.folder / RECORD, record)
    except OSError as error:
        raise InputError(
            f"cannot write {one.folder}: {error.strerror or error}: make room and run the same "
            "command again, the last epoch is kept"
        ) from None
    for old in set(one.folder.glob("logits-*.npy")) - {logits}:
        discard(old)


def _logits_file(folder: Path, digest: str) -> Path:
    return folder / f"logits-{digest[:16]}.npy"


def load_outcome(
    folder: Path, settings: Mapping[str, Any], rows: int, shape: tuple[int, int]
) -> Outcome | None:
    """A part that was finished before, or None: logits of at least so many rows, each (V, K).

    Raises:
        InputError: it was trained with other settings, which are named, or is damaged.
    """
    try:
        sealed = read_sealed(folder / RECORD, remedy=f"delete {folder} and train that part again")
        if sealed is None:
            return None
        record = _parsed(sealed)
        _check(folder, record.settings, settings)
        content = _logits_file(folder, record.digests[LOGITS]).read_bytes()
        if _sha256(content) != record.digests[LOGITS]:
            raise ValueError(f"{LOGITS} has changed")
        logits = np.load(io.BytesIO(content), allow_pickle=False)
        if logits.dtype != float or logits.shape[1:] != shape or len(logits) < rows:
            raise ValueError(f"{LOGITS} is not of that many rows, views and classes")
        return Outcome(
            folder,
            logits,
            record.epoch,
            record.history,
            record.tuned,
            record.seconds,
            record.digests[WEIGHTS],
            dict(record.made_of),
            record.to_predict,
        )
    except (OSError, ValueError, MemoryError) as error:
        raise _damaged(folder, error) from None


def _parsed(sealed: Mapping[str, Any]) -> _Record:
    """Raises ValueError."""
    try:
        # From text, since the strict rules for Python objects would refuse a dict for an Epoch.
        return _Record.model_validate_json(json.dumps(sealed))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{RECORD}: {place or 'all of it'}: {first['msg']}") from None


def read_weights(file: Path, digest: str) -> dict[str, Any]:
    """The state of a trained part.

    Raises:
        InputError: missing, or not the file of that SHA-256.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {file}: {error.strerror or error}: bring it back, or delete "
            f"{file.parent} and run finetune again"
        ) from None
    # Before it is parsed: safetensors has no checksum of its own.
    if _sha256(content) != digest:
        raise InputError(
            f"{file} has changed since it was trained: delete {file.parent} and run finetune again"
        )
    try:
        return dict(load(content))
    except SafetensorError as error:
        raise InputError(
            f"{file} holds no weights ({error}): delete {file.parent} and run finetune again"
        ) from None


def _check(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    plain = json.loads(json.dumps(now))
    old, new = (
        {key: value for key, value in each.items() if key not in _OF_THE_RUN}
        for each in (then, plain)
    )
    changed = differences(old, new)
    if changed:
        told = ", ".join(f"{field} was {a!r:.60} and is now {b!r:.60}" for field, a, b in changed)
        raise InputError(
            f"{folder} was trained otherwise: {told}: set it back, delete that folder to train it "
            "again, or save the recipe under another name"
        )


def _curves(history: list[Epoch]) -> bytes:
    """The learning curves, to be drawn by whatever reads a table."""
    lines = ["epoch,loss,macro_f1,rate"]
    for each in history:
        score = "" if each.macro_f1 is None else f"{each.macro_f1:.6f}"
        lines.append(f"{each.epoch},{each.loss:.6f},{score},{each.rate:.3e}")
    return ("\n".join(lines) + "\n").encode()


def _damaged(folder: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120]
    if isinstance(error, OSError) and error.filename:
        reason = f"{Path(error.filename).name}: {error.strerror}"
    return InputError(f"{folder} is damaged ({reason}): delete it and train that part again")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
