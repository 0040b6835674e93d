"""A drawn archive with embeddings and systems, which the examples and the tests share."""

import shutil
from pathlib import Path

import pytest

import archiveprobe as ap
from archiveprobe.archive.source import open_source
from archiveprobe.demo.archive import write_demo
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.run import embed
from archiveprobe.predict.archive import How, predict_folder
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import load_task

PROBES = ("ridge", "lda", "knn")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the archive my/photographs, and answers; nobody may change it."""
    folder = tmp_path_factory.mktemp("home")
    archive = folder / "my" / "photographs"
    write_demo(archive, count=100)
    file = archive / "task.toml"
    file.write_text(file.read_text("utf-8").replace('"crops6"', '"flip"'), "utf-8")
    embed(load_task(archive), EmbedOptions(workers=0, device="cpu"))
    run_probes(load_task(archive), Options(probes=PROBES, workers=1))
    source, how = open_source(str(archive / "images" / "agency")), How(device="cpu", workers=0)
    predict_folder(load_task(archive), "ridge-hog", source, folder / "my" / "answers", how)
    return folder


@pytest.fixture
def task(home: Path) -> "ap.Task":
    return ap.open(home / "my" / "photographs")


@pytest.fixture
def archive(home: Path, tmp_path: Path) -> Path:
    """A copy of the archive, free to be changed."""
    return Path(shutil.copytree(home / "my" / "photographs", tmp_path / "archive"))
