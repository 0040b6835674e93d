"""`decode` of [embed]: caches of its own, and everything is looked at again."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from archiveprobe.cache.reader import Reader
from archiveprobe.cli import main
from archiveprobe.embed.hog import Hog
from archiveprobe.embed.networks import geometry_of
from archiveprobe.embed.prepare import Preparation, prepare
from archiveprobe.embed.preprocess import Geometry, Preprocess, geometry_of_record
from archiveprobe.embed.view_sets import view_set
from archiveprobe.task.config import load_task
from archiveprobe.task.decoding import decode, digest
from archiveprobe.task.manifest import read_manifest

SIZE = (1100, 1030)
HEAD = """name = "large"
labels = ["no", "yes"]
positive = "yes"
[folds]
count = 2
repeats = 1
[embed]
backbones = ["hog"]
views = "center"
"""


@pytest.fixture
def large(tmp_path: Path, draw) -> Path:
    """A task of four JPEGs that "fast" halves, and a PNG."""
    for number in range(5):
        file = tmp_path / "images" / ("no", "yes")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = draw(number).resize(SIZE, Image.Resampling.BICUBIC)
        image.save(file, "PNG" if number == 4 else "JPEG")
    (tmp_path / "task.toml").write_text(HEAD)
    return tmp_path


def embed(folder: Path, how: str | None = None) -> dict:
    if how is not None:
        (folder / "task.toml").write_text(HEAD + f'decode = "{how}"\n')
    result = CliRunner().invoke(main, ["embed", str(folder), "--workers", "0", "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def rows(folder: Path, how: str) -> dict[bytes, np.ndarray]:
    [cache] = embed(folder, how)["caches"]
    reader = Reader(folder / cache["path"])
    keys = sorted(reader.keys)
    return dict(zip(keys, reader.read(keys)[1], strict=True))


def test_each_has_a_cache_of_its_own(large: Path) -> None:
    exact = embed(large)
    fast = embed(large, "fast")
    assert (exact["embedded"], fast["embedded"]) == (5, 5)
    assert fast["caches"][0]["path"] != exact["caches"][0]["path"]
    # Exact is the default, and what was there before there was a choice.
    again = embed(large, "exact")
    assert (again["embedded"], again["caches"][0]["path"]) == (0, exact["caches"][0]["path"])


def test_only_large_jpegs_have_other_rows(large: Path) -> None:
    exact, fast = rows(large, "exact"), rows(large, "fast")
    assert exact.keys() == fast.keys()
    same = {key for key in exact if np.array_equal(exact[key], fast[key])}
    assert same == {bytes.fromhex(digest((large / "images" / "no" / "4.jpg").read_bytes()))}
    for key, row in exact.items():
        assert np.vdot(row, fast[key]) > 0.98 * np.linalg.norm(row) * np.linalg.norm(fast[key])


def test_observations_are_made_again_and_sizes_stay(large: Path) -> None:
    embed(large)
    before = read_manifest(load_task(large))
    embed(large, "fast")
    after = read_manifest(load_task(large))
    assert [(e.observed.width, e.observed.height) for e in after] == [SIZE] * 5
    assert [e.status for e in after] == [e.status for e in before]
    assert [e.observed for e in after] != [e.observed for e in before]
    embed(large, "exact")
    assert [e.observed for e in read_manifest(load_task(large))] == [e.observed for e in before]


def test_dry_run_and_recompute_follow_it(large: Path) -> None:
    embed(large, "fast")
    result = CliRunner().invoke(main, ["embed", str(large), "--dry-run", "--json"])
    assert json.loads(result.stdout)["to_decode"] == 0
    result = CliRunner().invoke(main, ["cache", "verify", str(large), "--recompute", "3"])
    assert result.exit_code == 0, result.output


def test_another_word_is_refused_in_one_line(large: Path) -> None:
    (large / "task.toml").write_text(HEAD + 'decode = "quick"\n')
    result = CliRunner().invoke(main, ["embed", str(large)])
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert "embed.decode" in line
    assert "exact" in line
    assert "fast" in line


def test_views_of_both_from_one_file(large: Path) -> None:
    file = large / "images" / "no" / "0.jpg"
    exact, fast = (geometry_of(Hog("hog", how)) for how in ("exact", "fast"))
    views = {exact: view_set("center"), fast: view_set("center")}
    for how in ("exact", "fast"):
        preparation = Preparation(file.parent, views, decode=how)
        image = prepare(file.name, digest(file.read_bytes()), preparation)
        assert image.observation == decode(file.read_bytes(), how).observation
        assert not np.array_equal(image.views[exact].crops, image.views[fast].crops)
        for geometry in (exact, fast):
            lone = Preparation(file.parent, {geometry: views[geometry]}, decode=geometry.decode)
            expected = prepare(file.name, digest(file.read_bytes()), lone).views[geometry]
            assert np.array_equal(image.views[geometry].crops, expected.crops)


def test_records_of_the_default_are_those_of_before() -> None:
    still = Preprocess(Geometry(8, 9), (0.0,) * 3, (1.0,) * 3)
    assert "decode" not in still.record()
    for preprocess in (still, still.decoded("fast")):
        assert geometry_of_record(preprocess.record()) == preprocess.geometry
