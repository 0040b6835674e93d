"""Films become images: frames."""

from pathlib import Path

import click

from archiveprobe.commands.names import Input
from archiveprobe.commands.terminal import (
    NAME,
    command,
    json_option,
    print_result,
    progress,
    say,
    shell_path,
)


@command("frames my/films -o my/images", "frames my/films -o my/images --every 5")
@click.argument("folder", type=Input("the folder that holds the films", "folder"))
@click.option(
    "-o",
    "--output",
    "target",
    required=True,
    metavar="FRAMES",
    type=click.Path(path_type=Path),
    help="Folder for the frames and their table, frames.csv.",
)
@click.option(
    "--every",
    type=click.FloatRange(0.1, 24 * 3600),
    metavar="SECONDS",
    help="One frame in so many seconds.",
)
@click.option("--scenes", is_flag=True, help="One frame per scene; the default.")
@json_option
def frames(folder: Path, target: Path, every: float | None, scenes: bool, as_json: bool) -> None:
    """Take images out of films; run again, it reads new films only."""
    from archiveprobe.base.wording import number_of
    from archiveprobe.task.films.frames import take_frames

    if scenes and every is not None:
        raise click.UsageError("--every and --scenes exclude each other")
    done = take_frames(folder, target, every=every, notify=say, progress=progress)
    films, frames_ = number_of(done.films, "film"), number_of(done.frames, "frame")
    said = f"{films}, {done.new} of them read now, {frames_}"
    print_result(done.record(), [], as_json, said)
    if done.faulty:
        count = number_of(len(done.faulty), "film")
        say(f"{count} gave no frames or not all: films.csv says why")
    if done.frames:
        say(f"wrote {done.table}; then: {NAME} init {shell_path(target)}")
