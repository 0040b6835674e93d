"""Where there is no card, the tests that need one say so, all in one line of pytest's summary."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

HERE = Path(__file__).parent


def test_every_test_that_needs_a_card_is_marked() -> None:
    files = [file for file in HERE.glob("test_*.py") if file.name != Path(__file__).name]
    assert len(files) == 2
    for file in files:
        assert "\npytestmark = pytest.mark.gpu\n" in file.read_text()


def test_they_skip_only_without_a_card(monkeypatch) -> None:
    spec = importlib.util.spec_from_file_location("gpu_conftest", HERE / "conftest.py")
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    marked = SimpleNamespace(get_closest_marker=lambda name: name == "gpu")
    monkeypatch.setattr(conftest, "default_device", lambda: "cpu")
    with pytest.raises(pytest.skip.Exception, match="no GPU: torch sees none with CUDA"):
        conftest.pytest_runtest_setup(marked)
    conftest.pytest_runtest_setup(SimpleNamespace(get_closest_marker=lambda _: None))
    monkeypatch.setattr(conftest, "default_device", lambda: "cuda")
    conftest.pytest_runtest_setup(marked)
