"""From a folder as people bring it to a file as they hand it in: init, embed, probe, submit."""

import csv
import io
import json
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from layouts import GERMAN, LAYOUTS, Drawn, draw

from archiveprobe.cli import main

IMAGES = 90


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Drawn]:
    return draw(tmp_path_factory.mktemp("drawn") / "archive", IMAGES)


@pytest.fixture
def brought(request: pytest.FixtureRequest, images: list[Drawn], tmp_path: Path) -> Path:
    """The archive in the layout that the test is about."""
    folder = tmp_path / "archive"
    folder.mkdir()
    LAYOUTS[request.param](images, folder)
    return folder


def run(*words: object, status: int = 0) -> Result:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == status, done.output
    return done


def walk(folder: Path, *init: object) -> dict[str, Any]:
    """Go as far as one stored system, and return what `probe --json` says."""
    run("init", folder, *init)
    embedded = json.loads(run("embed", folder, "--workers", 0, "--json").stdout)
    # The drawn archive has two files that nobody can read.
    assert embedded["images"] == IMAGES
    assert embedded["failed"] <= 2
    return json.loads(run("probe", folder, "--probe", "ridge", "--json").stdout)


def cells(content: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content)))


def asked(images: list[Drawn]) -> list[Drawn]:
    return [image for image in images if image.split == "test"]


@pytest.mark.parametrize("brought", ["kaggle"], indirect=True)
def test_kaggle_gets_probabilities_in_the_order_of_the_sample(
    brought: Path, images: list[Drawn]
) -> None:
    walk(brought)
    file = brought.parent / "submission.csv"
    run("submit", brought, "--system", "ridge-hog", "-o", file)
    header, *rows = cells(file.read_text("utf-8"))
    assert header == ["id", "destruction"]
    assert [row[0] for row in rows] == [image.stem for image in asked(images)]
    shares = [float(row[1]) for row in rows]
    assert all(0 <= share <= 1 for share in shares)
    assert len(set(shares)) > len(shares) / 2
    scored = run("score", brought, file, "--truth", brought.parent / "solution.csv", "--json")
    assert json.loads(scored.stdout)["n"] == len(rows)
    truth = [image.label == "destruction" for image in asked(images)]
    yes = [share for share, is_yes in zip(shares, truth, strict=True) if is_yes]
    no = [share for share, is_yes in zip(shares, truth, strict=True) if not is_yes]
    # The positive label's probability, not the other one's.
    assert sum(yes) / len(yes) > sum(no) / len(no)


@pytest.mark.parametrize("brought", ["codabench"], indirect=True)
def test_codabench_gets_a_zip_with_label_names(brought: Path, images: list[Drawn]) -> None:
    walk(brought)
    file = brought.parent / "sub.zip"
    run("submit", brought, "--system", "ridge-hog", "-o", file)
    with zipfile.ZipFile(file) as archive:
        (name,) = archive.namelist()
        header, *rows = cells(archive.read(name).decode())
    assert header == ["image", "label"]
    assert [row[0] for row in rows] == [image.name for image in asked(images)]
    assert {row[1] for row in rows} == {"destruction", "not_destruction"}


@pytest.mark.parametrize("brought", ["imagefolder"], indirect=True)
def test_rows_of_a_test_folder_are_predicted_and_never_trained_on(
    brought: Path, images: list[Drawn]
) -> None:
    said = run("init", brought).stderr
    assert "val" in said
    walk(brought, "--force")
    file = brought.parent / "answers.csv"
    run("submit", brought, "--system", "ridge-hog", "-o", file)
    _, *rows = cells(file.read_text("utf-8"))
    assert sorted(row[0].rpartition("/")[2] for row in rows) == sorted(
        image.name for image in asked(images)
    )
    assert json.loads(run("score", brought, file, "--json").stdout)["n"] == len(rows)


@pytest.mark.parametrize("brought", ["class_folders"], indirect=True)
def test_folders_with_umlauts_are_labels(brought: Path, images: list[Drawn]) -> None:
    board = walk(brought, "--positive", "Zerstört")
    assert board["leaderboard"][0]["macro_f1"] > 0.5
    file = brought.parent / "answers.csv"
    run("submit", brought, "--system", "ridge-hog", "-o", file)
    _, *rows = cells(file.read_text("utf-8"))
    assert len(rows) == len(asked(images))
    assert {unicodedata.normalize("NFC", row[1]) for row in rows} <= {*GERMAN.values()} - {""}


@pytest.mark.parametrize("brought", ["spreadsheet", "spreadsheet_cp1252"], indirect=True)
def test_a_spreadsheet_names_images_without_extension_in_any_folder(
    brought: Path, images: list[Drawn]
) -> None:
    walk(brought, "--positive", "Zerstört")
    listed = json.loads(run("list", "systems", brought, "--json").stdout)["systems"]
    assert [line["state"] for line in listed] == ["ok"]
    file = brought.parent / "answers.csv"
    run("submit", brought, "--system", "ridge-hog", "-o", file)
    _, *rows = cells(file.read_text("utf-8"))
    # Whoever reads the answers finds the names of the own sheet.
    assert [row[0] for row in rows] == [image.stem.upper() for image in asked(images)]


@pytest.mark.parametrize("brought", ["huggingface"], indirect=True)
def test_a_metadata_file_in_every_split_folder(brought: Path, images: list[Drawn]) -> None:
    walk(brought)
    file = brought.parent / "answers.csv"
    run("submit", brought, "--system", "ridge-hog", "-o", file)
    _, *rows = cells(file.read_text("utf-8"))
    assert sorted(row[0].rpartition("/")[2] for row in rows) == sorted(
        image.name for image in asked(images)
    )
