"""Names on the command line: wrong ones are answered before libraries load, others completed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete, CompletionItem, ShellComplete

from archiveprobe import cli
from archiveprobe.base.errors import InputError
from archiveprobe.commands.names import Input, TableChoice

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"numpy", "scipy", "pandas", "torch", "timm", "sklearn", "PIL", "h5py", "rich", "lightgbm"}
TASK = """\
name = "streets"
labels = ["intact", "ruin"]
positive = "ruin"

[embed]
backbones = ["hog", "mine"]

[backbone.mine]
library = "timm"
name = "resnet18"
weights = "random"
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "task.toml").write_text(TASK, "utf-8")
    for system in ("greedy", "ridge-hog"):
        (tmp_path / "work" / "runs" / system).mkdir(parents=True)
        (tmp_path / "work" / "runs" / system / "run.json").touch()
    (tmp_path / "answers.csv").touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "task.toml").write_text(f"{TASK}view = 1\n", "utf-8")
    return tmp_path


# What is typed in the folder of the task, and what the answer holds.
TYPED = [
    (["prob"], "Did you mean one of: 'probe', 'prove'?"),
    (["cache", "verfy"], "Did you mean 'verify'?"),
    (["probe", "absent"], "no task file at "),
    (["probe", "wrong"], "unknown key "),
    (["probe", "--probe", "rigde"], "unknown probe 'rigde' (did you mean 'ridge'?)"),
    (["probe", "--features", "hgo:rows"], "unknown backbone 'hgo' (did you mean 'hog'?)"),
    (["probe", "--features", "hog:row"], "unknown views 'row' (did you mean 'rows'?)"),
    (["probe", "--threshold-rule", "smooth"], "Did you mean 'smoothed'?"),
    (["ensemble", "--method", "gredy"], "Did you mean 'greedy'?"),
    (["ensemble", "--system", "gredy"], "no system 'gredy' in "),
    (["submit", "--system", "gredy", "-o", "x.csv"], "(did you mean 'greedy'?)"),
    (["predict", "--system", "gredy", "-o", "x.csv"], "(did you mean 'greedy'?)"),
    (["mistakes", "--system", "gredy", "-o", "x.csv"], "(did you mean 'greedy'?)"),
    (["rank", ".", "--system", "gredy"], "(did you mean 'greedy'?)"),
    (["rank", ".", "answrs"], "no file answrs"),
    (["mistakes", "--system", "greedy", "-o", "work"], "work is a folder"),
    (["export", "--system", "gredy", "-o", "x.csv"], "(did you mean 'greedy'?)"),
    (["export", "--backbone", "hgo", "-o", "x.csv"], "(did you mean 'hog'?)"),
    (["threshold", "--system", "gredy"], "(did you mean 'greedy'?)"),
    (["compare", "greedy", "rigde-hog"], "(did you mean 'ridge-hog'?)"),
    (["compare", "absent", "greedy", "ridge-hog"], "no task file at "),
    (["leaderboard", "--csv", "--latex"], "--csv and --latex exclude each other"),
    (["submit", "--system", "greedy", "-o", "work"], "work is a folder"),
    (["submit", "--system", "greedy", "-o", "task.toml/x.csv"], "task.toml is no folder"),
    (["embed", "--backbone", "mime"], "unknown backbone 'mime' (did you mean 'mine'?)"),
    (["embed", "--views", "crop6"], "unknown views 'crop6' (did you mean 'crops6'?)"),
    (["cache", "export", "--backbone", "hgo", "-o", "x.h5"], "(did you mean 'hog'?)"),
    (["embed", "--device", "tpu"], "unknown device 'tpu': use cpu, cuda, cuda:N or mps"),
    (["score", "answrs.csv"], "no file answrs.csv (did you mean 'answers.csv'?): name the sub"),
    (["score", "answers.csv", "--truth", "x"], "no file x: name the table of labels"),
    (["submit", "--answers", "answrs.csv", "-o", "x.csv"], "(did you mean 'answers.csv'?)"),
    (
        ["predict", "--system", "greedy", "--images", "imgs", "-o", "x.csv"],
        "no file or folder imgs (did you mean 'images'?): name the folder, list, table or tar",
    ),
    (["finetune", "--recipe", "demo-tny"], "unknown recipe 'demo-tny' (did you mean 'demo-tiny'?)"),
    (["recipe", "show", "demo-tny"], "unknown recipe 'demo-tny' (did you mean 'demo-tiny'?)"),
    (["ensemble", "-h"], "greedy"),
]
SCRIPT = f"""
import json, sys
from click.testing import CliRunner
from archiveprobe import cli
lines = []
for words in json.loads(sys.argv[1]):
    done = CliRunner().invoke(cli.main, words)
    loaded = sorted({HEAVY!r} & set(sys.modules))
    lines.append([done.exit_code, " ".join(done.output.split()), loaded])
print(json.dumps(lines))
"""


def test_what_is_mistyped_is_answered_before_libraries_load(task: Path) -> None:
    words = json.dumps([words for words, _ in TYPED])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, words], capture_output=True, text=True, cwd=task, check=True
    )
    for (typed, answer), (exit_code, output, loaded) in zip(
        TYPED, json.loads(done.stdout), strict=True
    ):
        assert answer in output, typed
        assert exit_code == (0 if "-h" in typed else 2 if "Usage" in output else 1), typed
        assert not loaded, typed


def test_the_nearest_file_is_found_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [*(Path(f"{number}.jpg") for number in range(3000)), Path("answers.csv")]
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(files))
    with pytest.raises(InputError, match=r"did you mean 'answers\.csv'"):
        Input("the answers").check(None, Path("answrs.csv"))


def every_command(group: click.Group = cli.main) -> Iterator[click.Command]:
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from every_command(command)
        else:
            yield command


def test_choices_read_from_source_are_the_keys_of_the_tables() -> None:
    types = [
        parameter.type
        for command in every_command()
        for parameter in command.params
        if isinstance(parameter.type, TableChoice)
    ]
    assert len({id(each) for each in types}) >= 3
    for each in types:
        module, _, name = each.table.partition(":")
        assert each.choices == tuple(getattr(import_module(f"archiveprobe.{module}"), name))


def test_whoever_waits_for_embed_is_told_which_commands_take_partial() -> None:
    from archiveprobe.evaluate.caches import LEAVE_OUT

    takers = {
        command.name
        for command in every_command()
        if "--partial" in {name for parameter in command.params for name in parameter.opts}
    }
    said = LEAVE_OUT.partition("--partial of ")[2].partition(", or partial")[0]
    # Two commands are called export; only that of the caches takes it.
    assert set(said.replace(" and ", ", ").replace("cache ", "").split(", ")) == takers


def completed(*typed: str | Path) -> list[str]:
    shell = ShellComplete(cli.main, {}, "archiveprobe", "_ARCHIVEPROBE_COMPLETE")
    *words, incomplete = map(str, typed)
    return [item.value for item in shell.get_completions(words, incomplete)]


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        (["pr"], ["probe", "predict", "prove"]),
        (["submit", "{task}", "--system", ""], ["greedy", "ridge-hog"]),
        (["submit", "{task}", "--system", "ri"], ["ridge-hog"]),
        (["predict", "{task}", "--system", "g"], ["greedy"]),
        (["mistakes", "{task}", "--system", "g"], ["greedy"]),
        (["export", "{task}", "--system", "g"], ["greedy"]),
        (["export", "{task}", "--backbone", "h"], ["hog"]),
        (["threshold", "{task}/task.toml", "--system", "g"], ["greedy"]),
        (["ensemble", "{task}", "--system", "greedy", "--system", "r"], ["ridge-hog"]),
        (["compare", "{task}", ""], ["greedy", "ridge-hog"]),
        (["compare", "{task}", "ridge-hog", "g"], ["greedy"]),
        (["ensemble", "{task}", "--method", "g"], ["greedy"]),
        (["ensemble", "{task}", "--threshold-rule", "s"], ["smoothed"]),
        (["probe", "{task}", "--probe", "l"], ["lda", "logistic", "lightgbm"]),
        (["probe", "{task}", "--features", "h"], ["hog"]),
        (["probe", "{task}", "--features", "hog+m"], ["hog+mine"]),
        (["embed", "{task}", "--backbone", "mi"], ["mine"]),
        (["embed", "{task}", "--backbone", "mo"], ["mobileclip2-s4", "mobilenetv2"]),
        (["embed", "{task}", "--views", "crops"], ["crops3", "crops6"]),
        (["finetune", "{task}", "--recipe", "demo"], ["demo-tiny"]),
        (["embed", "{task}", "--device", "m"], ["mps"]),
        (["submit", "{task}/nowhere", "--system", ""], []),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_names_are_completed(task: Path, typed: list[str], names: list[str]) -> None:
    assert completed(*(word.format(task=task) for word in typed)) == names


def test_without_a_task_names_are_those_of_the_current_folder(
    task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(task)
    assert completed("submit", "--system", "") == ["greedy", "ridge-hog"]
    assert completed("compare", "greedy", "r") == ["ridge-hog"]
    monkeypatch.chdir(task / "work")
    assert completed("submit", "--system", "") == []


@pytest.mark.parametrize("typed", [["embed"], ["finetune", "--recipe"], ["score"], ["compare"]])
def test_files_are_completed_by_the_shell(typed: list[str]) -> None:
    shell = BashComplete(cli.main, {}, "archiveprobe", "_ARCHIVEPROBE_COMPLETE")
    [item] = shell.get_completions(typed, "my/ta")
    assert isinstance(item, CompletionItem)
    assert item.type == "file"


def test_completion_loads_no_library(task: Path) -> None:
    script = (
        "import sys\nfrom archiveprobe import cli\n"
        "try: cli.main(prog_name='archiveprobe')\n"
        f"except SystemExit: print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    asked = {
        "_ARCHIVEPROBE_COMPLETE": "bash_complete",
        "COMP_WORDS": f"archiveprobe submit {task} --system r",
        "COMP_CWORD": "4",
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, **asked},
        check=True,
    )
    assert done.stdout.splitlines() == ["plain,ridge-hog", "[]"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_lines_of_the_documentation_give_a_shell_its_completion(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    guide = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    assert f"_ARCHIVEPROBE_COMPLETE={shell}_source archiveprobe" in guide
    monkeypatch.setenv("_ARCHIVEPROBE_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit) as end:
        cli.main([], prog_name="archiveprobe")
    assert end.value.code == 0
    assert f"_ARCHIVEPROBE_COMPLETE={shell}_complete" in capsys.readouterr().out
