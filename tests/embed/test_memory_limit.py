"""Runs under a real limit on memory: one line and what is done, or smaller batches."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from counted import Archive
from snapshots import current_cache

from archiveprobe.cache.store import Reader
from archiveprobe.task.config import load_task

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the limit is Linux's (RLIMIT_DATA)"
)
# The libraries are imported once; each run is a fork, which may have so much more than it has then.
PROGRAM = """
import json, os, re, resource, sys
from archiveprobe.cli import main
from archiveprobe.embed.libraries import make_torchvision_importable
make_torchvision_importable()
import timm, PIL.Image, archiveprobe.embed.run

def within(spare, words):
    has = 1024 * int(re.search(r"VmData:\\s*(\\d+)", open("/proc/self/status").read())[1])
    resource.setrlimit(resource.RLIMIT_DATA, (has + (spare << 20),) * 2)
    main(words)

for folder, spare, words in json.loads(sys.argv[1]):
    pid = os.fork()
    if not pid:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY), number)
        within(spare, ["embed", folder, "--workers", "0", "--precision", "fp32", *words])
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    open(f"{folder}/code", "w").write(str(code))
"""
OWN = """
[backbone.own]
library = "timm"
name = "{name}"
weights = "random"
preprocess = {{ size = {size}, resize = {size}, mean = [0, 0, 0], std = [1, 1, 1] }}
"""
# Network, side of its input, rows, MB more than the libraries take, options.
RUNS = {
    "weights": ("vit_base_patch16_224", 224, 2, 150, []),
    "batch": ("test_resnet", 512, 24, 400, ["--batch-size", "24"]),
    "crop": ("test_resnet", 3072, 2, 250, []),
}


class Done(NamedTuple):
    """The output of one run."""

    folder: Path
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Callable[[str], Done]:
    root = tmp_path_factory.mktemp("limited")
    orders = []
    for run, (name, size, rows, spare, words) in RUNS.items():
        archive = Archive(root / run)
        archive.add_drawn(range(rows))
        archive.task(["own"], settings=OWN.format(name=name, size=size))
        orders.append((str(archive.folder), spare, words))
    subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(orders)], check=True, timeout=600)

    def read(run: str) -> Done:
        folder = root / run
        code, out, err = ((folder / name).read_text() for name in ("code", "out", "err"))
        return Done(folder, int(code), out, err)

    return read


@pytest.mark.proves("memory")
@pytest.mark.parametrize(
    ("run", "message"),
    [("weights", "error: out of memory loading "), ("crop", "error: out of memory ")],
)
def test_what_does_not_fit_is_one_line(done, run, message) -> None:
    found = done(run)
    assert (found.code, found.out) == (1, "")
    assert "Traceback" not in found.err
    assert found.err.splitlines()[-1].startswith(message)


@pytest.mark.proves("memory")
def test_batches_that_do_not_fit_are_halved(done) -> None:
    found = done("batch")
    assert found.code == 0, found.err
    assert "out of memory: batch halved to 12" in found.err
    record = current_cache(load_task(found.folder), "own")
    assert record is not None
    assert Reader(record.folder).rows == 24
