"""The command line: one group; its commands stand in commands/ and load what they need."""

import signal

from archiveprobe.commands.stopping import end_at_once, end_with_any_parent

end_with_any_parent()
# Ctrl-C while the rest is imported ends the process; a traceback would tell nothing.
_handler = end_at_once()

import click  # noqa: E402

from archiveprobe.commands import (  # noqa: E402
    answers,
    archive,
    cache,
    certifying,
    comparing,
    films,
    finetuning,
    listing,
    look,
    ranking,
    review,
    systems,
)
from archiveprobe.commands.terminal import NAME, Commands, example  # noqa: E402

_LIBRARIES = ("torch", "timm", "open_clip_torch", "numpy", "h5py", "scikit-learn", "pillow")


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    click.echo(f"{NAME} {version(NAME)} ({libraries})")
    ctx.exit()


@click.group(cls=Commands, **example("demo my/demo"))
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version)
def main() -> None:
    """Classify the images of an archive from a few labelled examples.

    Commands on a task take its task.toml or its folder first, by default the current folder. The
    options below go before or after the command.
    """


for command in (
    archive.init,
    archive.demo,
    films.frames,
    archive.weights,
    archive.embed,
    systems.probe,
    systems.ensemble,
    comparing.leaderboard,
    comparing.compare,
    answers.mistakes,
    systems.threshold,
    systems.audit,
    finetuning.finetune,
    finetuning.recipes,
    look.look,
    certifying.certify,
    certifying.estimate,
    answers.predict,
    ranking.rank,
    review.review,
    review.prove,
    answers.submit,
    answers.score,
    answers.export,
    cache.cache,
    listing.listing,
):
    main.add_command(command)

# Whoever imports this module keeps Ctrl-C as it was.
if _handler is not None:
    signal.signal(signal.SIGINT, _handler)
