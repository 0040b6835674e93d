"""rank over a folder of answers whose embeddings are kept: found by content in the cache."""

import csv
from pathlib import Path

import pyarrow as pa
import pytest
from stripes import answer_of, done, run
from unit_archive import fit, picture, pictured_task

from archiveprobe.predict.answers.read import iterate_parts


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task with a system, whose answers for nine images lie beside it, two files equal."""
    folder = tmp_path_factory.mktemp("ranked") / "task"
    fit(pictured_task(folder), "ridge")
    new = folder.parent / "new"
    new.mkdir()
    for at in range(8):
        (new / f"{at}.png").write_bytes(picture(100 + at))
    (new / "copy.png").write_bytes(picture(103))
    (new / "broken.png").write_text("no image")
    words = ("predict", folder, "--system", "ridge-hog", "--images", new, "--workers", "0")
    done(*words, "--keep-embeddings", "-o", folder.parent / "answers")
    return folder


def test_a_folder_of_answers_is_ranked(task: Path) -> None:
    folder = task.parent / "answers"
    rows = pa.concat_tables(iterate_parts(folder)).to_pylist()
    p = {row["id"]: row["p_dark"] for row in rows if row["p_dark"] is not None}
    assert len(p) == 9 and len(rows) == 10
    report = answer_of("rank", task, folder, "--label", "dark", "--all-duplicates")
    assert [image["id"] for image in report["images"]] == sorted(p, key=lambda id_: -p[id_])
    assert "ridge-hog decides at" in done("rank", task, folder, "--by", "uncertain").stderr


def test_kept_embeddings_rank_by_likeness_and_type(task: Path) -> None:
    folder = task.parent / "answers"
    report = answer_of("rank", task, folder, "--like", "5.png", "--top", 3)
    assert report["candidates"] == 8 and "5.png" not in [each["id"] for each in report["images"]]
    # The copy is the image itself.
    report = answer_of("rank", task, folder, "--like", "copy.png")
    assert not {"3.png", "copy.png"} & {each["id"] for each in report["images"]}
    assert sum(each["copies"] for each in report["images"]) == 7
    typical = answer_of("rank", task, folder, "--by", "typical", "--label", "bright")["images"]
    assert typical and {each["label"] for each in typical} == {"bright"}


def test_near_duplicates_of_the_archive_are_listed_with_those_of_the_table(task: Path) -> None:
    file = task.parent / "duplicates.csv"
    report = answer_of("cache", "duplicates", task, "--similarity", "0.5", "-o", file)
    # 24 images of the table, and 8 of the archive that are unlike in bytes.
    assert report["images"] == 32
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    assert {bool(row["id"]) for row in rows} == {True, False}
    firsts = [
        row for at, row in enumerate(rows) if at == 0 or rows[at - 1]["group"] != row["group"]
    ]
    assert all(row["similarity"] == "1.0" for row in firsts)


@pytest.mark.proves("damage")
def test_a_damaged_part_is_never_ranked(task: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "answers"
    shutil.copytree(task.parent / "answers", folder)
    part = next(folder.rglob("0*.parquet"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    found = run("rank", task, folder)
    assert found.exit_code == 1 and found.stdout == "" and part.name in found.stderr
    assert len(found.stderr.splitlines()) == 1
