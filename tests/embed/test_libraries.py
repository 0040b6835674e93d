"""The libraries load where they are used, and work beside a torchvision of another build."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def python(program: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_a_torchvision_of_another_build_is_made_to_import() -> None:
    plain = python("import torchvision")
    if plain.returncode == 0:
        pytest.skip("torchvision and torch fit together here")
    assert "torchvision::nms" in plain.stderr
    through = python(
        "from archiveprobe.embed.libraries import make_torchvision_importable as make\n"
        "make(); make()\n"
        "import torchvision.transforms.functional as tv\n"
        "from PIL import Image\n"
        "print(tv.resize(Image.new('RGB', (40, 20)), 10).size)"
    )
    assert (through.stdout, through.stderr) == ("(20, 10)\n", "")


def test_another_fault_of_torchvision_is_not_hidden(monkeypatch) -> None:
    from archiveprobe.embed import libraries

    def broken(name: str) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(libraries.importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="something else"):
        libraries.make_torchvision_importable()


HEAVY = {"torch", "torchvision", "timm", "open_clip"}


@pytest.mark.parametrize(
    "module",
    ["cli", *sorted(f"embed.{file.stem}" for file in (ROOT / "embed").glob("[a-z]*.py"))],
)
def test_no_module_loads_torch_on_import(module) -> None:
    # One process for all modules would hide which one it was; the first alone pays for all.
    if module not in (
        "cli",
        "embed.run",
        "embed.job",
        "embed.decoding",
    ):
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
        tops = {line.split()[1].split(".")[0] for line in source.splitlines() if is_import(line)}
        assert not tops & HEAVY
        return
    done = python(f"import sys, archiveprobe.{module}; print(*sorted(set(sys.modules) & {HEAVY}))")
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def is_import(line: str) -> bool:
    return line.startswith(("import ", "from "))


def test_a_run_with_nothing_to_do_loads_no_torch(archive) -> None:
    archive.add_drawn(range(2))
    task = archive.task(["hog"])
    program = (
        "import sys\nfrom pathlib import Path\nfrom archiveprobe.task.config import load_task\n"
        "from archiveprobe.embed.run import Options, embed\n"
        f"summary = embed(load_task(Path({str(task.file)!r})), Options(workers=0, device='cpu'))\n"
        "print(summary.embedded, summary.reused, *sorted(set(sys.modules) & "
        f"{HEAVY | {'skimage'}}))"
    )
    assert python(program).stdout.split()[:2] == ["2", "0"]
    assert python(program).stdout.split() == ["0", "2"]
