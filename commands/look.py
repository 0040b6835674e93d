"""See and correct: look."""

from pathlib import Path
from typing import Any

import click

from archiveprobe.commands.names import OUTPUT, SYSTEM
from archiveprobe.commands.terminal import (
    NAME,
    command,
    json_option,
    language_option,
    load,
    partial_option,
    port_option,
    print_line,
    print_result,
    progress,
    say,
    task_argument,
)


@command(
    "look my/task.toml -o page.html",
    "look my/task.toml",
    "look my/task.toml --figures figures/",
)
@task_argument
@click.option("-o", "file", type=OUTPUT, help="Write the page to one .html file, and end.")
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write figures for papers, as SVG and PDF, and end.",
)
@click.option("--system", type=SYSTEM, help="System that the figures are about.")
@click.option(
    "--umap", is_flag=True, help="Draw a map by UMAP, too (the extra `umap`); PCA is always there."
)
@language_option
@port_option
@partial_option
@json_option
def look(
    task: Path,
    file: Path | None,
    figures: Path | None,
    system: str | None,
    umap: bool,
    language: str,
    port: int | None,
    partial: bool,
    as_json: bool,
) -> None:
    """Open a page to see results, images and mistakes, and to correct labels.

    Without -o and --figures a small server shows it until Ctrl-C, and writes corrections at once.
    """
    if system is not None and figures is None:
        raise click.UsageError("--system needs --figures")
    if port is not None and (file is not None or figures is not None):
        raise click.UsageError("--port is for the server, which -o and --figures do without")
    settings = load(task)
    about: dict[str, Any] = {"partial": partial, "notify": say, "progress": progress}
    if figures is not None:
        from archiveprobe.look.figures.write import write_figures

        written = write_figures(settings, figures, system=system, partial=partial, notify=say)
        record = {"figures": [str(path) for path in written]}
        print_result(record, [{"figure": str(path)} for path in written], as_json)
    maps = ("PCA", "UMAP") if umap else ("PCA",)
    if file is not None:
        from archiveprobe.look.write import write_look

        done = write_look(settings, file, maps=maps, language=language, **about)
        for entry in done.missing:
            say(f"note: {entry['what']}: {entry['command']}")
        said = f"wrote {done.file} ({done.size}): open it in a browser"
        print_result(done.record(), [], as_json, said)
    if file is None and figures is None:
        from archiveprobe.look.server.serve import serve

        if as_json:
            raise click.UsageError(f"--json needs -o or --figures; `{NAME} look` serves a page")
        serve(settings, port=port or 0, maps=maps, language=language, show=print_line, **about)
