"""The command line: one line per fault, results only on stdout, nothing heavy without need."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def commands(
    group: click.Group = cli.main, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    yield prefix
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in ("intact", "ruin"):
        (tmp_path / label).mkdir()
        for number in range(6):
            pixels = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    (tmp_path / "ruin" / "broken.jpg").write_bytes(b"<html>not found</html>")
    return tmp_path


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_works_everywhere_and_ends_with_an_example(
    words: tuple[str, ...], option: str
) -> None:
    result = run(*words, option)
    assert result.exit_code == 0
    lines = result.stdout.rstrip().splitlines()
    at = next(number for number, line in enumerate(lines) if line.strip() == "Example:")
    assert lines[at + 1 :]
    assert all(line.strip().startswith("archiveprobe ") for line in lines[at + 1 :])


def test_the_examples_name_commands_and_options_that_exist() -> None:
    for words in commands():
        command: click.Command = cli.main
        for word in words:
            assert isinstance(command, click.Group)
            command = command.commands[word]
        for line in (command.epilog or "").splitlines():
            if not line.strip().startswith("archiveprobe "):
                continue
            target: click.Command = cli.main
            rest = line.split()[1:]
            while isinstance(target, click.Group):
                target = target.commands[rest.pop(0)]
            known = {name for parameter in target.params for name in parameter.opts}
            assert {word for word in rest if word.startswith("-")} <= known


def test_version_names_the_libraries() -> None:
    result = run("--version")
    assert result.exit_code == 0
    for library in ("archiveprobe", "torch 2.13.0", "timm", "open_clip", "pillow"):
        assert library in result.stdout


def test_the_way_of_a_new_user(archive: Path, tmp_path: Path) -> None:
    made = run("init", archive)
    assert made.exit_code == 0
    assert made.stdout.strip() == str(archive / "task.toml")
    first = json.loads(run("embed", archive, "--workers", "0", "--json").stdout)
    assert set(first) == {
        "images",
        "embedded",
        "reused",
        "duplicates",
        "failed",
        "seconds",
        "caches",
    }
    counts = {key: first[key] for key in ("images", "embedded", "reused", "duplicates", "failed")}
    assert counts == {"images": 13, "embedded": 12, "reused": 0, "duplicates": 0, "failed": 1}
    [cache] = first["caches"]
    assert {"backbone", "path", "rows", "views", "width"} <= set(cache)
    assert (cache["backbone"], cache["rows"], cache["views"], cache["width"]) == (
        "hog",
        12,
        6,
        1860,
    )
    assert (archive / cache["path"] / "fingerprint.json").is_file()
    again = json.loads(run("embed", archive, "--workers", "0", "--json").stdout)
    assert (again["embedded"], again["reused"]) == (0, 12)
    verdict = json.loads(run("cache", "verify", archive, "--deep", "--json").stdout)
    assert verdict == {"ok": True, "shards": 1, "rows": 12, "bad": [], "removable": []}
    assert run("cache", "export", archive, "-o", tmp_path / "all.h5").exit_code == 0
    assert "hog-" in run("cache", "show", archive).stdout


def test_json_is_one_line_and_messages_go_to_stderr(archive: Path) -> None:
    run("init", archive)
    result = run("embed", archive, "--workers", "0", "--json")
    assert len(result.stdout.splitlines()) == 1
    assert "html_not_image" in result.stderr


def test_a_damaged_shard_is_reported_set_aside_and_computed_again(archive: Path) -> None:
    run("init", archive)
    run("embed", archive, "--workers", "0")
    [shard] = (archive / "work" / "cache").glob("*/shards/*.h5")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    result = run("cache", "verify", archive, "--deep", "--json")
    assert result.exit_code == 1
    verdict = json.loads(result.stdout)
    assert not verdict["ok"]
    assert shard.name in verdict["bad"][0]
    assert not shard.exists()
    again = json.loads(run("embed", archive, "--workers", "0", "--json").stdout)
    assert again["embedded"] == 12
    assert run("cache", "verify", archive, "--deep").exit_code == 0


def test_prune_lists_first_and_removes_only_when_told(archive: Path) -> None:
    run("init", archive)
    run("embed", archive, "--workers", "0", "--views", "center")
    run("embed", archive, "--workers", "0")
    listed = json.loads(run("cache", "prune", archive, "--json").stdout)
    assert not listed["removed"]
    [item] = listed["items"]
    assert Path(item["path"]).is_dir()
    assert json.loads(run("cache", "prune", archive, "--yes", "--json").stdout)["removed"]
    assert not Path(item["path"]).exists()
    assert json.loads(run("embed", archive, "--workers", "0", "--json").stdout)["embedded"] == 0


FAULTS = [
    (["embed", "nowhere"], "no task file", "archiveprobe init"),
    (["init", "nowhere"], "no folder", "name the folder"),
    (["embed", "{task}", "--views", "crop6"], "'crops6'", "use one of"),
    (["embed", "{task}", "--backbone", "hogg"], "'hog'", "list backbones"),
    (["embed", "{task}", "--precision", "fp16", "--device", "cpu"], "fp16", "use the precision"),
    (["embed", "{task}", "--device", "cuda:9"], "cuda:9", "use the device cpu"),
    (["embed", "{task}", "--device", "tpu"], "tpu", "use cpu"),
    (["init", "{task}"], "exists", "edit it"),
    (["cache", "show", "{task}"], "no cache", "archiveprobe embed"),
    (["cache", "verify", "{task}"], "no cache", "archiveprobe embed"),
    (
        ["cache", "export", "{task}", "-o", "{task}/x.h5"],
        "nothing is embedded",
        "archiveprobe embed",
    ),
    (["demo", "{task}"], "empty", "folder"),
]


@pytest.mark.parametrize(("words", "what", "remedy"), FAULTS, ids=lambda value: str(value)[:40])
def test_a_fault_is_one_line(archive: Path, words: list[str], what: str, remedy: str) -> None:
    assert run("init", archive).exit_code == 0
    before = sorted(archive.rglob("*"))
    result = run(*(word.format(task=archive) for word in words))
    assert result.exit_code == 1
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert what in line
    assert remedy in line
    assert sorted(archive.rglob("*")) == before


def test_a_table_in_place_of_a_task_is_named(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("id,label\na.jpg,intact\n", "utf-8")
    result = run("embed", table)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: {table} is no task.toml: name one, or its folder\n"


@pytest.mark.parametrize(
    "words", [["demo"], ["score"], ["embed", "x", "--nope"], ["nope"], ["cache", "nope"]]
)
def test_wrong_usage_is_clicks_own(words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_every_command_takes_the_current_folder(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archive)
    [line] = run("embed").stderr.splitlines()
    assert line.startswith(f"error: no task file at {archive / 'task.toml'}: ")
    assert run("init").exit_code == 0
    for words in commands():
        command: click.Command = cli.main
        for word in words:
            assert isinstance(command, click.Group)
            command = command.commands[word]
        for parameter in command.params:
            if parameter.name == "task":
                assert not parameter.required, words
    assert run("embed", "--workers", "0").exit_code == 0
    assert run("cache", "show").exit_code == 0
    assert run("list", "systems").exit_code == 0


def test_score_takes_a_file_alone_or_after_the_task(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("init", archive).exit_code == 0
    answers = archive / "answers.csv"
    answers.write_text("image,label\nintact/0.png,intact\n", "utf-8")
    truth = archive / "truth.csv"
    truth.write_text("image,label\nintact/0.png,intact\n", "utf-8")
    named = run("score", archive, answers, "--truth", truth, "--json")
    assert json.loads(named.stdout)["n"] == 1
    monkeypatch.chdir(archive)
    assert run("score", "answers.csv", "--truth", "truth.csv", "--json").stdout == named.stdout
    wrong = run("score", "a", "b", "c")
    assert wrong.exit_code == 2
    assert "extra argument" in wrong.stderr


def test_every_table_is_listed() -> None:
    from archiveprobe.embed.backbones import BACKBONES
    from archiveprobe.embed.view_sets import VIEW_SETS
    from archiveprobe.evaluate.metrics import METRICS
    from archiveprobe.finetune.recipe_names import RECIPES
    from archiveprobe.probe.table import PROBES

    tables = {
        "backbones": BACKBONES,
        "views": VIEW_SETS,
        "probes": PROBES,
        "metrics": METRICS,
        "recipes": RECIPES,
    }
    for name, table in tables.items():
        lines = json.loads(run("list", name, "--json").stdout)[name]
        (key, *_) = lines[0]
        assert {*table} <= {line[key] for line in lines}
        assert all(isinstance(value, str | int | bool) for line in lines for value in line.values())
        assert len(run("list", name).stdout.splitlines()) == len(lines) + 1


def test_debug_shows_the_traceback() -> None:
    assert run("embed", "nowhere", "--debug").exception is not None
    assert not isinstance(run("embed", "nowhere", "--debug").exception, SystemExit)


def test_a_name_that_stdout_cannot_write_is_escaped(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = archive / os.fsdecode(b"\xff") / "\u0645"
    folder.mkdir(parents=True)
    for label in ("intact", "ruin"):
        (archive / label).rename(folder / label)
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "latin-1", write_through=True))
    with pytest.raises(SystemExit) as ended:
        cli.main(["init", str(folder)])
    assert ended.value.code == 0
    assert out.getvalue().endswith(rb"/\udcff/\u0645/task.toml" + b"\n")


def test_a_full_disk_is_one_line(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("init", archive)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("archiveprobe.base.files.os.fsync", full)
    result = run("embed", archive, "--workers", "0")
    assert result.exit_code == 1
    assert "No space left" in result.stderr.splitlines()[-1]


@pytest.mark.proves("killed")
def test_an_interrupt_leaves_a_resumable_state(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("init", archive)
    import archiveprobe.embed.run as stage
    from archiveprobe.embed.forward import ForwardThreads

    real, seen = stage.prepare_images, []
    submit, passes = ForwardThreads.submit, list[Future[Any]]()

    def submitted(self: ForwardThreads, *given: Any) -> "Future[Any]":
        passes.append(submit(self, *given))
        return passes[-1]

    def stopped(*args: object, **named: object) -> Iterator[object]:
        for item in real(*args, **named):
            seen.append(item)
            if len(seen) == 5:
                # What no thread has begun yet would be left for the next run.
                wait(passes)
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(stage, "prepare_images", stopped)
    monkeypatch.setattr(ForwardThreads, "submit", submitted)
    result = run("embed", archive, "--workers", "0", "--batch-size", "6")
    assert result.exit_code == 130
    assert "run the same command again" in result.stderr
    monkeypatch.setattr(stage, "prepare_images", real)
    rest = json.loads(run("embed", archive, "--workers", "0", "--json").stdout)
    assert (rest["embedded"], rest["reused"]) == (8, 4)


LIGHT = [["--help"], ["--version"], ["list", "backbones"], ["list", "views"], ["init", "nowhere"]]


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_light_commands_import_nothing_heavy(words: list[str]) -> None:
    heavy = _modules_after(words) & {"torch", "timm", "open_clip", "sklearn", "skimage", "h5py"}
    assert not heavy


def test_a_run_with_nothing_to_do_does_not_import_torch(archive: Path) -> None:
    run("init", archive)
    run("embed", archive, "--workers", "0")
    assert not _modules_after(["embed", str(archive)]) & {"torch", "timm", "open_clip", "skimage"}


def _modules_after(words: list[str]) -> set[str]:
    script = (
        "import sys\nfrom archiveprobe import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('MODULES', *{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stdout.split("MODULES ")[-1].split())


def test_caches_are_compacted_and_exported_in_other_forms(archive: Path, tmp_path: Path) -> None:
    run("init", archive)
    run("embed", archive, "--workers", "0")
    [cache] = json.loads(run("cache", "compact", archive, "--json").stdout)["caches"]
    assert (cache["before"], cache["shards"], cache["rows"]) == (1, 1, 12)
    assert run("cache", "compact", archive).exit_code == 0
    for name in ("all.parquet", "all.npy", "all.lance"):
        assert run("cache", "export", archive, "-o", tmp_path / name).exit_code == 0
    made = run("cache", "export", archive, "--format", "npy", "-o", tmp_path / "other", "--json")
    assert json.loads(made.stdout)["rows"] == len(np.load(tmp_path / "other"))
    assert np.load(tmp_path / "all.npy").shape[1:] == (6, 1860)
    again = json.loads(run("embed", archive, "--workers", "0", "--json").stdout)
    assert again["embedded"] == 0
