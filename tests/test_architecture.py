"""The shape of the house: who may import whom, file sizes, unsafe calls."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "base": 0,
    "task": 1,
    "cache": 1,
    "archive": 2,
    "demo": 2,
    "evaluate": 2,
    "embed": 3,
    "probe": 3,
    "finetune": 4,
    "predict": 5,
    "api": 6,
    "look": 7,
    "review": 8,
    "commands": 9,
    "cli": 10,
}
LONGEST_FILE = 450
HEAVY = {"torch", "timm", "open_clip", "torchvision"}
UNSAFE = re.compile(
    r"\bpickle\.|import pickle|joblib|allow_pickle\s*=\s*True|weights_only\s*=\s*False"
)

SOURCES = sorted(
    path
    for name in FLOORS
    for path in [*(ROOT / name).rglob("*.py"), ROOT / f"{name}.py"]
    if path.is_file()
)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Top names imported by a file, and whether that happens when the file itself is imported."""
    tree = ast.parse(path.read_text("utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.Lambda) or _for_types_only(function)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for name in node.names:
                yield _room(f"{node.module}.{name.name}"), id(node) not in inner
        elif isinstance(node, ast.Import):
            for name in node.names:
                yield _room(name.name), id(node) not in inner


def _room(module: str) -> str:
    """The folder of ours that a module lies in, else the library's name."""
    return module.removeprefix("archiveprobe.").split(".")[0]


def _for_types_only(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_imports_go_down_the_floors(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name, _ in imports(path):
        if name in FLOORS and name != own:
            assert FLOORS[name] < FLOORS[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_heavy_libraries_load_where_they_are_used(path: Path) -> None:
    at_import = {name for name, at_once in imports(path) if at_once}
    assert not at_import & HEAVY


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_whoever_imports_a_model_library_makes_torchvision_importable_first(path: Path) -> None:
    if {name for name, _ in imports(path)} & (HEAVY - {"torch"}):
        assert "make_torchvision_importable()" in path.read_text("utf-8")


@pytest.mark.parametrize(
    "path", [ROOT / "cli.py", *sorted((ROOT / "commands").glob("*.py"))], ids=label
)
def test_the_command_line_imports_the_rest_inside_its_commands(path: Path) -> None:
    at_import = {name for name, at_once in imports(path) if at_once}
    errors = {"base"} if path.name == "terminal.py" else set()
    assert at_import & set(FLOORS) - errors <= {"commands"}


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_files_are_small(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_nothing_unpickles(path: Path) -> None:
    assert not UNSAFE.search(path.read_text("utf-8"))


def test_every_source_folder_is_installed() -> None:
    declared = (ROOT / "pyproject.toml").read_text("utf-8")
    folders = {label(path.parent).replace("/", ".") for path in SOURCES if path.parent != ROOT}
    missing = {folder for folder in folders if f'"archiveprobe.{folder}"' not in declared}
    assert not missing


def test_constraints_pin_every_dependency_exactly() -> None:
    pins = [
        line
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins)
    names = {line.split("==")[0].lower().replace("_", "-") for line in pins}
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    listed = re.search(r"dependencies = \[(.*?)\]", project, re.DOTALL)
    assert listed
    wanted = {name.lower().replace("_", "-") for name in re.findall(r'"([\w-]+)"', listed[1])}
    assert wanted <= names
