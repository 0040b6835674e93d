"""The drawn archive with systems, and what a page shows of it; copies of it to be changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from archiveprobe.demo.archive import write_demo
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.run import embed
from archiveprobe.look.collect.collection import Collection
from archiveprobe.look.collect.run import collect
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import Task, load_task

MADE = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Draw an archive and fit three probes and their ensemble; nobody may change it."""
    folder = tmp_path_factory.mktemp("looked") / "archive"
    write_demo(folder, count=80)
    task = load_task(folder)
    embed(task, EmbedOptions(workers=0))
    run_probes(task, Options(probes=("ridge", "logistic", "lda"), workers=1))
    return task


@pytest.fixture(scope="session")
def demo_collection(task: Task) -> Collection:
    return collect(task, made=MADE)


@pytest.fixture
def copied(task: Task, tmp_path: Path) -> Callable[[], Task]:
    """Return the task of a copy: free to be changed, and read again with every call."""
    shutil.copytree(task.folder, tmp_path / "archive")
    return lambda: load_task(tmp_path / "archive")
