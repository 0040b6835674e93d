"""Which images to look at first: rank."""

from pathlib import Path
from typing import Any

import click

from archiveprobe.commands.names import BACKBONE, OUTPUT, SYSTEM, Input
from archiveprobe.commands.terminal import (
    command,
    json_option,
    load,
    print_result,
    say,
    task_argument,
)


def _after_a_task(
    ctx: click.Context, _: click.Parameter, answers: tuple[Path, ...]
) -> tuple[Path, ...]:
    """Take the first word for answers where it is no task, and the task lies in this folder."""
    first = ctx.params["task"]
    is_task = first.suffix == ".toml" or (first / "task.toml").is_file()
    if ctx.resilient_parsing or is_task or not first.exists() or not Path("task.toml").is_file():
        return answers
    ctx.params["task"] = Path()
    return (first, *answers)


@command(
    "rank my/task.toml --system greedy",
    "rank my/task.toml answers --label destruction --by uncertain --top 50 -o look.csv",
    'rank my/task.toml answers --text "a bridge that has collapsed"',
)
@task_argument
@click.argument(
    "answers",
    nargs=-1,
    type=Input("what predict wrote, a folder or a table"),
    callback=_after_a_task,
)
@click.option("--label", help="Label to rank for; default: the positive one.")
@click.option(
    "--by",
    type=click.Choice(["likeliest", "uncertain", "typical"]),
    help="Order; default: likeliest.",
)
@click.option("--text", help="Rank by words instead, through a CLIP of the task.")
@click.option("--like", metavar="ID", help="Rank by likeness to an image instead.")
@click.option(
    "--backbone", type=BACKBONE, help="Backbone whose embeddings count; default: the task's first."
)
@click.option("--system", type=SYSTEM, help="System whose answers count; default: recommended.")
@click.option("--top", type=click.IntRange(1, 100_000), default=20, show_default=True, metavar="N")
@click.option("--all-duplicates", is_flag=True, help="List near-duplicates, too.")
@click.option("-o", "file", type=OUTPUT, help="Output: the list as .csv, .parquet, .xlsx, ...")
@json_option
def rank(
    task: Path,
    answers: tuple[Path, ...],
    file: Path | None,
    as_json: bool,
    by: str | None,
    **what: Any,
) -> None:
    """List the likeliest images of a label, the least certain or the most typical.

    They are the rows to predict, or ANSWERS that `predict` wrote about an archive.
    """
    named = [f"--{name}" for name in ("text", "like") if what[name] is not None]
    named += ["--by"] * (by is not None)
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} exclude each other")
    from archiveprobe.predict.rank.listing import Wish
    from archiveprobe.predict.rank.run import rank as rank_images

    wish = Wish(by=by or "likeliest", **what)
    done = rank_images(load(task), answers, wish, file=file, notify=say)
    if file is None:
        print_result(done.record(), done.lines(), as_json)
    else:
        print_result(done.record(), [], as_json, done.summary())
    for note in done.notes:
        say(f"note: {note}")
