"""From a correction to the next leaderboard: what is said, and what it does to the figures."""

import shutil
from pathlib import Path

import pytest
from striped_archive import result_of, striped_archive
from stripes import done, run

from archiveprobe.task.config import load_task
from archiveprobe.task.corrections import Correction, record_corrections

# Every eighth image lies in the folder of the other label.
WRONG = ["down/0.png", "down/8.png", "down/16.png", "down/24.png"]
HERE = "corrections.csv: "
PROBE = ("--probe", "ridge")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = striped_archive(tmp_path_factory.mktemp("stripes") / "archive")
    done("probe", folder, *PROBE)
    return folder


@pytest.fixture
def archive(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "archive")


def correct(folder: Path, *corrections: tuple[str, str, str, str]) -> None:
    made = [Correction(id_, label, old, what, "Ana") for id_, label, old, what in corrections]
    record_corrections(load_task(folder), made)


def review(folder: Path) -> None:
    """What a person decides: four labels changed, one kept, one unsure."""
    correct(
        folder,
        *((id_, "across", "down", "change") for id_ in WRONG),
        ("across/2.png", "across", "across", "keep"),
        ("down/3.png", "down", "down", "unsure"),
    )


COUNTS = HERE + "4 labels changed, 1 kept, 1 unsure"


@pytest.mark.proves("corrections")
def test_a_correction_changes_the_next_probe_without_embed(archive: Path) -> None:
    before = result_of("leaderboard", archive)
    assert before["corrections"] is None
    review(archive)
    listed = done("list", "systems", archive)
    assert "out of date: labels" in " ".join(listed.stdout.split())
    assert listed.stderr.count(COUNTS) == 1
    after = result_of("probe", archive, *PROBE)
    assert after["snapshot"] != before["snapshot"]
    assert after["corrections"]["changed"] == 4
    assert (after["corrections"]["kept"], after["corrections"]["unsure"]) == (1, 1)
    line = next(one for one in after["leaderboard"] if one["system"] == after["best"])
    assert line["macro_f1"] > after["corrections"]["macro_f1_table"]
    said, compared = after["warnings"][:2]
    assert said == COUNTS
    assert compared == (
        f"corrections changed 4 of 48 labels: {after['best']} scores {line['macro_f1']:.3f} with "
        f"them, {after['corrections']['macro_f1_table']:.3f} against the labels of the table (same "
        "answers)"
    )
    assert result_of("leaderboard", archive)["corrections"] == after["corrections"]


def test_the_figure_against_the_table_is_that_of_a_count_by_hand(archive: Path) -> None:
    from archiveprobe.evaluate.system_store import load_run

    review(archive)
    board = result_of("probe", archive, *PROBE)
    system = load_run(load_task(archive), board["best"]).predictions()
    table = [list(system.classes).index(id_.partition("/")[0]) for id_ in system.ids]
    scores = []
    for decision in system.decision:
        pairs = list(zip(table, decision, strict=True))
        for label in (0, 1):
            hit = pairs.count((label, label))
            scores.append(2 * hit / (table.count(label) + list(decision).count(label)))
    expected = sum(scores) / len(scores)
    assert board["corrections"]["macro_f1_table"] == pytest.approx(expected)


def test_a_row_without_a_label_becomes_a_labelled_one(archive: Path) -> None:
    before = result_of("leaderboard", archive)
    folds = (archive / "work" / "folds.csv").read_text().splitlines()
    correct(archive, ("unlabelled/49.png", "down", "", "change"), (WRONG[0], "", "down", "change"))
    board = result_of("probe", archive, *PROBE)
    said = HERE + "1 row without a label labelled, 1 label taken away"
    assert board["warnings"][0] == said
    assert "changed 0 of 47 labels" in board["warnings"][1]
    assert "1 row that only a correction labels left out here" in board["warnings"][1]
    assert board["corrections"]["labelled"] == board["corrections"]["removed"] == 1
    assert board["corrections"]["changed"] == 0
    now = (archive / "work" / "folds.csv").read_text().splitlines()
    assert len(now) == len(folds) + 1
    # The others lie in the folds that they had, and the checksum at the end is another.
    assert [row.rpartition(",")[0] for row in now[1:-1]] == [
        row.rpartition(",")[0] for row in folds[1:]
    ]
    assert before["snapshot"] != board["snapshot"]


@pytest.mark.proves("corrections")
@pytest.mark.proves("leaks")
def test_a_correction_of_a_test_row_never_trains(archive: Path) -> None:
    rows = [f"{label}/{at}.png" for label in ("across", "down") for at in range(60)]
    rows = [row for row in rows if (archive / row).exists()]
    lines = [
        f"{row},{row.partition('/')[0]},{'test' if at < 3 else ''}" for at, row in enumerate(rows)
    ]
    (archive / "labels.csv").write_text("\n".join(["image,label,split", *lines, ""]))
    task = archive / "task.toml"
    table = '[images]\ntable = "labels.csv"\nsplit = "split"'
    task.write_text(task.read_text().replace("[images]", table))
    done("embed", archive)
    without = result_of("probe", archive, *PROBE)
    for id_ in rows[:3]:
        correct(archive, (id_, "down", "", "change"))
    board = result_of("leaderboard", archive)
    assert board["warnings"][0] == HERE + "3 of test rows, which stay rows to predict"
    assert board["corrections"]["tests"] == 3
    assert board["corrections"]["changed"] == 0
    assert board["snapshot"] == without["snapshot"]
    answers = archive.parent / "answers.csv"
    told = done("submit", archive, "--system", "ridge-hog", "-o", answers).stderr
    assert "3 of test rows" in told
    # Only `score` looks at the labels of test rows, and sees them corrected.
    scored = result_of("score", archive, answers)
    assert "another label" not in done("score", archive, answers).stderr
    assert scored["n"] == 3
    assert [sum(row) for row in scored["confusion"]["matrix"]] == [0, 3]


def test_every_command_that_reads_rows_says_so_once(archive: Path) -> None:
    review(archive)
    system = result_of("probe", archive, *PROBE, "--probe", "knn")["best"]
    out = archive.parent / "out"
    for words in (
        ("embed", archive),
        ("probe", archive, *PROBE),
        ("leaderboard", archive),
        ("leaderboard", archive, "--md"),
        ("compare", archive, "ridge-hog", "knn-hog"),
        ("mistakes", archive, "--system", system, "-o", out.with_name("mistakes.csv")),
        ("export", archive, "-o", out.with_name("rows.csv")),
        ("look", archive, "-o", out.with_name("page.html")),
        ("audit", archive),
        ("threshold", archive, "--system", system),
        ("list", "systems", archive),
        ("submit", archive, "--system", system, "-o", out.with_suffix(".csv")),
        ("submit", archive, "--answers", out.with_suffix(".csv"), "-o", out.with_suffix(".tsv")),
        ("predict", archive, "--system", system, "-o", out.with_suffix(".jsonl")),
        ("cache", "export", archive, "-o", out.with_suffix(".h5")),
    ):
        told = done(*words).stderr
        assert told.count(COUNTS) == 1, words
        assert told.count("corrections.csv") == 1, words


def test_audit_says_what_to_do_and_leaves_out_what_was_decided(archive: Path) -> None:
    before = result_of("audit", archive)
    assert before["corrections"] is None
    suspects = [row["id"] for row in before["suspects"]]
    assert {*WRONG} & {*suspects}
    kept = suspects[0]
    label = kept.partition("/")[0]
    correct(archive, (kept, label, label, "keep"))
    told = done("audit", archive)
    assert HERE + "1 kept" in told.stderr
    after = result_of("audit", archive)
    assert [row["id"] for row in after["suspects"]] == suspects[1:]
    assert after["decided"] == 1
    assert "without 1 that a person has decided" in " ".join(told.stdout.split())
    assert kept not in (archive / "work" / "audit" / "suspect_labels.csv").read_text()
    correct(archive, (WRONG[0], "across", "down", "change"))
    told = done("audit", archive).stderr
    assert "`probe` uses them, and systems trained before are out of date" in told


def test_init_says_that_the_file_is_there(archive: Path) -> None:
    review(archive)
    told = done("init", archive, "--force").stderr
    assert f"{COUNTS}: laid over the table by `archiveprobe probe`" in told
    assert "not used: corrections.csv" not in told
    assert "table = " not in (archive / "task.toml").read_text()


def test_rows_that_left_the_table_are_no_dead_end(archive: Path) -> None:
    review(archive)
    (archive / WRONG[0]).unlink()
    done("embed", archive)
    board = result_of("probe", archive, *PROBE)
    left_out = f"1 of rows that the table lacks, left out ({WRONG[0]!r})"
    said = f"{HERE}3 labels changed, 1 kept, 1 unsure, {left_out}"
    assert board["warnings"][0] == said
    assert board["corrections"]["unknown"] == 1
    correct(archive, (WRONG[1], "down", "down", "keep"))


def test_a_label_that_changed_since_is_told(archive: Path) -> None:
    review(archive)
    (archive / "across/2.png").rename(archive / "down/2.png")
    (archive / "corrections.csv").write_text(
        (archive / "corrections.csv").read_text().replace("across/2.png", "down/2.png")
    )
    done("embed", archive)
    told = done("probe", archive, *PROBE).stderr
    assert "1 of them decided under another label than the table has now: look at them" in told


def test_a_label_edited_beside_keep_is_said(archive: Path) -> None:
    review(archive)
    file = archive / "corrections.csv"
    kept = "across/2.png,across,across,keep"
    assert kept in file.read_text()
    file.write_text(file.read_text().replace(kept, "across/2.png,down,across,keep"))
    told = done("list", "systems", archive).stderr
    said = HERE + "1 row to keep or unsure has another label, which is not used ('across/2.png')"
    assert COUNTS in told
    assert f"{said}: write change in the column decision to use it" in told
    assert said in done("init", archive, "--force").stderr
    assert "2 rows to keep" not in told
    file.write_text(file.read_text().replace("across/2.png,down", "across/2.png,dwon"))
    failed = run("list", "systems", archive)
    assert failed.exit_code == 1
    assert "unknown labels in 1 row: 'dwon'" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_corrections_can_be_turned_off(archive: Path) -> None:
    before = result_of("leaderboard", archive)
    review(archive)
    task = archive / "task.toml"
    task.write_text('corrections = ""\n' + task.read_text())
    board = result_of("leaderboard", archive)
    assert board["corrections"] is None
    assert board["leaderboard"] == before["leaderboard"]


def test_no_output_replaces_corrections(archive: Path) -> None:
    out = ("submit", archive, "--system", "ridge-hog", "-o", archive / "corrections.csv")
    assert "corrections.csv is the corrections of the task" in run(*out).stderr
    review(archive)
    before = (archive / "corrections.csv").read_bytes()
    assert "corrections.csv is the corrections of the task" in run(*out).stderr
    assert (archive / "corrections.csv").read_bytes() == before


def test_the_file_is_no_image_and_no_table(archive: Path) -> None:
    review(archive)
    told = done("init", archive, "--force").stderr
    assert "ignored" not in told
    assert "48 labelled rows, 6 to predict" in told


def test_unknown_ids_in_a_file_of_ones_own_are_refused(archive: Path) -> None:
    (archive / "corrections.csv").write_text("id,label\ndown/0.png,across\ngone.png,down\n")
    failed = run("probe", archive, *PROBE)
    assert failed.exit_code == 1
    assert "unknown ids in 1 row: 'gone.png' (line 3)" in failed.stderr
    assert failed.stderr.count("\n") == 1
    (archive / "corrections.csv").write_text("id,label\ndown/0.png,across\n")
    assert HERE + "1 label changed" in done("probe", archive, *PROBE).stderr


def test_a_named_file_that_is_not_there_yet_is_told(archive: Path) -> None:
    task = archive / "task.toml"
    task.write_text('corrections = "mine.csv"\n' + task.read_text())
    assert "mine.csv is named in task.toml and not there yet" in done("leaderboard", archive).stderr
    review(archive)
    assert (archive / "mine.csv").is_file()
    assert "mine.csv: 4 labels changed" in done("list", "systems", archive).stderr
