"""The examples of the Python API and of docs/notebook.md give what they show."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

import archiveprobe as ap

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("api.task", "api.probes")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_BLOCK = re.compile(r"^```pycon\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run(test: doctest.DocTest, names: dict[str, object]) -> int:
    """Run examples; the number of them. Fails with what they gave instead."""
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    test.globs = names
    done = runner.run(test, out=said.append, clear_globs=False)
    assert not done.failed, "".join(said)
    return done.attempted


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    module = import_module(f"archiveprobe.{name}")
    tests = doctest.DocTestFinder().find(module, name)
    for test in tests:
        run(test, {"ap": ap, "task": ap.open("my/photographs")})
    assert sum(len(test.examples) for test in tests)


@pytest.mark.parametrize("name", MODULES)
def test_whatever_is_public_has_an_example(name: str) -> None:
    tests = doctest.DocTestFinder(exclude_empty=False).find(import_module(f"archiveprobe.{name}"))
    wanted = [test for test in tests if "._" not in test.name and test.docstring]
    # Properties and scikit-learn's own methods say it in their first line.
    short = {test.name for test in wanted if len(test.docstring.splitlines()) == 1}
    without = [test.name for test in wanted if not test.examples and test.name not in short]
    assert without in ([], [f"archiveprobe.{name}"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_guide(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    text = (ROOT / "docs" / "notebook.md").read_text("utf-8")
    names: dict[str, object] = {}
    count = 0
    for at, block in enumerate(_BLOCK.findall(text)):
        test = doctest.DocTestParser().get_doctest(block, {}, f"block {at}", "notebook.md", 0)
        count += run(test, names)
    assert count >= 10
