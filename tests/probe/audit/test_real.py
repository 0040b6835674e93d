"""Real images, whose rows to predict are from other sources: the shift must be seen."""

import csv
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from archiveprobe.embed.run import Options, embed
from archiveprobe.probe.audit.duplicates import EMBEDDINGS
from archiveprobe.probe.audit.run import run_audit
from archiveprobe.task.config import Task, load_task

pytestmark = pytest.mark.real
LABELLED, TO_PREDICT = 60, 40


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
    """Some labelled rows, some rows to predict, and a mirror image that the hash cannot see."""
    source = Path(__file__).parents[4] / "shared/data/vehicle_severity"
    if not source.is_dir():
        pytest.skip(f"no real images at {source}")
    folder = tmp_path_factory.mktemp("real")
    with (source / "labels.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    test = [row for row in rows if row[2] == "test"]
    kept = [*[row for row in rows if row[2] == "train"][:LABELLED], *test[:TO_PREDICT]]
    (folder / "images").mkdir()
    for name, _, _ in kept:
        (folder / "images" / name).write_bytes((source / "images" / name).read_bytes())
    with Image.open(source / "images" / kept[0][0]) as image:
        ImageOps.mirror(image.convert("RGB")).save(folder / "images" / "mirror.png")
    kept.append(["mirror.png", kept[0][1], "train"])
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "label", "split"], *kept])
    (folder / "task.toml").write_text(
        'name = "real"\nlabels = ["not_destruction", "destruction"]\n[images]\n'
        'table = "labels.csv"\nsplit = "split"\n[embed]\nbackbones = ["hog"]\nviews = "crops6"\n'
        "[folds]\nrepeats = 1\n"
    )
    made = load_task(folder)
    embed(made, Options(workers=0, device="cpu"))
    return made


def test_other_sources_and_a_mirror_image_are_seen(task):
    record = run_audit(task).record()
    assert record["shift"]["auc"] > 0.95
    assert any("may not hold" in warning for warning in record["warnings"])
    groups = record["duplicate_groups"]
    mirrored = [group for group in groups if "mirror.png" in group["ids"]]
    assert [(len(group["ids"]), group["found_by"]) for group in mirrored] == [(2, EMBEDDINGS)]
    assert len(groups) <= 3
