"""HEIC images met by `embed` first without and then with the extra `heic`."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli
from archiveprobe.cache.log import FAILURES, Failure, format_failures
from archiveprobe.task.config import load_task
from archiveprobe.task.manifest import read_manifest

pillow_heif = pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
TASK = """
name = "phones"
labels = ["a", "b"]
[images]
root = "."
[embed]
backbones = ["hog"]
views = "center"
"""


def embed(folder: Path, workers: int = 0) -> Result:
    words = ["embed", str(folder), "--workers", str(workers), "--json"]
    done = CliRunner().invoke(cli.main, words)
    assert done.exit_code == 0, done.stderr
    return done


@pytest.mark.proves("images")
def test_what_waits_for_the_extra_is_embedded_once_it_is_here_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        image = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
        file = tmp_path / "ab"[number % 2] / f"{number}.{'heic' if number > 5 else 'png'}"
        file.parent.mkdir(exist_ok=True)
        out = io.BytesIO()
        if number > 5:
            pillow_heif.from_pillow(image).save(out)
        else:
            image.save(out, "PNG")
        file.write_bytes(out.getvalue())
        os.utime(file, (1e9, 1e9))
    (tmp_path / "task.toml").write_text(TASK)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        done = embed(tmp_path)
        counts = json.loads(done.stdout)
        assert (counts["embedded"], counts["failed"]) == (6, 2)
        assert "2 HEIC images: pip install 'archiveprobe[heic]', then run embed" in done.stderr
        assert json.loads(embed(tmp_path).stdout)["embedded"] == 0
    (cache,) = (tmp_path / "work/cache").iterdir()
    # Earlier versions kept it as a failure for good.
    entries = [entry for entry in read_manifest(load_task(tmp_path)) if not entry.usable]
    old = {bytes.fromhex(entry.digest): Failure(entry.status, "HEIC") for entry in entries}
    with (cache / FAILURES).open("ab") as stream:
        stream.write(format_failures(old))
    shards = sorted((cache / "shards").iterdir())
    # In a decoder process too.
    counts = json.loads(embed(tmp_path, workers=1).stdout)
    assert (counts["embedded"], counts["reused"], counts["failed"]) == (2, 6, 0)
    assert list((tmp_path / "work/cache").iterdir()) == [cache]
    assert set(shards) < set((cache / "shards").iterdir())
    again = json.loads(embed(tmp_path).stdout)
    assert (again["embedded"], again["reused"], again["failed"]) == (0, 8, 0)
