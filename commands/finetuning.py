"""Networks trained on the images themselves: finetune, and the recipes for it: recipe show."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from archiveprobe.commands.names import RECIPE, TableChoice
from archiveprobe.commands.terminal import (
    NAME,
    Function,
    command,
    device_option,
    example,
    group,
    json_option,
    load,
    print_result,
    progress,
    say,
    shell_path,
    task_argument,
)


def set_option(command: Function) -> Function:
    """Add the option --set."""
    return click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Setting instead of the recipe's: schedule.epochs=5; repeatable.",
    )(command)


@command(
    "finetune my/task.toml --recipe demo-tiny --fold all",
    "finetune my/task.toml --recipe nu-clip-last-block --fold all --from-cache",
    "finetune my/task.toml --recipe demo-tiny --set schedule.epochs=5 --fold all",
    "finetune my/task.toml --recipe demo-tiny --full",
    "finetune my/task.toml --recipe demo-tiny --fold all --devices cuda:0,cuda:1",
)
@task_argument
@click.option(
    "--recipe",
    type=RECIPE,
    required=True,
    help="Recipe to train: see `list recipes`, or a .toml file.",
)
@set_option
@click.option(
    "--fold",
    metavar="K|all",
    help="Predict this fold, or all, by networks not trained on it.",
)
@click.option(
    "--full", is_flag=True, help="Train on all labelled rows, for the folds' median epoch."
)
@click.option("--from-cache", is_flag=True, help="Train the last block on cached tokens.")
@device_option
@click.option(
    "--devices",
    metavar="NAME,NAME",
    help="Train the folds side by side, one process per device: cuda:0,cuda:1.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="bf16 is faster on most GPUs; the papers used fp32.",
)
@click.option(
    "--track",
    multiple=True,
    type=TableChoice("finetune.tracking:TRACKERS"),
    help="Draw learning curves with it; wandb stays offline unless WANDB_MODE is set.",
)
@click.option("--tensorboard", is_flag=True, help="The same as --track tensorboard.")
@click.option("--workers", type=click.IntRange(0), help="Processes for images; 0: none.")
@json_option
def finetune(
    task: Path,
    as_json: bool,
    recipe: str,
    overrides: tuple[str, ...],
    track: tuple[str, ...],
    tensorboard: bool,
    **how: Any,
) -> None:
    """Train a recipe on the images themselves.

    By default it trains on the split train, and selects the epoch on validation.
    """
    from archiveprobe.finetune.recipe_file import load_recipe, override

    # A typing error is answered before the rest is loaded.
    override(load_recipe(recipe), overrides)
    from archiveprobe.finetune.run import Options, run_finetune

    trackers = tuple(dict.fromkeys([*track, *["tensorboard"] * tensorboard]))
    options = Options(recipe, overrides, track=trackers, **how)
    done = run_finetune(load(task), options, notify=say, progress=progress)
    lines = [
        {
            "part": line.part,
            "epoch": f"{line.epoch} of {line.epochs}",
            "loss": f"{line.loss:.4f}",
            "macro-F1": "-" if line.macro_f1 is None else f"{line.macro_f1:.4f}",
            "on rows": line.rows or "-",
            "seconds": f"{line.seconds:.1f}",
        }
        for line in done.parts
    ]
    print_result(done.record(), lines, as_json)
    for note in done.notes:
        say(f"note: {note}")
    if done.answers is not None:
        say(f"wrote {done.answers}")
    if done.board is None:
        return
    from archiveprobe.commands.systems import show_board

    if not as_json:
        show_board(done.board, task, as_json)
        again = f"`{NAME} ensemble {shell_path(task)}`"
        say(f"this run's system: {done.system}; {again} combines it with the rest")


@group("recipe", "recipe show demo-tiny > my.toml")
def recipes() -> None:
    """Look at recipes of fine-tuning; `list recipes` lists them."""


@recipes.command(**example("recipe show demo-tiny > my.toml"))
@click.argument("name", type=RECIPE)
@set_option
@json_option
def show(name: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print a recipe, or a .toml file, with all keys explained; what is printed is a recipe."""
    from archiveprobe.finetune.recipe_file import head_text, load_recipe, override, read_head
    from archiveprobe.finetune.recipe_names import find_recipe
    from archiveprobe.finetune.recipe_text import recipe_text, settings_of

    recipe, _ = override(load_recipe(name), overrides)
    file = find_recipe(name)
    if not as_json:
        click.echo(recipe_text(recipe, head_text(file)), nl=False)
        return
    settings = [asdict(setting) for setting in settings_of(recipe)]
    print_result({"recipe": recipe.name, **asdict(read_head(file)), "settings": settings}, [], True)
