"""Finished parts that were damaged or made up: one line, whatever is in them."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from click.testing import Result
from snapshots import seal_anything

from archiveprobe.base import sealed
from archiveprobe.finetune import trained_parts

Command = Callable[..., Result]
RECORDS = [
    "",
    "[" * 100_000,
    {"epoch": 99},
    {"epoch": 10**400},
    {"history": [[1]]},
    {"seconds": float("nan")},
    {"made_of": {}},
    {"digests": {}},
    {"more": 1},
]


@pytest.fixture
def part(tuned: Path, tmp_path: Path) -> Path:
    """A finished part of an archive of its own."""
    shutil.copytree(tuned, tmp_path / "archive")
    return tmp_path / "archive/work/finetune/quick/fold-1"


def changed(part: Path, **values: Any) -> None:
    file = part / "part.json"
    record = {**json.loads(file.read_text()), **values}
    record.pop("sha256")
    seal_anything(file, json.dumps(record))


def told(part: Path, finetune: Command) -> str:
    done = finetune(part.parents[3], "--fold", "all")
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.exit_code == 1 and len(lines) == 1, done.exception
    assert str(part) in lines[0] and "delete" in lines[0]
    return lines[0]


@pytest.mark.proves("damage")
@pytest.mark.parametrize("record", RECORDS, ids=lambda value: str(value)[:20])
def test_a_record_of_another_shape(record: Any, part: Path, finetune: Command) -> None:
    if isinstance(record, str):
        seal_anything(part / "part.json", record)
    else:
        changed(part, **record)
    assert "is damaged (" in told(part, finetune)


@pytest.mark.proves("damage")
def test_a_flipped_byte_of_the_record(part: Path, finetune: Command) -> None:
    file = part / "part.json"
    content = bytearray(file.read_bytes())
    content[content.index(b'"epoch": ') + 9] ^= 1
    file.write_bytes(content)
    assert "part.json is damaged" in told(part, finetune)


@pytest.mark.proves("damage")
@pytest.mark.parametrize("name", ["logits-*.npy", "weights.safetensors"])
@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_a_changed_file(name: str, how: str, part: Path, finetune: Command) -> None:
    (file,) = part.glob(name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    if how == "flipped":
        file.write_bytes(content)
    assert name.partition("-")[0] in told(part, finetune)


@pytest.mark.proves("damage")
@pytest.mark.parametrize("array", [np.zeros((3, 2, 2)), np.zeros((42, 2, 2), "f4"), np.array([{}])])
def test_logits_of_another_shape_with_a_true_digest(
    array: np.ndarray, part: Path, finetune: Command
) -> None:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    digest = hashlib.sha256(out.getvalue()).hexdigest()
    (part / f"logits-{digest[:16]}.npy").write_bytes(out.getvalue())
    digests = json.loads((part / "part.json").read_text())["digests"]
    changed(part, digests={**digests, "logits.npy": digest})
    assert "is damaged" in told(part, finetune)


@pytest.mark.proves("killed")
@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("after", [False, True])
def test_a_part_that_is_answered_anew_stays_whole_when_that_is_killed(
    call: int, after: bool, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its logits and its record are two files, and hours of training are behind them."""
    record = json.loads((part / "part.json").read_text())
    settings, shape = record["settings"], np.load(next(part.glob("logits-*.npy"))).shape
    before = trained_parts.load_part(part, settings, shape[0], shape[1:])
    assert before is not None
    real, calls = trained_parts.write_whole, []

    def write(file: Path, content: bytes) -> None:
        calls.append(file)
        if len(calls) == call and not after:
            raise SystemExit
        real(file, content)
        if len(calls) == call:
            raise SystemExit

    for module in (trained_parts, sealed):
        monkeypatch.setattr(module, "write_whole", write)
    with pytest.raises(SystemExit):
        trained_parts.update_part(before, before.logits + 1, "others")
    found = trained_parts.load_part(part, settings, shape[0], shape[1:])
    assert found is not None
    renewed = call == 2 and after
    assert found.record.to_predict == ("others" if renewed else before.record.to_predict)
    np.testing.assert_array_equal(found.logits, before.logits + renewed)
    monkeypatch.undo()
    trained_parts.update_part(before, before.logits + 2, "last")
    assert len(list(part.glob("logits*"))) == 1


@pytest.mark.proves("memory")
@pytest.mark.parametrize("what", ["logits", "weights"])
def test_a_part_that_memory_does_not_hold_is_not_called_damaged(
    part: Path, finetune: Command, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def load(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(*((np, "load") if what == "logits" else (safetensors.torch, "load")), load)
        done = finetune(part.parents[3], "--fold", "1")
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.exit_code == 1 and "memory" in line and "delete" not in line
    assert finetune(part.parents[3], "--fold", "1").exit_code == 0
