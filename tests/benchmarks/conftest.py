"""Benchmarks are started as scripts of their folder, and leave figures."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def start(monkeypatch):
    """Import a benchmark as a script of its folder sees itself, on one core."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def start(name: str) -> ModuleType:
        benchmark = importlib.import_module(name)
        if hasattr(benchmark, "cores"):
            monkeypatch.setattr(benchmark, "cores", lambda: 0)
        return benchmark

    return start


@pytest.fixture
def figures_of(tmp_path, capsys):
    def figures_of(benchmark: ModuleType, *words: str) -> dict[str, dict[str, Any]]:
        """Run it; the figures of its JSON file by name, each of which the table shows too."""
        file = tmp_path / "results" / "figures.json"
        benchmark.main([*words, "--json", str(file)])
        record = json.loads(file.read_text())
        assert record["machine"]["cores"] >= 1
        table = capsys.readouterr().out
        for figure in record["figures"]:
            assert set(figure) == {"name", "value", "unit", "target", "met"}
            assert figure["name"] in table
            assert (figure["met"] is None) == (figure["target"] == "")
        return {figure["name"]: figure for figure in record["figures"]}

    return figures_of
