"""Systems on the cache: probe, ensemble, threshold, audit."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from archiveprobe.commands.names import FEATURES, PROBE, SYSTEM, TableChoice
from archiveprobe.commands.terminal import (
    NAME,
    command,
    json_option,
    load,
    partial_option,
    print_line,
    print_result,
    progress,
    say,
    shell_path,
    task_argument,
)

if TYPE_CHECKING:
    from archiveprobe.evaluate.leaderboard import Leaderboard, Line

_rule = click.option(
    "--threshold-rule",
    type=TableChoice("evaluate.thresholding:THRESHOLD_RULES"),
    help="How thresholds are chosen; default: what `threshold` has stored, else smoothed.",
)


@command(
    "probe my/task.toml",
    "probe my/task.toml --probe ridge --features clip-vit-b32+convnextv2-nano-384:rows",
)
@task_argument
@click.option(
    "--probe",
    "probes",
    type=PROBE,
    multiple=True,
    help="Probe to try instead of the default ones; repeatable.",
)
@click.option(
    "--features",
    type=FEATURES,
    multiple=True,
    metavar="B[+B...][:mean|rows|logits]",
    help="Backbones, and how their views are combined; repeatable.",
)
@_rule
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--workers", type=click.IntRange(1), help="Threads; default: one per core.")
@partial_option
@json_option
def probe(
    task: Path,
    probes: tuple[str, ...],
    features: tuple[str, ...],
    threshold_rule: str | None,
    seed: int,
    workers: int | None,
    partial: bool,
    as_json: bool,
) -> None:
    """Cross-validate probes on the cache: the leaderboard."""
    from archiveprobe.probe.run import Options, run_probes

    options = Options(probes or None, features or None, threshold_rule, seed, workers, partial)
    show_board(run_probes(load(task), options, notify=say, progress=progress), task, as_json)


@command("ensemble my/task.toml --method mean")
@task_argument
@click.option(
    "--method",
    type=TableChoice("evaluate.combine:METHODS"),
    default="greedy",
    show_default=True,
)
@click.option(
    "--system",
    "systems",
    type=SYSTEM,
    multiple=True,
    help="Member, instead of all systems; repeatable.",
)
@click.option("--name", help="Name of the ensemble; default: its method.")
@click.option(
    "--ties",
    type=TableChoice("evaluate.combine:TIES"),
    default="mean",
    show_default=True,
    help="How a vote settles a tie: by the mean logit, for or against the positive label.",
)
@_rule
@partial_option
@json_option
def ensemble(
    task: Path,
    method: str,
    systems: tuple[str, ...],
    name: str | None,
    ties: str,
    threshold_rule: str | None,
    partial: bool,
    as_json: bool,
) -> None:
    """Combine stored systems into one, and compare it with them."""
    from archiveprobe.evaluate.ensemble import run_ensemble
    from archiveprobe.probe.run import data_warnings

    board = run_ensemble(
        load(task),
        method,
        systems,
        threshold_rule=threshold_rule,
        name=name,
        ties=ties,
        data_warnings=data_warnings,
        partial=partial,
    )
    show_board(board, task, as_json)


def _threshold_cell(line: "Line") -> str:
    """Return a threshold, and its rule where that is not the default one."""
    from archiveprobe.evaluate.thresholding import DEFAULT_RULE

    rule = line.threshold_rule or DEFAULT_RULE
    name = "" if rule == DEFAULT_RULE else f" {rule.split()[0]}"
    return "-" if line.threshold is None else f"{line.threshold:.3f}{name}"


def _board_lines(board: "Leaderboard") -> list[dict[str, str]]:
    """Return the lines of a leaderboard for people: what `--json` has beside fits no terminal."""
    about = {} if board.partial is None else {"rows": board.partial}
    lines = [
        {
            "system": line.system,
            "macro-F1 [95% CI]": f"{line.macro_f1:.4f} [{line.low:.3f}, {line.high:.3f}]",
            "accuracy": f"{line.accuracy:.4f}",
            "threshold": _threshold_cell(line),
            "optimistic": f"{line.optimistic:.4f}",
            **about,
        }
        for line in board.lines
    ]
    majority = {
        "system": "majority class",
        "macro-F1 [95% CI]": f"{board.majority.macro_f1:.4f}",
        "accuracy": f"{board.majority.accuracy:.4f}",
    }
    return [*lines, {name: majority.get(name, "-") for name in lines[0]} | about]


def show_board(board: "Leaderboard", task: Path, as_json: bool) -> None:
    """Print the leaderboard, and what to do with it."""
    print_result(board.record(), _board_lines(board), as_json)
    if board.selection is not None and not as_json:
        line = board.selection
        interval = f"[{line.low:.3f}, {line.high:.3f}]"
        partial = f" ({line.features})" if line.features else ""
        print_line(
            f"{line.system}: macro-F1 {line.macro_f1:.4f} {interval}, "
            f"optimistic {line.optimistic:.4f}{partial}"
        )
    for warning in board.warnings:
        say(f"note: {warning}")
    if as_json:
        return
    say(f"the 95 % intervals rest on {board.lines[0].groups} independent groups of rows")
    partial = "" if board.partial is None else f" ({board.partial})"
    if board.best is None:
        print_line(f"recommended: none{partial}, {board.reason}")
    else:
        print_line(f"recommended: {board.best}{partial}" + (board.reason and f", {board.reason}"))
    place = shell_path(task)
    if board.partial is not None:
        say(f"then: {NAME} embed {place}")
    elif board.best is None:
        say(f"then: {NAME} audit {place}, label more images, or try other backbones")
    elif board.to_predict:
        say(f"then: {NAME} submit {place} --system {board.best} -o answers.csv")
    else:
        say(f"then: {NAME} predict {place} --system {board.best} --images FOLDER -o answers.csv")


@command(
    "threshold my/task.toml --system logistic-hog",
    "threshold my/task.toml --system logistic-hog --set 0.4",
    "threshold my/task.toml --system logistic-hog --recall 0.95",
)
@task_argument
@click.option("--system", type=SYSTEM, required=True, help="System to show; see `list systems`.")
@click.option(
    "--threshold-rule",
    "method",
    type=TableChoice("evaluate.thresholding:THRESHOLD_RULES"),
    help="Choose it by this rule, and store it.",
)
@click.option("--set", "fixed", type=float, metavar="P", help="Set it to P, and store it.")
@click.option("--recall", type=float, metavar="R", help="Find at least the share R; store it.")
@click.option(
    "--precision", type=float, metavar="P", help="Be right in at least the share P; store it."
)
@click.option(
    "--cost", metavar="FN:FP", help="Cost of a miss and of a false alarm, as 5:1; store it."
)
@click.option(
    "--label", "labels", multiple=True, help="Label to aim for, not the positive one; repeatable."
)
@json_option
def threshold(task: Path, system: str, labels: tuple[str, ...], as_json: bool, **how: Any) -> None:
    """Show the threshold of a system, or choose another."""
    from archiveprobe.evaluate.choose_threshold import report_thresholds
    from archiveprobe.evaluate.threshold_report import ThresholdReport

    given = {name: value for name, value in how.items() if value is not None}
    if len(given) > 1:
        names = " and ".join(f"--{_OPTIONS.get(name, name)}" for name in given)
        raise click.UsageError(f"{names} exclude each other")
    if labels and not given.keys() & {"recall", "precision", "cost"}:
        raise click.UsageError("--label needs --recall, --precision or --cost")
    report = report_thresholds(load(task), system, _rule_of(given), labels, notify=say)
    print_result(report.record(), report.lines(), as_json)
    if as_json:
        return
    for sentence in report.summary():
        print_line(sentence)
    if given and isinstance(report, ThresholdReport):
        say(
            f"stored with {system}, and kept when it is made again; ensembles that it is a member "
            "of are out of date now"
        )


_OPTIONS = {"method": "threshold-rule", "fixed": "set"}


def _rule_of(given: Mapping[str, Any]) -> str | None:
    """Return the rule that the options of `threshold` ask for, with its number."""
    from archiveprobe.evaluate.thresholding import numbered, price_of

    for name, value in given.items():
        if name == "method":
            return str(value)
        return numbered(name, price_of(value) if name == "cost" else value)
    return None


@command("audit my/task.toml", "audit my/task.toml --apply")
@task_argument
@click.option("--apply", is_flag=True, help="Assign the folds again, near-duplicates together.")
@partial_option
@json_option
def audit(task: Path, apply: bool, partial: bool, as_json: bool) -> None:
    """Look for duplicates, suspect labels, shortcuts and shift.

    A shift is a difference between the labelled rows and those to predict.
    """
    from archiveprobe.probe.audit.run import run_audit

    found = run_audit(load(task), apply=apply, partial=partial, notify=say, progress=progress)
    print_result(found.record(), found.lines(), as_json)
    for warning in found.warnings:
        say(f"note: {warning}")
    if not as_json:
        for file in found.files:
            say(f"wrote {file}")
    if found.regrouped:
        say(f"folds.csv was written again; systems out of date: {', '.join(found.stale) or 'none'}")
