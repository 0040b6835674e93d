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
from click.testing import Result

Command = Callable[..., Result]
RECORDS = [
    "",
    "[]",
    "[" * 100_000,
    {"settings": "x"},
    {"epoch": 99},
    {"epoch": 10**400},
    {"history": [[1]]},
    {"seconds": float("nan")},
    {"tuned": "x"},
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
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def told(part: Path, finetune: Command) -> str:
    done = finetune(part.parents[3], "--fold", "all")
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.exit_code == 1 and len(lines) == 1, done.exception
    assert str(part) in lines[0] and "delete" in lines[0]
    return lines[0]


@pytest.mark.parametrize("record", RECORDS, ids=lambda value: str(value)[:20])
def test_a_record_of_another_shape(record: Any, part: Path, finetune: Command) -> None:
    if isinstance(record, str):
        (part / "part.json").write_text(record)
    else:
        changed(part, **record)
    assert "is damaged (part.json" in told(part, finetune)


@pytest.mark.parametrize("name", ["logits.npy", "weights.safetensors"])
@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_a_changed_file(name: str, how: str, part: Path, finetune: Command) -> None:
    content = bytearray((part / name).read_bytes())
    content[len(content) // 2] ^= 1
    (part / name).unlink()
    if how == "flipped":
        (part / name).write_bytes(content)
    assert name in told(part, finetune)


@pytest.mark.parametrize("array", [np.zeros((3, 2, 2)), np.zeros((42, 2, 2), "f4"), np.array([{}])])
def test_logits_of_another_shape_with_a_true_digest(
    array: np.ndarray, part: Path, finetune: Command
) -> None:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    (part / "logits.npy").write_bytes(out.getvalue())
    digests = json.loads((part / "part.json").read_text())["digests"]
    changed(part, digests={**digests, "logits.npy": hashlib.sha256(out.getvalue()).hexdigest()})
    assert "is damaged" in told(part, finetune)
