"""The command line of stored systems side by side: leaderboard in every form, compare."""

import csv
import io
import shutil
from pathlib import Path

import click
import pytest
from striped_archive import result_of, striped_archive
from stripes import done, run

from archiveprobe.commands.comparing import _complete, compare


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = striped_archive(tmp_path_factory.mktemp("stripes"))
    done("probe", folder, "--probe", "ridge", "--probe", "knn")
    return folder


def test_the_leaderboard_comes_in_every_form(probed: Path) -> None:
    board = result_of("leaderboard", probed)
    rows = list(csv.DictReader(io.StringIO(done("leaderboard", probed, "--csv").stdout)))
    systems = [row for row in rows if row["row"] == "system"]
    assert [row["system"] for row in systems] == [line["system"] for line in board["leaderboard"]]
    for row, line in zip(systems, board["leaderboard"], strict=True):
        assert all(float(row[name]) == line[name] for name in ("macro_f1", "low", "high"))
    assert len(board["snapshot"]) == 64
    for form in ("--csv", "--md", "--latex"):
        text = done("leaderboard", probed, form).stdout
        assert board["snapshot"] in text
        assert all(line["system"] in text for line in board["leaderboard"])


def test_two_forms_at_a_time_are_wrong_usage(probed: Path) -> None:
    for words in (["--csv", "--md"], ["--latex", "--json"], ["--csv", "--md", "--latex"]):
        found = run("leaderboard", probed, *words)
        assert found.exit_code == 2 and not found.stdout
        assert " and ".join(words) in found.stderr and "exclude each other" in found.stderr


PAIR = ("ridge-hog", "knn-hog")


@pytest.mark.parametrize("form", ["--csv", "--md", "--latex"])
def test_systems_out_of_date_are_named_beside_every_form(
    probed: Path, tmp_path: Path, form: str
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(probed, folder)
    first = next((folder / "across").iterdir())
    first.rename(folder / "down" / f"moved{first.name}")
    done("embed", folder)
    done("probe", folder, "--probe", "ridge")
    found = done("leaderboard", folder, form)
    assert "note: left out: knn-hog is out of date (" in found.stderr
    assert "knn-hog" not in found.stdout and "ridge-hog" in found.stdout


def test_two_systems_are_compared(probed: Path) -> None:
    record = result_of("compare", probed, "ridge-hog", "knn-hog")
    board = {line["system"]: line for line in result_of("leaderboard", probed)["leaderboard"]}
    for key in ("a", "b"):
        line = board[record[key]["system"]]
        assert record[key]["macro_f1"]["value"] == line["macro_f1"]
        assert record[key]["macro_f1"]["low"] == line["low"]
        assert record[key]["accuracy"]["value"] == pytest.approx(line["accuracy"])
    found = record["difference"]["macro_f1"]
    assert found["difference"] == pytest.approx(
        board["ridge-hog"]["macro_f1"] - board["knn-hog"]["macro_f1"]
    )
    assert found["low"] <= found["difference"] <= found["high"]
    assert record["noise"] == (found["low"] <= 0 <= found["high"])
    counts = ("both_right", "only_a_right", "only_b_right", "none_right")
    assert sum(record[name] for name in counts) == record["rows"] == 48
    turned = result_of("compare", probed, "knn-hog", "ridge-hog")
    assert turned["only_a_right"] == record["only_b_right"]
    assert turned["difference"]["accuracy"]["difference"] == pytest.approx(
        -record["difference"]["accuracy"]["difference"]
    )


def test_people_see_scores_the_difference_and_what_it_means(
    probed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = result_of("compare", probed, "ridge-hog", "greedy")
    monkeypatch.chdir(probed)
    found = done("compare", "ridge-hog", "greedy")
    header, *lines = found.stdout.splitlines()
    assert "macro-F1 [95% CI]" in header and "accuracy [95% CI]" in header
    assert [line.split()[0] for line in lines[:3]] == ["ridge-hog", "greedy", "difference"]
    gap = record["difference"]["macro_f1"]
    assert f"{gap['difference']:+.4f} [{gap['low']:+.3f}, {gap['high']:+.3f}]" in lines[2]
    assert f"ridge-hog alone is right in {record['only_a_right']}," in lines[3]
    assert ("noise" in lines[4]) or ("decide all of these rows alike" in lines[4])
    assert "95 % intervals rest on " in found.stderr


def test_partial_rows_are_compared_where_that_is_asked_for(probed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    shutil.copytree(probed, folder)
    image = next((folder / "down").iterdir())
    (folder / "down" / "new.png").write_bytes(image.read_bytes() + b"\0")
    found = run("compare", folder, "ridge-hog", "knn-hog")
    assert found.exit_code == 1 and "1 of 55 rows waits for embed" in found.stderr
    done("probe", folder, "--partial", "--probe", "ridge", "--probe", "knn")
    found = done("compare", folder, "ridge-hog", "knn-hog", "--partial")
    assert all("partial: 54 of 55 rows" in line for line in found.stdout.splitlines()[1:])
    assert result_of("compare", folder, *PAIR, "--partial")["partial"] == "partial: 54 of 55 rows"


def test_rows_that_came_after_training_are_said_on_every_line(probed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(probed, tmp_path / "more")
    image = next((folder / "down").iterdir())
    (folder / "down" / "new.png").write_bytes(image.read_bytes() + b"\0")
    part = "partial: 54 of 55 rows"
    assert result_of("leaderboard", folder, "--partial")["partial"] == part
    for form in ("--latex", "--md"):
        written = done("leaderboard", folder, "--partial", form).stdout
        assert f"Not the whole task: {part}." in written
    for words in (("leaderboard", folder, "--csv"), ("compare", folder, *PAIR)):
        lines = done(*words, "--partial").stdout.splitlines()
        assert all(part in line for line in lines[1:]), lines
    systems = done("leaderboard", folder, "--partial").stdout.splitlines()
    assert all(part in line for line in systems if "hog" in line)
    assert result_of("compare", folder, *PAIR, "--partial")["partial"] == part


def test_each_system_out_of_date_has_its_own_reasons(probed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(probed, tmp_path / "other")
    (folder / "corrections.csv").write_text("id,label\ndown/0.png,across\n")
    found = run("compare", folder, "greedy", "knn-hog")
    assert "greedy is out of date (labels, its member " in found.stderr
    assert "knn-hog is out of date (labels changed since): run `archiveprobe probe" in found.stderr
    assert found.stderr.count("run `") == 1
    assert "archiveprobe ensemble" not in found.stderr + run("leaderboard", folder).stderr
    done("probe", folder, "--probe", "knn")
    assert "`archiveprobe probe" in run("compare", folder, "greedy", "knn-hog").stderr
    done("probe", folder, "--probe", "ridge", "--probe", "knn")
    done("compare", folder, "greedy", "knn-hog")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["archive", "greedy"], "only 'greedy' stands after the task 'archive': name two systems"),
        (["archive/task.toml", "greedy"], "name two systems after the task"),
        (["ridge-hog", "greedy"], "no task.toml in this folder for the systems 'ridge-hog' and"),
        (["gone", "ridge-hog", "greedy"], "no task file at "),
    ],
)
def test_a_task_that_is_missing_is_told_from_a_system(
    probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], what: str
) -> None:
    (tmp_path / "archive").symlink_to(probed)
    monkeypatch.chdir(tmp_path)
    found = run("compare", *words)
    assert found.exit_code == 1 and not found.stdout and found.stderr.count("\n") == 1
    assert what in found.stderr


def test_written_files_are_named_as_the_user_named_them(
    probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("mistakes", probed, "--system", "knn-hog", "-o", "o/m.csv", "--spreadsheet-safe")
    assert done(*words).stdout.splitlines()[0].endswith(" wrong: o/m.csv")
    record = result_of(*words)
    assert (record["file"], record["copy"]) == ("o/m.csv", "o/m.spreadsheet.csv")
    assert " in o/rows.csv\n" in done("export", probed, "-o", "o/rows.csv").stdout
    assert all((tmp_path / "o" / name).is_file() for name in ("m.spreadsheet.csv", "rows.csv"))


def test_no_system_is_completed_to_itself(probed: Path) -> None:
    context = click.Context(compare)
    context.params = {"a": str(probed), "b": "ridge-hog"}
    names = [item.value for item in _complete(context, compare.params[0], "")]
    assert "knn-hog" in names
    assert "ridge-hog" not in names


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_a_disk_that_refuses_is_told_in_one_form(probed: Path, ending: str) -> None:
    found = run("export", probed, "-o", f"/proc/rows.{ending}")
    assert found.exit_code == 1 and found.stderr.endswith(
        f"error: cannot write /proc/rows.{ending}: No such file or directory: make space, correct "
        "the permissions, or name another place\n"
    )


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["ridge-hog", "ridge-hog"], "name two systems"),
        (["ridge-hog", "rigde"], "did you mean 'ridge-hog'"),
    ],
)
def test_a_fault_is_one_line(probed: Path, words: list[str], what: str) -> None:
    found = run("compare", probed, *words)
    assert found.exit_code == 1 and not found.stdout and found.stderr.count("\n") == 1
    assert what in found.stderr
