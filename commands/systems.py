"""Systems on the cache: probe, ensemble, threshold, audit."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from archiveprobe.commands.terminal import (
    NAME,
    command,
    json_option,
    load,
    partial_option,
    print_result,
    say,
    task_argument,
)

if TYPE_CHECKING:
    from archiveprobe.evaluate.leaderboard import Leaderboard

_CUTS = ("smoothed", "exact", "grid", "half")
_cut = click.option(
    "--cut",
    type=click.Choice(_CUTS),
    default="smoothed",
    show_default=True,
    help="How the cut between two labels is chosen.",
)


@command(
    "probe my/task.toml",
    "probe my/task.toml --probe ridge --features clip-vit-b32+convnextv2-nano-384:rows",
)
@task_argument
@click.option("--probe", "probes", multiple=True, help="Instead of the default ones; repeatable.")
@click.option(
    "--features",
    multiple=True,
    metavar="B[+B...][:mean|rows|logits]",
    help="Backbones, and how their views are used; repeatable.",
)
@_cut
@click.option("--seed", type=int, default=0, show_default=True, help="For what draws lots.")
@click.option("--workers", type=click.IntRange(1), help="Threads; default: one per core.")
@partial_option
@json_option
def probe(
    task: Path,
    probes: tuple[str, ...],
    features: tuple[str, ...],
    cut: str,
    seed: int,
    workers: int | None,
    partial: bool,
    as_json: bool,
) -> None:
    """Cross-validate probes on the cache: the leaderboard."""
    from archiveprobe.base.progress import bar
    from archiveprobe.probe.run import Options, run_probes

    options = Options(probes or None, features or None, cut, seed, workers, partial)
    show_board(run_probes(load(task), options, notify=say, progress=bar), task, as_json)


@command("ensemble my/task.toml --method mean")
@task_argument
@click.option(
    "--method",
    type=click.Choice(["mean", "probability", "rank", "vote", "greedy", "stack"]),
    default="greedy",
    show_default=True,
)
@click.option("--system", "systems", multiple=True, help="Instead of all; repeatable.")
@click.option("--name", help="What to call it; default: like its method.")
@click.option(
    "--ties",
    type=click.Choice(["mean", "positive", "other"]),
    default="mean",
    show_default=True,
    help="How a vote settles a tie: by the mean logit, for or against the positive label.",
)
@_cut
@partial_option
@json_option
def ensemble(
    task: Path,
    method: str,
    systems: tuple[str, ...],
    name: str | None,
    ties: str,
    cut: str,
    partial: bool,
    as_json: bool,
) -> None:
    """Combine stored systems into one, and compare it with them."""
    from archiveprobe.evaluate.keep import run_ensemble
    from archiveprobe.probe.run import beware

    board = run_ensemble(
        load(task),
        method,
        systems,
        cut=cut,
        name=name,
        ties=ties,
        beware=beware,
        partial=partial,
    )
    show_board(board, task, as_json)


def show_board(board: "Leaderboard", task: Path, as_json: bool) -> None:
    """The leaderboard, and what to do with it."""
    lines = [
        {
            "system": line.system,
            "features": line.features,
            "macro-F1": f"{line.macro_f1:.4f}",
            "95 % interval": f"{line.low:.3f} - {line.high:.3f}",
            "accuracy": f"{line.accuracy:.4f}",
            "cut": "-" if line.threshold is None else f"{line.threshold:.3f}",
            "naive": f"{line.naive:.4f}",
            "seconds": f"{line.seconds:.1f}",
        }
        for line in board.lines
    ]
    print_result(board.record(), lines, as_json)
    for warning in board.warnings:
        say(f"note: {warning}")
    if not as_json:
        say(f"the 95 % intervals rest on {board.lines[0].groups} independent groups of rows")
        if board.partial is not None:
            click.echo(f"recommended: {board.best} ({board.partial})")
            say(f"then: {NAME} embed {task}")
            return
        click.echo(f"recommended: {board.best}")
        say(f"then: {NAME} submit {task} --system {board.best} -o answers.csv")


@command(
    "threshold my/task.toml --system logistic-hog",
    "threshold my/task.toml --system logistic-hog --set 0.4",
)
@task_argument
@click.option("--system", required=True, help="Whose cut; `list systems` shows them.")
@click.option("--cut", "method", type=click.Choice(_CUTS), help="Choose the cut anew, and keep it.")
@click.option("--set", "fixed", type=float, metavar="P", help="Fix the cut by hand, and keep it.")
@json_option
def threshold(
    task: Path, system: str, method: str | None, fixed: float | None, as_json: bool
) -> None:
    """Show the curve of macro-F1 over the cut, and the chosen cut; or choose another."""
    from archiveprobe.evaluate.recut import report_cut

    if method is not None and fixed is not None:
        raise click.UsageError("--cut and --set exclude each other")
    report = report_cut(load(task), system, method=method, fixed=fixed)
    print_result(report.record(), report.lines(), as_json)
    if not as_json:
        low, high = report.interval
        cut = report.cut
        spread = f"{cut.low:.3f} - {cut.high:.3f}"
        click.echo(f"cut {cut.value:.3f} ({cut.method}); it could as well lie in {spread}")
        click.echo(
            f"macro-F1 {report.macro_f1:.4f} ({low:.3f} - {high:.3f}) with cuts chosen on other "
            f"rows, {report.naive:.4f} on the same rows, {report.at_half:.4f} at 0.5"
        )


@command("audit my/task.toml", "audit my/task.toml --apply")
@task_argument
@click.option("--apply", is_flag=True, help="Cut the folds anew, near-duplicates together.")
@partial_option
@json_option
def audit(task: Path, apply: bool, partial: bool, as_json: bool) -> None:
    """Look for near-duplicates, suspect labels, shortcuts and a shift to the rows to predict."""
    from archiveprobe.base.progress import bar
    from archiveprobe.probe.audit import run_audit

    found = run_audit(load(task), apply=apply, partial=partial, notify=say, progress=bar)
    print_result(found.record(), found.lines(), as_json)
    for warning in found.warnings:
        say(f"note: {warning}")
    if not as_json:
        for file in found.files:
            say(f"wrote {file}")
    if found.regrouped:
        say(f"folds.csv was cut anew; systems out of date: {', '.join(found.stale) or 'none'}")
