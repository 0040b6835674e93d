"""Look through what a system found, and prove it: review, prove."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from archiveprobe.commands.names import OUTPUT, SYSTEM, Input
from archiveprobe.commands.terminal import (
    command,
    json_option,
    language_option,
    load,
    port_option,
    print_line,
    print_result,
    progress,
    say,
    task_argument,
    task_before_argument,
)

_ACTIONS = ("export", "import_", "undo", "correct", "answers", "stop", "resume", "status")


@command(
    "review my/task.toml --system greedy",
    "review my/task.toml --source answers --reviewer Amal --uncertain 0.1 --twice 0.1",
    "review my/task.toml --export queue.xlsx --top 500",
    "review my/task.toml --import queue.xlsx",
    "review my/task.toml --correct",
    "review my/task.toml --stop",
)
@task_argument
@click.option("--system", type=SYSTEM, help="System whose answers order the rows to predict.")
@click.option(
    "--source",
    type=Input("what predict wrote, a folder"),
    help="Review a folder of answers instead of the rows to predict.",
)
@click.option("--name", help="Name of the review; default: the system's, or the folder's.")
@click.option("--label", help="Label to look for; default: the positive one.")
@click.option("--reviewer", help="Your name, for the record; default: the name you logged in with.")
@click.option(
    "--uncertain",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="SHARE",
    help="Share of looks at what is least certain, not likeliest.",
)
@click.option(
    "--twice",
    type=click.FloatRange(0, 1),
    default=0.0,
    metavar="SHARE",
    help="Share of images that two reviewers see, chosen at random when the review begins.",
)
@click.option(
    "--similarity",
    type=click.FloatRange(0.5, 1),
    metavar="COSINE",
    help="Cosine from which images are decided together, 0.98 by default; 1: equal files only.",
)
@click.option(
    "--refit",
    type=click.IntRange(1),
    metavar="N",
    help="Fit the probe anew after every N looks, on labels and decisions, and order by it.",
)
@click.option("--draw", is_flag=True, help="Look at the random draw that `certify` declared.")
@click.option(
    "--settle", is_flag=True, help="Let --export write the images on which two reviewers differ."
)
@click.option("-o", "--export", "export", type=OUTPUT, help="Write the queue as a table, and end.")
@click.option("--top", type=click.IntRange(1), metavar="N", help="Rows that --export writes.")
@click.option(
    "--import",
    "import_",
    type=Input("a table with answers"),
    help="Record the answers of a table, and end.",
)
@click.option(
    "--replace", is_flag=True, help="Let --import take back other answers of the same reviewer."
)
@click.option("--undo", metavar="ID", help="Take your answer to an image back, and end.")
@click.option(
    "--correct",
    is_flag=True,
    help="Record the answers in corrections.csv, so that the next probe learns from them, and end.",
)
@click.option("--answers", type=OUTPUT, help="Write the answers that count as a table, and end.")
@click.option("--stop", is_flag=True, help="Declare that reviewing ends, and end.")
@click.option("--resume", is_flag=True, help="Go on with a review that was stopped, and end.")
@click.option("--status", is_flag=True, help="Say how far it is, and how reviewers agree, and end.")
@language_option
@port_option
@json_option
def review(task: Path, as_json: bool, reviewer: str | None, **options: Any) -> None:
    """Look through images, the likeliest first, and keep every answer.

    They are the rows to predict, or, with --source, what `predict` answered of an archive. A page
    on this machine shows them grey and blurred, near-duplicates at one look; several reviewers may
    share one queue. Without --system and --source, the review there is goes on.
    """
    actions = [name for name in _ACTIONS if options[name]]
    _check(actions, {**options, "reviewer": reviewer}, as_json)
    from archiveprobe.base.wording import user_name
    from archiveprobe.review import run, sheet
    from archiveprobe.review.store import Wish

    about = ("system", "source", "name", "twice", "similarity", "label")
    wish = Wish(**{name: options[name] for name in about})
    given = load(task)
    if options["export"] is not None:
        # Before anything of a review is begun.
        sheet.sheet_target(given, options["export"])
    queue = run.open_queue(
        given,
        wish,
        uncertain=options["uncertain"],
        draw=options["draw"],
        begin=actions in ([], ["export"]),
        check=actions != ["status"],
        notify=say,
        progress=progress,
    )
    name = reviewer or user_name()
    if not actions:
        page = {key: options[key] for key in ("refit", "port", "language")}
        run.serve(queue, name, **page, progress=progress, show=print_line, notify=say)
        return
    done = {
        "export": lambda: run.export(
            queue, name, options["export"], options["top"], settle=options["settle"]
        ),
        "undo": lambda: run.undo(queue, name, options["undo"]),
        "import_": lambda: run.take_in(
            queue, name, options["import_"], say, replace=options["replace"]
        ),
        "correct": lambda: run.correct(queue, say),
        "answers": lambda: run.write_answers(queue, options["answers"]),
        "stop": lambda: run.stop(queue, name),
        "resume": lambda: run.resume(queue, name),
        "status": lambda: run.status(queue),
    }[actions[0]]()
    print_result(done.record, done.lines, as_json, done.summary)


def _check(actions: Sequence[str], options: Mapping[str, Any], as_json: bool) -> None:
    """Refuse options that have no meaning together."""
    if len(actions) > 1:
        names = " and ".join(f"--{name.rstrip('_')}" for name in actions)
        raise click.UsageError(f"{names} exclude each other")
    if as_json and not actions:
        raise click.UsageError(
            "--json needs --export, --import, --undo, --correct, --answers, --stop, --resume or "
            "--status"
        )
    for option in ("name", "reviewer"):
        if options[option] is not None and not options[option].strip():
            raise click.UsageError(f"--{option} is empty: leave it out, or give a name")
    if options["settle"] and options["export"] is None:
        raise click.UsageError("--settle needs --export; the page has a button for it")
    if options["top"] is not None and options["export"] is None:
        raise click.UsageError("--top needs --export")
    if options["replace"] and options["import_"] is None:
        raise click.UsageError("--replace needs --import")


@command("prove my/task.toml images/0042.jpg", "prove my/task.toml images/0042.jpg --json")
@task_before_argument
@click.argument("image", metavar="ID")
@click.option("--name", metavar="REVIEW", help="Review; default: the only one there is.")
@json_option
@click.pass_context
def prove(ctx: click.Context, task: Path, image: str, name: str | None, as_json: bool) -> None:
    """Tell the way of an image through a review, and compute its answer again from its bytes.

    ID is the image's id, or the SHA-256 of its bytes. Exit status 1 where anything was changed.
    """
    from archiveprobe.review.prove import prove as prove_image
    from archiveprobe.review.store import find_review

    proof = prove_image(find_review(load(task), name), image, notify=say)
    print_result(proof.record(), proof.lines(), as_json)
    if not proof.ok:
        ctx.exit(1)
