"""What a finished system answers: predict, submit, score, mistakes, export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from archiveprobe.commands.names import (
    BACKBONE,
    IMAGES,
    OUTPUT,
    SHARE,
    SYSTEM,
    TABLE_OR_FOLDER,
    Input,
)
from archiveprobe.commands.terminal import (
    Function,
    command,
    device_option,
    json_option,
    load,
    print_result,
    progress,
    say,
    task_argument,
    task_before_argument,
)


def _system(function: Function) -> Function:
    return click.option(
        "--system", type=SYSTEM, required=True, help="System to use; see `list systems`."
    )(function)


def _output(what: str) -> Callable[[Function], Function]:
    return click.option("-o", "file", required=True, type=OUTPUT, help=f"Output: {what}.")


_spreadsheet_safe = click.option(
    "--spreadsheet-safe", is_flag=True, help="Write a second file in which no cell is a formula."
)


@command(
    "predict my/task.toml --system greedy --images new/images -o answers.csv",
    "predict my/task.toml --system greedy --images s3://bucket/shards -o answers",
    "predict my/task.toml --system greedy --images list.csv --units 2/4 -o answers",
)
@task_argument
@_system
@click.option(
    "-o",
    "file",
    required=True,
    type=TABLE_OR_FOLDER,
    help="Output: a table (.csv, .parquet, .xlsx, ...); with --images also a folder of parts.",
)
@click.option(
    "--images",
    type=IMAGES,
    metavar="SOURCE",
    help="New images: a folder, a list or table of files, tars; here or in an object store.",
)
@click.option(
    "--units", type=SHARE, metavar="K/N", help="Answer the K-th of N shares, into a folder."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Who does the work.",
)
@click.option(
    "--keep-embeddings", is_flag=True, help="Keep the embeddings of new images in the task's cache."
)
@click.option("--path-column", help="Column of a table that holds the paths of new images.")
@click.option("--bytes-column", help="Column of a table that holds new images themselves.")
@click.option("--id-column", help="Column of a table that holds the ids of new images.")
@_spreadsheet_safe
@device_option
@click.option("--batch-size", type=click.IntRange(1), help="Crops per forward pass.")
@click.option("--workers", type=click.IntRange(0), help="Decoder processes; 0: none.")
@json_option
def predict(
    task: Path,
    system: str,
    file: Path,
    images: str | None,
    as_json: bool,
    spreadsheet_safe: bool,
    path_column: str | None,
    bytes_column: str | None,
    id_column: str | None,
    **how: Any,
) -> None:
    """Predict the unlabelled rows, or new images.

    The output has a row and a status for each.
    """
    if images is None:
        _predict_rows(task, system, file, as_json, spreadsheet_safe, **how)
        return
    from archiveprobe.archive.source import open_source
    from archiveprobe.predict.archive import How, predict_folder
    from archiveprobe.predict.archive_table import predict_table
    from archiveprobe.predict.file_forms import is_table

    columns = {"path_column": path_column, "bytes_column": bytes_column, "id_column": id_column}
    loaded, source = load(task), open_source(images, **columns, notify=say)
    how["share"] = how.pop("units")
    told: dict[str, Any] = {"notify": say, "progress": progress}
    if is_table(file):
        told["spreadsheet_safe"] = spreadsheet_safe
        done = predict_table(loaded, system, source, file, How(**how), **told)
    elif spreadsheet_safe:
        raise click.UsageError("--spreadsheet-safe needs a table, and -o names a folder")
    else:
        done = predict_folder(loaded, system, source, file, How(**how), **told)
    _report(done, as_json)


def _predict_rows(
    task: Path, system: str, file: Path, as_json: bool, spreadsheet_safe: bool, **how: Any
) -> None:
    from archiveprobe.predict.images import predict as answer
    from archiveprobe.predict.systems import Resources

    OUTPUT.check(None, file)
    resources = Resources(how["device"], how["workers"], progress, say)
    done = answer(
        load(task),
        system,
        file,
        spreadsheet_safe=spreadsheet_safe,
        resources=resources,
        notify=say,
    )
    _report(done, as_json)


def _report(done: Any, as_json: bool) -> None:
    """Print what was written, and say what was decided about it."""
    print_result(done.record(), done.lines(), as_json, done.summary())
    for note in done.notes:
        say(f"note: {note}")


@command(
    "submit my/task.toml --system greedy -o submission.csv",
    "submit my/task.toml --system greedy -o submission.zip",
    "submit my/task.toml --answers notebook.csv -o submission.csv",
)
@task_argument
@click.option("--system", type=SYSTEM, help="System to use; see `list systems`.")
@click.option(
    "--answers",
    type=Input("the table of answers"),
    help="Table of answers instead of a system: id, and label or probabilities.",
)
@_output("in the form of the template or of submission.columns; .csv, .zip, .parquet, ...")
@_spreadsheet_safe
@json_option
def submit(
    task: Path,
    system: str | None,
    answers: Path | None,
    file: Path,
    as_json: bool,
    **how: Any,
) -> None:
    """Write a submission, read it back, and check it row by row."""
    if (system is None) == (answers is None):
        raise click.UsageError("name one of --system and --answers")
    if answers is not None:
        from archiveprobe.predict.given_answers import submit_answers

        _report(submit_answers(load(task), answers, file, **how), as_json)
        return
    assert system is not None
    from archiveprobe.predict.submission import submit as write

    done = write(load(task), system, file, **how)
    _report(done, as_json)
    for warning in done.warnings:
        say(f"note: {warning}")


@command(
    "score submission.csv",
    "score my/task.toml submission.csv --truth test_labels.csv",
)
@task_before_argument
@click.argument("file", type=Input("the submission to score"))
@click.option(
    "--truth",
    type=Input("the table of labels with --truth"),
    help="Table of labels, where the task has none.",
)
@json_option
def score(task: Path, file: Path, truth: Path | None, as_json: bool) -> None:
    """Score a submission where labels are known.

    The figures are those of the shared task's organisers.
    """
    from archiveprobe.predict.score import score as judge

    done = judge(load(task), file, truth=truth)
    print_result(done.record(), done.lines(), as_json)
    if not as_json:
        print_result(None, done.matrix_lines(), as_json)
    for remark in done.remarks:
        say(f"note: {remark}")


@command("mistakes my/task.toml --system greedy -o mistakes.csv")
@task_argument
@_system
@_output("id, label, answer, probabilities, confidence, folds, ...; .csv, .parquet, .xlsx, ...")
@_spreadsheet_safe
@json_option
def mistakes(task: Path, system: str, file: Path, as_json: bool, **how: Any) -> None:
    """Write the labelled rows that a system gets wrong, the most confident first.

    Each was decided out of fold, by models that had not seen it.
    """
    from archiveprobe.predict.mistakes import write_mistakes

    _report(write_mistakes(load(task), system, file, **how), as_json)


@command("export my/task.toml -o rows.parquet", "export my/task.toml --system greedy -o rows.csv")
@task_argument
@_output("a row for every row of the table; .parquet (with embeddings), .csv, .json, ...")
@click.option("--system", type=SYSTEM, help="System whose answers to write; default: recommended.")
@click.option("--backbone", type=BACKBONE, help="Backbone to write; default: the task's first.")
@click.option(
    "--view", default="mean", show_default=True, help='View to write, or "mean" of all views.'
)
@json_option
def export(task: Path, file: Path, as_json: bool, **what: Any) -> None:
    """Write all rows with labels, answers, folds and embeddings, for other tools.

    Embedding Atlas, FiftyOne, DuckDB and pandas read the file.
    """
    from archiveprobe.look.export import export_rows

    _report(export_rows(load(task), file, notify=say, progress=progress, **what), as_json)
