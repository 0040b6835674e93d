"""RELIABILITY.md names proofs that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROOFS = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "RELIABILITY.md").read_text())


@pytest.mark.parametrize(("file", "test"), PROOFS)
def test_a_proof_exists(file: str, test: str) -> None:
    source = (ROOT / file).read_text("utf-8")
    assert not test or f"def {test}(" in source


def test_every_promise_has_a_proof() -> None:
    table = (ROOT / "RELIABILITY.md").read_text("utf-8").split("## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    assert all("`tests/" in row.rsplit("|", 2)[1] for row in rows)
