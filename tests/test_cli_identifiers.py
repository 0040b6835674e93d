"""Ids that are no paths, from the user's side: embed, copy work/ to a laptop, probe, submit."""

import shutil

from stripes import answer_of, done, draw_stripes, read_csv, run, write_csv

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.task.config import load_task

TASK = """
name = "stripes"
labels = ["across", "down"]
positive = "down"
[images]
table = ["train.csv", "test.csv"]
[folds]
count = 3
repeats = 2
group = "none"
[embed]
backbones = ["hog"]
views = "center"
"""


def drawn(folder):
    """A task of ids without extension, by another case, and absolute on another machine."""
    rows = {"train": [["image", "label"]], "test": [["image"]]}
    for number in range(36):
        table = "train" if number < 30 else "test"
        label = draw_stripes(folder / "images" / table / f"img_{number:04}.png", number)
        id_ = (f"img_{number:04}", f"IMG_{number:04}.PNG", f"C:\\x\\images\\img_{number:04}.png")
        rows[table].append([id_[number % 3], label][: len(rows[table][0])])
    for table, lines in rows.items():
        write_csv(folder / f"{table}.csv", lines)
    (folder / "task.toml").write_text(TASK)


def test_found_files_are_known_without_the_images(tmp_path):
    drawn(tmp_path / "gpu")
    embedded = done("embed", tmp_path / "gpu")
    assert "36 of 36 rows name their file in another way" in embedded.stderr
    assert "without its extension (12)" in embedded.stderr
    assert "train.csv (read as train) 30 rows, test.csv (read as test) 6" in embedded.stderr
    task = load_task(tmp_path / "gpu")
    dataset = load_dataset(task)
    entries = (*dataset.labelled.entries, *dataset.unlabelled.entries)
    assert all((task.root / entry.path).is_file() for entry in entries)  # for fine-tuning
    away = shutil.ignore_patterns("images")
    shutil.copytree(tmp_path / "gpu", tmp_path / "laptop", ignore=away)
    best = answer_of("probe", tmp_path / "laptop", "--probe", "ridge")["leaderboard"][0]["system"]
    done("submit", tmp_path / "laptop", "--system", best, "-o", tmp_path / "out.csv")
    _, *answers = read_csv(tmp_path / "out.csv")
    assert [line[0] for line in answers] == [
        line[0] for line in read_csv(tmp_path / "gpu" / "test.csv")[1:]
    ]
    # Where the images are, a few of them are read again before the file is written.
    shutil.copytree(tmp_path / "laptop" / "work", tmp_path / "gpu" / "work", dirs_exist_ok=True)
    here = done("submit", tmp_path / "gpu", "--system", best, "-o", tmp_path / "here.csv")
    assert read_csv(tmp_path / "here.csv")[1:] == answers
    assert "images" in here.stderr + here.stdout
    exported = done("cache", "export", tmp_path / "gpu", "-o", tmp_path / "all.h5")
    assert exported.exit_code == 0


def test_a_table_that_is_added_later_is_answered_by_the_stored_system(tmp_path):
    drawn(tmp_path)
    done("embed", tmp_path)
    best = answer_of("probe", tmp_path, "--probe", "ridge")["leaderboard"][0]["system"]
    later = [["image"]]
    for number in range(100, 104):
        draw_stripes(tmp_path / "images" / "later" / f"new_{number}.png", number)
        later.append([f"new_{number}"])
    write_csv(tmp_path / "test2.csv", later)
    file = tmp_path / "task.toml"
    file.write_text(file.read_text().replace('"test.csv"', '"test.csv", "test2.csv"'))
    waiting = run("submit", tmp_path, "--system", best, "-o", tmp_path / "out.csv")
    assert waiting.exit_code == 1
    assert "4 of 40 rows wait for embed" in waiting.stderr
    done("embed", tmp_path)
    done("submit", tmp_path, "--system", best, "-o", tmp_path / "out.csv")
    labels = dict(line[:2] for line in read_csv(tmp_path / "out.csv")[1:])
    assert len(labels) == 10
    assert [labels[f"new_{number}"] for number in range(100, 104)] == ["across", "down"] * 2
