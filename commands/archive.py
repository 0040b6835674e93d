"""From a folder of images to a cache: init, demo, weights, embed."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from archiveprobe.commands.names import BACKBONE, SHARE, VIEWS, Input
from archiveprobe.commands.terminal import (
    NAME,
    command,
    device_option,
    json_option,
    load,
    print_line,
    print_result,
    progress,
    say,
    shell_path,
    task_argument,
)


@command("init my/images", "init . --table labels.xlsx --images photos --labels intact,destroyed")
@click.argument("folder", metavar="[DIR]", default=Path(), type=click.Path(path_type=Path))
@click.option(
    "--table",
    "tables",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Table of the images instead of those found; repeatable.",
)
@click.option(
    "--images", type=click.Path(path_type=Path), help="Folder of the images; default: in DIR."
)
@click.option("--labels", help="Labels instead of those found, separated by commas.")
@click.option("--positive", help="The label to look for.")
@click.option("--force", is_flag=True, help="Replace a task.toml that is there already.")
def init(
    folder: Path,
    tables: tuple[Path, ...],
    images: Path | None,
    labels: str | None,
    positive: str | None,
    force: bool,
) -> None:
    """Write a task.toml for a folder of images.

    It is guessed from the tables and folders there.
    """
    from archiveprobe.task.layouts.init import write_task
    from archiveprobe.task.layouts.layout import Choices

    named = tuple(label.strip() for label in labels.split(",")) if labels else ()
    choices = Choices(tables, images, named, positive)
    file = write_task(folder, choices=choices, force=force, notify=say)
    click.echo(str(file))
    say(f"check it, then: {NAME} embed {shell_path(file)}")


@command("demo my/demo")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def demo(folder: Path) -> None:
    """Draw the built-in archive into a new folder."""
    from archiveprobe.demo.archive import write_demo

    summary = write_demo(folder)
    click.echo(str(folder / "task.toml"))
    say(
        f"{summary.images} images, of them {summary.reposts} re-posts and {summary.unreadable} "
        f"unreadable; then: {NAME} embed {shell_path(folder)}"
    )


@command("weights my/task.toml")
@task_argument
@json_option
def weights(task: Path, as_json: bool) -> None:
    """Download and check the weights ahead of embed."""
    from archiveprobe.embed.weights import fetch_all

    lines = [asdict(line) for line in fetch_all(load(task))]
    print_result({"weights": lines}, lines, as_json)


@command(
    "embed my/task.toml",
    "embed my/task.toml --backbone hog --views center",
    "embed my/task.toml --units 2/4",
    "embed my/people/task.toml --from my/task.toml",
)
@task_argument
@click.option(
    "--backbone",
    "backbones",
    type=BACKBONE,
    multiple=True,
    help="Backbone to run instead of the task's; repeatable.",
)
@click.option("--views", type=VIEWS, help="View set instead of the task's, for example crops6.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="auto: the cache's, or the fastest that agrees with fp32.",
)
@device_option
@click.option("--batch-size", type=click.IntRange(1), help="Crops per forward pass.")
@click.option("--workers", type=click.IntRange(0), help="Decoder processes; 0: none.")
@click.option("--rehash", is_flag=True, help="Read every file again, whatever its date.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Where to compute: this machine, or a Ray cluster.",
)
@click.option(
    "--units",
    "share",
    type=SHARE,
    metavar="K/N",
    help="Embed the K-th of N shares of the images only; run embed without it at the end.",
)
@click.option(
    "--from",
    "source",
    type=Input("a task that was embedded"),
    help="Take over what the embed of another task has made of the same images.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@json_option
def embed(
    task: Path,
    backbones: tuple[str, ...],
    source: Path | None,
    dry_run: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Run the backbones over the images once, into the cache."""
    if dry_run and source:
        raise click.UsageError("--dry-run and --from exclude each other: taking over writes")
    from archiveprobe.embed.run import Options
    from archiveprobe.embed.run import embed as run

    other = None if source is None else load(source)
    options = Options(backbones=backbones or None, source=other, **how)
    if dry_run:
        _show_estimate(task, options, as_json)
        return
    summary = run(load(task), options, notify=say, progress=progress)
    record = summary.record()
    if not as_json:
        counts = ("images", "embedded", "reused", "duplicates", "failed")
        about = f"share {summary.units}: " if summary.units else ""
        print_line(about + ", ".join(f"{record[name]} {name}" for name in counts))
        if summary.units:
            say(f"when all shares are done: {NAME} embed {shell_path(task)}")
    if summary.reasons:
        reasons = ", ".join(f"{count} {why}" for why, count in summary.reasons.items())
        say(f"failed: {reasons}; work/manifest.csv says which, and why")
    caches = [*record["caches"], *record.get("texts", ())]
    print_result(record, map(_shown, caches), as_json)


def _shown(cache: dict[str, Any]) -> dict[str, Any]:
    """Return what people need of a cache; its path begins with the backbone's name."""
    shown = {
        "cache": cache["path"],
        "rows": cache["rows"],
        "views": cache["views"],
        "width": cache["width"],
    }
    # Said wherever it is so, since nothing that is computed with them is a result.
    return {**shown, "weights": "random"} if cache["random_weights"] else shown


def _show_estimate(task: Path, options: Any, as_json: bool) -> None:
    from archiveprobe.base.wording import file_size
    from archiveprobe.embed.dry_run import dry_run

    estimate = dry_run(load(task), options)
    print_result(asdict(estimate), estimate.lines(), as_json)
    if not as_json:
        print_line(
            f"{estimate.images} images; {file_size(estimate.free_bytes)} of the disk are free"
        )
    if estimate.bytes > estimate.free_bytes:
        say("the disk is too small for this: make space first")
