"""Looking after the caches: cache show, verify, export, compact, prune, duplicates."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from archiveprobe.commands.names import BACKBONE, OUTPUT
from archiveprobe.commands.terminal import (
    NAME,
    example,
    group,
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


@group("cache", "cache show my/task.toml")
def cache() -> None:
    """Look after the caches of a task."""


@cache.command(**example("cache show my/task.toml"))
@task_argument
@json_option
def show(task: Path, as_json: bool) -> None:
    """List the caches."""
    from archiveprobe.embed.inventory import OK, list_caches

    record = [asdict(line) for line in list_caches(load(task))]
    print_result({"caches": record}, map(_shown, record), as_json)
    damaged = [line for line in record if line["state"] != OK]
    for line in damaged:
        say(f"damaged: {line['cache']}: {line['state']}")
    unused = [line["cache"] for line in damaged if not line["in_use"]]
    if unused:
        say(
            f"nothing uses {', '.join(unused)}: "
            f"`{NAME} cache prune {shell_path(task)} --yes` removes it"
        )


def _shown(line: dict[str, Any]) -> dict[str, Any]:
    """Return what people need of a cache, within 80 characters."""
    from archiveprobe.base.wording import file_size

    shown = {
        "cache": line["cache"],
        "rows": line["rows"],
        "failed": line["failures"],
        "numbers": f"{' x '.join(map(str, [line['views'], *line['shape']]))} {line['precision']}",
        "size": file_size(line["bytes"]),
        "used": line["in_use"],
    }
    if line["state"] != "ok":
        shown["state"] = "damaged"
    # Said wherever it is so, since nothing that is computed with them is a result.
    return {**shown, "weights": "random"} if line["random_weights"] else shown


@cache.command(**example("cache verify my/task.toml --deep"))
@task_argument
@click.option("--deep", is_flag=True, help="Check digests, checksums and every number as well.")
@click.option(
    "--recompute",
    type=click.IntRange(1),
    metavar="N",
    help="Embed N random rows again, and compare.",
)
@click.option(
    "--adopt", is_flag=True, help="With --recompute: keep the rows after a library upgrade."
)
@json_option
def verify(task: Path, deep: bool, recompute: int | None, adopt: bool, as_json: bool) -> None:
    """Check the caches; exit status 1 when something is wrong."""
    from archiveprobe.base.wording import number_of
    from archiveprobe.embed.inventory import verify_caches

    if adopt and not recompute:
        raise click.UsageError("--adopt needs --recompute N")
    loaded = load(task)
    verdict = verify_caches(loaded, deep=deep)
    if recompute and verdict.ok:
        from archiveprobe.embed.recompute import verify_recomputed

        verdict = verify_recomputed(loaded, verdict, recompute, adopt=adopt, notify=say)
    counts = (verdict.shards, "shard"), (verdict.rows, "row"), (len(verdict.bad), "fault")
    said = ", ".join(number_of(count, noun) for count, noun in counts)
    print_result(asdict(verdict), [], as_json, said)
    if not as_json:
        for fault in verdict.bad:
            print_line(fault)
    if not verdict.ok:
        for name in verdict.removable:
            say(f"nothing uses {name}: `{NAME} cache prune {shell_path(task)} --yes` removes it")
        if len(verdict.removable) < len({fault.partition(": ")[0] for fault in verdict.bad}):
            say("run embed again: bad shards are set aside, and it computes their rows again")
        sys.exit(1)


@cache.command(**example("cache export my/task.toml -o all.h5"))
@task_argument
@click.option(
    "--backbone",
    "backbones",
    type=BACKBONE,
    multiple=True,
    help="Backbone to export instead of the task's; repeatable.",
)
@click.option("-o", "file", required=True, type=OUTPUT, help="Output file.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["hdf5", "parquet", "lance", "npy"]),
    help="Form of the output; by default its ending says.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@partial_option
@json_option
def export(
    task: Path,
    backbones: tuple[str, ...],
    file: Path,
    form: str | None,
    overwrite: bool,
    partial: bool,
    as_json: bool,
) -> None:
    """Write the embeddings in the order of the table, for notebooks and other tools."""
    from archiveprobe.base.wording import number_of
    from archiveprobe.embed.export import export_task

    done = export_task(load(task), file, backbones, form=form, overwrite=overwrite, partial=partial)
    about = "" if done.partial is None else f" ({done.partial})"
    said = f"{number_of(done.rows, 'row')} in {file}{about}"
    print_result({"file": str(file), **asdict(done)}, [], as_json, said)
    for remark in done.remarks:
        say(remark)


@cache.command(**example("cache compact my/task.toml"))
@task_argument
@json_option
def compact(task: Path, as_json: bool) -> None:
    """Rewrite the caches into few large shards of 256 MB."""
    from archiveprobe.base.wording import file_size
    from archiveprobe.embed.inventory import compact_caches

    record = [asdict(line) for line in compact_caches(load(task), notify=say)]
    lines = [{**line, "bytes": file_size(line["bytes"])} for line in record]
    print_result({"caches": record}, lines, as_json)


@cache.command(**example("cache prune my/task.toml --yes"))
@task_argument
@click.option("--yes", is_flag=True, help="Remove what is listed.")
@json_option
def prune(task: Path, yes: bool, as_json: bool) -> None:
    """List, or with --yes remove, caches that the task no longer asks for, and leftovers."""
    from archiveprobe.base.wording import file_size
    from archiveprobe.cache.prune import prune as remove
    from archiveprobe.embed.inventory import unused_caches
    from archiveprobe.predict.archive_table import leftovers

    loaded = load(task)
    items = unused_caches(loaded)
    if yes:
        remove(items)
    record = [
        {"path": str(item.path), "bytes": item.bytes, "reason": item.reason} for item in items
    ]
    lines = [
        {
            "path": item.path.relative_to(loaded.work / "cache"),
            "size": file_size(item.bytes),
            "reason": item.reason,
        }
        for item in items
    ]
    print_result({"removed": yes, "items": record}, lines, as_json)
    if not items:
        say("nothing to prune")
    if items and not yes:
        say("nothing removed yet: add --yes")
    for remark in leftovers(loaded):
        say(remark)


@cache.command(**example("cache duplicates my/task.toml -o duplicates.csv"))
@task_argument
@click.option(
    "--backbone", type=BACKBONE, help="Backbone to compare by; default: the task's first."
)
@click.option(
    "--similarity",
    type=click.FloatRange(0.5, 1),
    default=0.95,
    show_default=True,
    help="Lowest cosine of near-duplicates.",
)
@click.option(
    "-o", "file", required=True, type=OUTPUT, help="Output: group, id, ...; .csv, .parquet, ..."
)
@json_option
def duplicates(task: Path, file: Path, as_json: bool, **how: Any) -> None:
    """Write the groups of near-duplicates among all embedded images.

    Those of archives too, where their embeddings are kept.
    """
    from archiveprobe.predict.duplicates import write_duplicates

    done = write_duplicates(load(task), file, progress=progress, **how)
    print_result(done.record(), [], as_json, done.summary())
    for note in done.notes:
        say(f"note: {note}")
