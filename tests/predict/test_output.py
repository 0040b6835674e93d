"""No command's `-o` replaces what is the task's own, nor an image; every such command is walked."""

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from archiveprobe import cli
from archiveprobe.task.config import load_task

PNG = b"\x89PNG\r\n\x1a\n and so on"
# Every command with an -o, and what else it needs.
WRITERS = {
    ("predict",): ["--system", "ridge-hog"],
    ("submit",): ["--system", "ridge-hog"],
    ("submit", "--answers"): ["--answers", "{folder}/answers.csv"],
    ("cache", "export"): ["--overwrite"],
    ("cache", "duplicates"): [],
    ("mistakes",): ["--system", "ridge-hog"],
    ("rank",): ["--system", "ridge-hog"],
    ("export",): ["--system", "ridge-hog"],
    ("look",): [],
    ("review",): ["--system", "ridge-hog"],
}
OWN = {
    "task.toml": "a task file",
    "other.toml": "a task file",
    "recipe.toml": "a recipe",
    "labels.csv": "the table",
    "others.csv": "the table",
    "corrected.csv": "the corrections",
    "form.csv": "the template",
    "own.safetensors": "the weights of backbone 'own'",
    "images/000.jpg": "an image",
    "images/095.jpg": "the image '095.jpg'",
    "images/../images/001.jpg": "an image",
    "linked.csv": "an image",
    "hard.csv": "the image '003.jpg'",
    "folder-link/004.jpg": "an image",
    "broken-link.csv": "the image '095.jpg'",
    "elsewhere.csv": "an image",
    "elsewhere.jpg": "an image",
    "work": "is a folder",
    "work/manifest.csv": "only products",
    "work/folds.csv": "only products",
    "work/new.csv": "only products",
    "work/runs/ridge-hog/run.json": "only products",
    "work/finetune/quick/fold-0/state/last": "only products",
    "work/deep/new/file.csv": "only products",
    "work-link/new.csv": "only products",
    "pipe": "no ordinary file",
}


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def commands_with_output(
    group: click.Group = cli.main, before: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_with_output(command, (*before, name))
        elif {"-o", "task"} <= {word for each in command.params for word in each.opts}:
            yield (*before, name)


def content(folder: Path) -> dict[str, bytes | str]:
    """Every file below a folder, and where every link leads."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


@pytest.fixture
def full(archive) -> Path:
    """An archive with one of everything that may be a task's own."""
    folder: Path = archive.folder
    archive.template([["image", "label"], *([id_, ""] for id_ in archive.test_ids)])
    (folder / "corrected.csv").write_text("id,label\n")
    head = 'corrections = "corrected.csv"\n' + (folder / "task.toml").read_text()
    weights = '[backbone.own]\nlibrary = "timm"\nname = "resnet18"\nweights = "own.safetensors"\n'
    (folder / "task.toml").write_text(f"{head}{weights}")
    (folder / "own.safetensors").write_bytes(b"weights")
    (folder / "recipe.toml").write_text("epochs = 1\n")
    other = 'name = "other"\nlabels = ["a", "b"]\n[images]\ntable = "others.csv"\n'
    (folder / "other.toml").write_text(other)
    (folder / "others.csv").write_text("image,label\n")
    answers = zip(archive.test_ids, archive.test_truth, strict=True)
    archive.write_csv("answers.csv", [["id", "label"], *answers])
    (folder / "images" / "095.jpg").unlink()
    (folder / "linked.csv").symlink_to("images/002.jpg")
    (folder / "hard.csv").hardlink_to(folder / "images" / "003.jpg")
    (folder / "folder-link").symlink_to("images")
    (folder / "broken-link.csv").symlink_to("images/095.jpg")
    (folder / "elsewhere.csv").write_bytes(PNG)
    (folder / "elsewhere.jpg").write_bytes(b"")
    checkpoint = folder / "work/finetune/quick/fold-0/state/last"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"state")
    (folder / "work-link").symlink_to("work")
    os.mkfifo(folder / "pipe")
    return folder


def words_of(command: tuple[str, ...], folder: Path) -> list[str]:
    name = [word for word in command if not word.startswith("-")]
    return [*name, str(folder), *(word.format(folder=folder) for word in WRITERS[command])]


@pytest.mark.proves("answers")
def test_every_command_with_an_output_is_walked() -> None:
    walked = {tuple(word for word in command if word[0] != "-") for command in WRITERS}
    assert set(commands_with_output()) == walked


@pytest.mark.proves("answers")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
def test_what_is_the_tasks_own_is_refused_in_one_line(full, command) -> None:
    words, before = words_of(command, full), content(full)
    for name, what in OWN.items():
        done = run(*words, "-o", full / name)
        assert done.exit_code == 1, (name, done.stderr, done.exception)
        assert not done.stdout, name
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and name in line and what in line, line
        assert line.endswith(("name another file with -o", "name a file in it with -o")), line
        assert content(full) == before, name


@pytest.mark.parametrize("command", WRITERS, ids=" ".join)
@pytest.mark.parametrize("place", ["out.csv", "new/out.csv", "images/out.csv", "old.csv"])
def test_anything_else_is_written(full, command, place) -> None:
    """Otherwise the refusals above would prove nothing."""
    if command == ("look",):
        place = place.replace(".csv", ".html")
    (full / "new").mkdir()
    (full / "old.csv").write_text("old answers")
    before = content(full)
    done = run(*words_of(command, full), "-o", full / place)
    assert done.exit_code == 0, done.stderr
    after = content(full)
    assert after.pop(place) != before.pop(place, None)
    assert {name: after[name] for name in before} == before


def test_a_submission_does_not_replace_the_answers_it_is_made_of(full) -> None:
    answers, before = full / "answers.csv", content(full)
    done = run("submit", full, "--answers", answers, "-o", full / "images" / ".." / "answers.csv")
    assert done.exit_code == 1
    assert "a file that this command reads" in done.stderr
    assert content(full) == before


@pytest.mark.parametrize(
    "command", [("predict",), ("submit",), ("submit", "--answers"), ("mistakes",)]
)
def test_the_copy_for_spreadsheets_replaces_nothing_either(full, command) -> None:
    settings = (full / "task.toml").read_text().replace("form.csv", "out.spreadsheet.csv")
    (full / "form.csv").rename(full / "out.spreadsheet.csv")
    (full / "task.toml").write_text(settings)
    before = content(full)
    done = run(*words_of(command, full), "-o", full / "out.csv", "--spreadsheet-safe")
    assert done.exit_code == 1
    assert "out.spreadsheet.csv is the template" in done.stderr
    assert content(full) == before


def test_new_images_are_not_replaced(full, tmp_path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "a.png").write_bytes(PNG)
    (tmp_path / "link").symlink_to(new / "a.png")
    for name in ("new/a.png", "link"):
        words = words_of(("predict",), full)
        done = run(*words, "--images", new, "-o", tmp_path / name)
        assert "is an image" in done.stderr
    assert (new / "a.png").read_bytes() == PNG


def test_a_task_without_a_table(full) -> None:
    """A new file with an image's name would be one of its images from then on."""
    file = full / "task.toml"
    text = file.read_text().replace('table = "labels.csv"\nsplit = "split"\n', "")
    file.write_text(text.replace('template = "form.csv"\n', ""))
    for number in (0, 1):
        place = full / "images" / ("intact", "destroyed")[number]
        place.mkdir()
        (full / "images" / f"00{number}.jpg").rename(place / "a.jpg")
    assert load_task(file).table is None
    for name in ("images/new.jpg", "images/intact/new.PNG", "images/intact/a.jpg"):
        done = run("cache", "export", full, "-o", full / name, "--overwrite")
        assert done.exit_code == 1
        assert "image" in done.stderr and done.stderr.endswith("with -o\n")
    assert not (full / "images" / "new.jpg").exists()


def test_a_loop_of_links_is_one_line(full) -> None:
    (full / "loop").symlink_to("loop")
    done = run(*words_of(("predict",), full), "-o", full / "loop" / "out.csv")
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "-o" in done.stderr


def test_a_damaged_table_is_no_obstacle(full) -> None:
    """Of another task in the folder: it is protected, and its rows are nobody's matter."""
    (full / "others.csv").write_bytes(b"\xff\xfe\x00")
    assert run(*words_of(("predict",), full), "-o", full / "out.csv").exit_code == 0
    assert run(*words_of(("predict",), full), "-o", full / "out.csv").exit_code == 0
    assert "the table" in run(*words_of(("predict",), full), "-o", full / "others.csv").stderr


def test_a_page_has_the_ending_of_a_page(full) -> None:
    done = run("look", full, "-o", full / "page.csv")
    assert done.exit_code == 1 and "a page ends in .html" in done.stderr
    assert not (full / "page.csv").exists()
