"""Runs under a real limit on memory: one line and what is done, or smaller batches."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from snapshots import current_cache

from archiveprobe.cache.store import Reader

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the limit is Linux's (RLIMIT_DATA)"
)
ROOT = Path(__file__).resolve().parents[2]
# What the process has when everything is imported, and so much more.
PROGRAM = """
import re, resource, sys
from archiveprobe.cli import main
timm
import archiveprobe.embed.run, PIL.Image
spare, words = int(sys.argv[1]), sys.argv[2:]
has = 1024 * int(re.search(r"VmData:\\s*(\\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_DATA, (has + (spare << 20),) * 2)
main(words)
"""
OWN = """
[backbone.own]
library = "timm"
name = "{name}"
weights = "random"
preprocess = {{ size = {size}, resize = {size}, mean = [0, 0, 0], std = [1, 1, 1] }}
"""


def embed_within(spare: int, task: Any, *words: str) -> subprocess.CompletedProcess[str]:
    """Run embed with `spare` MB more than its libraries take."""
    arguments = ["embed", str(task.folder), "--workers", "0", "--precision", "fp32", *words]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(spare), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_weights_that_do_not_fit_are_one_line(archive) -> None:
    archive.add_drawn(range(2))
    task = archive.task(["own"], settings=OWN.format(name="vit_base_patch16_224", size=224))
    done = embed_within(150, task)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: out of memory loading ")
    assert done.stdout == ""


def test_batches_that_do_not_fit_are_halved(archive) -> None:
    archive.add_drawn(range(24))
    task = archive.task(["own"], settings=OWN.format(name="test_resnet", size=512))
    done = embed_within(400, task, "--batch-size", "24")
    assert done.returncode == 0, done.stderr
    assert "out of memory: batch halved to 12" in done.stderr
    record = current_cache(task, "own")
    assert record is not None
    assert Reader(record.folder).rows == 24


def test_a_crop_that_does_not_fit_is_one_line(archive) -> None:
    archive.add_drawn(range(2))
    task = archive.task(["own"], settings=OWN.format(name="test_resnet", size=3072))
    done = embed_within(250, task)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: out of memory ")
    assert done.stdout == ""
