"""What a finished part leaves in work/finetune/<system>/<part>/: weights, logits and a record.

The record is written last, and names the digests of the other two.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.spec import differences
from finetune.model import Network
from finetune.train import Epoch, Trained
from task.errors import InputError
from task.files import write_whole

RECORD, LOGITS, WEIGHTS, CURVES = "part.json", "logits.npy", "weights.safetensors", "curves.csv"
# A finished network is the same network wherever its run goes on.
_OF_THE_RUN = ("device",)


@dataclass(frozen=True)
class Outcome:
    """A trained part: logits (n + m, V, K) of the labelled rows and of those to predict, NaN where
    a row was learnt or has no picture; the epoch that was kept; the digest of the weights; the
    backbone and the preprocessing beneath; the digest of the rows to predict.
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
    text = f"{json.dumps(record, indent=2)}\n".encode()
    try:
        for name, content in {**files, LOGITS: rows.getvalue(), RECORD: text}.items():
            write_whole(one.folder / name, content)
    except OSError as error:
        raise InputError(
            f"cannot write {one.folder}: {error.strerror or error}: make room and run the same "
            "command again, the last epoch is kept"
        ) from None


def load_outcome(folder: Path, settings: Mapping[str, Any]) -> Outcome | None:
    """A part that was finished before, or None.

    Raises:
        InputError: it was trained with other settings, which are named, or is damaged.
    """
    try:
        record = json.loads((folder / RECORD).read_bytes())
        _check(folder, record["settings"], settings)
        content = (folder / LOGITS).read_bytes()
        if _sha256(content) != record["digests"][LOGITS]:
            raise ValueError(f"{LOGITS} has changed")
        return Outcome(
            folder,
            np.load(io.BytesIO(content), allow_pickle=False),
            int(record["epoch"]),
            [Epoch(**each) for each in record["history"]],
            record["tuned"],
            float(record["seconds"]),
            str(record["digests"][WEIGHTS]),
            dict(record["made_of"]),
            str(record["to_predict"]),
        )
    except FileNotFoundError as error:
        if error.filename and Path(error.filename).name == RECORD:
            return None
        raise _damaged(folder, error) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, error) from None


def made_of(network: Network) -> dict[str, Any]:
    """The digest of a network's backbone as it was loaded, and its preprocessing."""
    return {"weights": network.digest, "preprocess": network.preprocess.record()}


def read_weights(file: Path, digest: str) -> dict[str, Any]:
    """The state of a trained part.

    Raises:
        InputError: missing, or not the file of that SHA-256.
    """
    from safetensors.torch import load

    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {file}: {error.strerror or error}: bring it back, or run finetune again"
        ) from None
    # Before it is parsed: safetensors has no checksum of its own.
    if _sha256(content) != digest:
        raise InputError(f"{file} has changed since it was trained: delete it and finetune again")
    return dict(load(content))


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
            f"{folder} was trained otherwise: {told}: set it back, or delete that folder to train "
            "it again"
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
    return InputError(f"{folder} is damaged ({reason}): delete it and train that part again")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
