"""The libraries load where they are used, and work beside a torchvision of another build."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from archiveprobe.cli import main
from archiveprobe.embed import libraries
from archiveprobe.embed.run import Options, embed

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "embed"
HEAVY = {"torch", "torchvision", "timm", "open_clip", "skimage"}


def python(program: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=500
    )


def test_a_torchvision_of_another_build_is_made_to_import() -> None:
    if not libraries._libraries:
        pytest.skip("torchvision and torch fit together here")
    from torchvision.transforms import functional

    libraries.make_torchvision_importable()
    assert functional.resize(Image.new("RGB", (40, 20)), 10).size == (20, 10)


def test_another_fault_of_torchvision_is_not_hidden(monkeypatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("something else")

    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(libraries.importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="something else"):
        libraries.make_torchvision_importable()


def loaded_after(program: str) -> list[str]:
    """What a program prints, then those of the heavy libraries that it has loaded."""
    done = python(f"import os, sys\n{program}\nprint(*sorted(set(sys.modules) & {HEAVY}))")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("OMP_WAIT_POLICY", None, "PASSIVE"),
        ("OMP_WAIT_POLICY", "ACTIVE", "ACTIVE"),
        ("OPENBLAS_THREAD_TIMEOUT", None, "4"),
        ("OPENBLAS_THREAD_TIMEOUT", "20", "20"),
    ],
)
def test_threads_sleep_unless_the_environment_says_otherwise(
    archive, monkeypatch, name, given, expected
) -> None:
    monkeypatch.setenv(name, given or "")
    if given is None:
        monkeypatch.delenv(name)
    archive.add_drawn([0])
    CliRunner().invoke(main, ["list", "systems", str(archive.task().file)])
    assert os.environ[name] == expected


def test_threads_are_told_to_sleep_before_numpy_is_loaded() -> None:
    done = python("import archiveprobe.cli, sys\nprint('numpy' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_no_module_loads_torch_on_import() -> None:
    modules = sorted(f"archiveprobe.embed.{file.stem}" for file in FOLDER.glob("[a-z]*.py"))
    assert loaded_after(f"import archiveprobe.cli, {', '.join(modules)}") == []


def test_a_run_with_nothing_to_do_loads_no_torch(archive) -> None:
    archive.add_drawn(range(2))
    task = archive.task(["hog"])
    assert embed(task, Options(workers=0, device="cpu")).embedded == 2
    program = (
        "from pathlib import Path\nfrom archiveprobe.task.config import load_task\n"
        "from archiveprobe.embed.run import Options, embed\n"
        f"summary = embed(load_task(Path({str(task.file)!r})), Options(workers=0, device='cpu'))\n"
        "print(summary.embedded, summary.reused)"
    )
    assert loaded_after(program) == ["0", "2"]
