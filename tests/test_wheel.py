"""The wheel: one package, in an environment and a folder full of names like those of its rooms."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIKE_OURS = ("task", "cache", "predict", "evaluate", "probe")


def run(words: list[object], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an environment with the wheel and Hugging Face's `evaluate`, nothing else.

    The dependencies come from this environment, whose own archiveprobe (an editable install) is
    not on the path.
    """
    place = tmp_path_factory.mktemp("wheel")
    tracked = run(["git", "ls-files", "-co", "--exclude-standard"], ROOT)
    if tracked.returncode:
        pytest.skip("no git checkout to build the wheel from")
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / "source" / name)
    index = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]
    built = run([*pip, "wheel", "--no-deps", "-w", place, place / "source"], place, **index)
    fetched = run([*pip, "download", "--no-deps", "-d", place, "evaluate==0.4.6"], place, **index)
    for done in (built, fetched):
        if done.returncode and "No matching distribution" in done.stderr + done.stdout:
            pytest.skip("no package index can be reached")
        assert done.returncode == 0, done.stderr
    run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], place)
    python = place / "venv" / "bin" / "python"
    (site,) = (place / "venv").rglob("site-packages")
    run([*pip, "--python", python, "install", "--no-deps", *place.glob("*.whl")], place)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_it_installs_one_name_only(installed: Path) -> None:
    (site,) = installed.parents[1].rglob("site-packages")
    (record,) = site.glob("archiveprobe-*.dist-info/RECORD")
    tops = {line.split(",")[0].split("/")[0] for line in record.read_text().splitlines()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"archiveprobe", ".."}
    assert (site / "archiveprobe" / "py.typed").is_file()
    assert "HuggingFace" in (site / "evaluate" / "__init__.py").read_text()


def test_the_demo_runs_beside_modules_of_the_same_names(installed: Path, tmp_path: Path) -> None:
    for name in LIKE_OURS:
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the module beside the notebook')")
    command = [installed, "-m", "archiveprobe"]
    drawn = run([*command, "demo", "archive"], tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    for words in (["embed"], ["probe", "--probe", "ridge"], ["list", "recipes"]):
        place = [] if words[0] == "list" else ["archive"]
        done = run([*command, words[0], *place, *words[1:]], tmp_path)
        assert done.returncode == 0, done.stderr
    assert "demo-tiny" in done.stdout
    line = "import archiveprobe as ap; print(ap.open('archive').oof('ridge-hog').shape)"
    done = run([installed, "-W", "error", "-P", "-c", line], tmp_path)
    assert (done.stdout, done.stderr) == ("(320, 7)\n", "")
    script = run([installed.with_name("archiveprobe"), "--version"], tmp_path)
    assert script.stdout.startswith("archiveprobe "), script.stderr
