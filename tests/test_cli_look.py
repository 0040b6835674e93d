"""`look` on the command line: the page it writes, and what it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from archiveprobe.cli import main
from archiveprobe.demo.archive import write_demo


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("look") / "demo"
    write_demo(folder, count=60)
    done = run("embed", folder)
    assert done.exit_code == 0, done.output
    return folder


def run(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words])


def meta_of(file: Path) -> dict:
    text = file.read_text("utf-8")
    block = text.split('<script type="application/json" id="meta">')[1].split("</script>")[0]
    return json.loads(block)


def test_page_without_systems_says_what_is_missing(task, tmp_path) -> None:
    done = run("look", task, "-o", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert "archiveprobe probe" in done.stderr
    meta = meta_of(tmp_path / "page.html")
    assert meta["systems"] == []
    assert any("archiveprobe probe" in entry["command"] for entry in meta["missing"])
    assert meta["count"] == 60


def test_page_shows_the_leaderboard_as_it_is(task, tmp_path) -> None:
    probed = run("probe", task, "--probe", "ridge", "--probe", "lda", "--json")
    board = json.loads(probed.stdout)
    done = run("look", task, "-o", tmp_path / "page.html", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    meta = meta_of(tmp_path / "page.html")
    assert record["systems"] == len(meta["systems"]) == len(board["leaderboard"])
    assert record["snapshot"] == meta["snapshot"]
    for line, system in zip(board["leaderboard"], meta["systems"], strict=True):
        assert line["system"] == system["name"]
        assert [line[key] for key in ("macro_f1", "low", "high", "accuracy")] == [
            system[key] for key in ("macro_f1", "low", "high", "accuracy")
        ]


@pytest.mark.proves("page")
def test_page_tells_nobody_where_it_was_made(task, tmp_path) -> None:
    assert run("look", task, "-o", tmp_path / "page.html").exit_code == 0
    assert str(task.parent) not in (tmp_path / "page.html").read_text("utf-8")
    assert "demo/task.toml" in meta_of(tmp_path / "page.html")["command"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "page.pdf"], "a page ends in .html"),
        (["-o", "{task}/task.toml"], "name another file with -o"),
        (["-o", "{task}/work/page.html"], "name another file with -o"),
    ],
)
def test_other_outputs_are_refused_in_one_line(task, words, said) -> None:
    before = sorted(str(path) for path in task.rglob("*"))
    done = run("look", task, *[word.format(task=task) for word in words])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert said in done.stderr.splitlines()[-1]
    assert sorted(str(path) for path in task.rglob("*")) == before


def test_options_that_do_not_go_together_are_wrong_usage(task) -> None:
    assert run("look", task, "--system", "greedy").exit_code == 2
    assert run("look", task, "-o", "page.html", "--port", "80").exit_code == 2


def test_nothing_embedded_is_one_line(tmp_path) -> None:
    write_demo(tmp_path / "new", count=60)
    done = run("look", tmp_path / "new", "-o", tmp_path / "page.html")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "archiveprobe embed" in done.stderr
    assert not (tmp_path / "page.html").exists()
