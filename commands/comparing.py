"""Stored systems side by side: leaderboard, compare."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archiveprobe.commands.names import SYSTEM
from archiveprobe.commands.systems import show_board
from archiveprobe.commands.terminal import (
    command,
    json_option,
    load,
    partial_option,
    print_line,
    print_result,
    say,
    task_argument,
    task_before_argument,
)

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


@command("leaderboard my/task.toml", "leaderboard my/task.toml --latex > leaderboard.tex")
@task_argument
@partial_option
@click.option("--csv", is_flag=True, help="Every figure in full precision, for other programs.")
@click.option("--md", is_flag=True, help="A table in Markdown.")
@click.option("--latex", is_flag=True, help="A table in LaTeX, for papers (booktabs).")
@json_option
def leaderboard(task: Path, partial: bool, as_json: bool, **forms: bool) -> None:
    """Compare the stored systems; nothing is fitted."""
    chosen = [name for name, wanted in {**forms, "json": as_json}.items() if wanted]
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(f'--{name}' for name in chosen)} exclude each other")
    from archiveprobe.evaluate.board_forms import FORMS
    from archiveprobe.evaluate.ensemble import stored_leaderboard
    from archiveprobe.probe.run import data_warnings

    loaded = load(task)
    board = stored_leaderboard(loaded, data_warnings=data_warnings, partial=partial)
    if not chosen or as_json:
        show_board(board, task, as_json)
        return
    click.echo(FORMS[chosen[0]](board, loaded.name), nl=False)
    for warning in board.warnings:
        say(f"note: {warning}")


def _complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> "list[CompletionItem]":
    """Complete a system of the task that was typed before it or lies here, else a file."""
    from click.shell_completion import CompletionItem

    # click gives the words that were typed to the arguments from the right.
    typed = ctx.params["a"] or ctx.params["b"]
    folder = typed if typed and Path(typed).exists() else None
    items = [
        item
        for item in SYSTEM.complete(folder, incomplete)
        if item.value not in (ctx.params["a"], ctx.params["b"])
    ]
    return items or [CompletionItem(incomplete, type="file")]


def _after_a_task(ctx: click.Context, _: click.Parameter, b: str) -> str:
    """Refuse a task and one system, which click takes for two systems of the current folder.

    Raises InputError.
    """
    from archiveprobe.base.errors import InputError

    here, a = ctx.params["task"], ctx.params["a"]
    if ctx.resilient_parsing or here != Path():
        return b
    if a.endswith(".toml") or Path(a, "task.toml").is_file():
        raise InputError(f"only {b!r} stands after the task {a!r}: name two systems after the task")
    if not Path("task.toml").is_file():
        raise InputError(
            f"no task.toml in this folder for the systems {a!r} and {b!r}: name a task, and two "
            "systems after the task"
        )
    return b


@command("compare my/task.toml ridge-hog knn-hog")
@partial(task_before_argument, complete=_complete)
@click.argument("a", type=SYSTEM)
@click.argument("b", type=SYSTEM, callback=_after_a_task)
@partial_option
@json_option
def compare(task: Path, as_json: bool, **pair: Any) -> None:
    """Compare two systems row by row, and say whether they differ.

    Both decide the same labelled rows, out of fold.
    """
    from archiveprobe.evaluate.compare import compare_systems

    done = compare_systems(load(task), **pair)
    print_result(done.record(), done.lines(), as_json)
    for warning in done.warnings:
        say(f"note: {warning}")
    if as_json:
        return
    say(f"the 95 % intervals rest on {done.groups} independent groups of rows")
    for sentence in done.sentences():
        print_line(sentence)
