"""The command line: parses, calls one function and prints. Heavy imports happen in commands."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from terminal import NAME, Commands, example, print_result, say

if TYPE_CHECKING:
    from task.config import Task

_LIBRARIES = ("torch", "timm", "open_clip_torch", "numpy", "h5py", "scikit-learn", "pillow")


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    click.echo(f"{NAME} {version(NAME)} ({libraries})")
    ctx.exit()


_task = click.argument("task", type=click.Path(path_type=Path))
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on one line.")


@click.group(cls=Commands, **example("demo demo"))
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version)
def main() -> None:
    """Classify the photographs of an archive from a few labelled examples.

    Every command takes a task.toml, or the folder it lies in, first. `--debug` shows tracebacks.
    """


@main.command(**example("init my/photographs"))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a task.toml for a folder of pictures."""
    from task.starter import start

    file = start(folder)
    click.echo(str(file))
    say(f"look it over, then: {NAME} embed {file}")


@main.command(**example("demo demo"))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def demo(folder: Path) -> None:
    """Draw the built-in archive, with its task.toml, into a new folder."""
    from task.demo import write_demo

    write_demo(folder)
    click.echo(str(folder / "task.toml"))


@main.command(**example("weights my/task.toml"))
@_task
@_json
def weights(task: Path, as_json: bool) -> None:
    """Fetch and check the weights ahead, for nodes without a network."""
    from embed.dryrun import check_weights

    lines = [asdict(line) for line in check_weights(_load(task))]
    print_result({"weights": lines}, lines, as_json)


@main.command(
    **example("embed my/task.toml", "embed my/task.toml --backbone hog --views center"),
)
@_task
@click.option("--backbone", "backbones", multiple=True, help="Instead of the task's; repeatable.")
@click.option("--views", help="Instead of the task's, for example crops6.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto")
@click.option("--device", help='"cpu" or "cuda"; default: a GPU where there is one.')
@click.option("--batch-size", type=click.IntRange(1), help="Crops per forward pass.")
@click.option("--workers", type=click.IntRange(0), help="Decoder processes; 0: none.")
@click.option("--rehash", is_flag=True, help="Read every file again, whatever its date says.")
@click.option("--dry-run", is_flag=True, help="Say what is to do, and do nothing.")
@_json
def embed(task: Path, backbones: tuple[str, ...], dry_run: bool, as_json: bool, **how: Any) -> None:
    """Run the backbones over the photographs once, into the cache."""
    from embed.progress import bar
    from embed.run import Options, record_of
    from embed.run import embed as run

    options = Options(backbones=backbones or None, **how)
    if dry_run:
        _show_estimate(task, options, as_json)
        return
    summary = run(_load(task), options, notify=say, progress=bar)
    record = record_of(summary)
    if not as_json:
        counts = ("images", "embedded", "reused", "duplicates", "failed")
        click.echo(", ".join(f"{record[name]} {name}" for name in counts))
    if summary.reasons:
        reasons = ", ".join(f"{count} {why}" for why, count in summary.reasons.items())
        say(f"failed: {reasons}; work/manifest.csv says which, and why")
    print_result(record, [*record["caches"], *record.get("texts", ())], as_json)


def _show_estimate(task: Path, options: Any, as_json: bool) -> None:
    from embed.dryrun import dry_run

    estimate = asdict(dry_run(_load(task), options))
    if not as_json:
        click.echo(
            "{images} images, {to_decode} to decode, about {seconds} s, {bytes:,} bytes on disk "
            "({free_bytes:,} free)".format(**estimate)
        )
    if estimate["bytes"] > estimate["free_bytes"]:
        say("the disk is too small for this: make space first")
    print_result(estimate, estimate["backbones"], as_json)


@main.group(**example("cache show my/task.toml"))
def cache() -> None:
    """Look after the caches of a task."""


@cache.command(**example("cache show my/task.toml"))
@_task
@_json
def show(task: Path, as_json: bool) -> None:
    """List the caches."""
    from embed.inventory import show as find

    lines = [asdict(line) for line in find(_load(task))]
    print_result({"caches": lines}, lines, as_json)


@cache.command(**example("cache verify my/task.toml --deep"))
@_task
@click.option("--deep", is_flag=True, help="Digests, checksums and every number as well.")
@click.option("--recompute", type=click.IntRange(1), metavar="N", help="Embed N rows again.")
@click.option("--adopt", is_flag=True, help="With --recompute: carry over a library upgrade.")
@_json
def verify(task: Path, deep: bool, recompute: int | None, adopt: bool, as_json: bool) -> None:
    """Check the caches; exit status 1 when something is wrong."""
    from embed.inventory import verify_all

    if adopt and not recompute:
        raise click.UsageError("--adopt needs --recompute N")
    loaded = _load(task)
    verdict = verify_all(loaded, deep=deep)
    if recompute and verdict.ok:
        from embed.recompute import recomputed_verdict

        verdict = recomputed_verdict(loaded, verdict, recompute, adopt=adopt, notify=say)
    if as_json:
        click.echo(json.dumps(asdict(verdict)))
    else:
        click.echo(f"{verdict.shards} shards, {verdict.rows} rows, {len(verdict.bad)} faults")
        for fault in verdict.bad:
            click.echo(fault)
    if not verdict.ok:
        say("run embed again: bad shards are set aside, and it computes their rows anew")
        sys.exit(1)


@cache.command(**example("cache export my/task.toml -o all.h5"))
@_task
@click.option("--backbone", "backbones", multiple=True, help="Instead of the task's; repeatable.")
@click.option("-o", "file", required=True, type=click.Path(path_type=Path), help="The HDF5 file.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def export(task: Path, backbones: tuple[str, ...], file: Path, overwrite: bool) -> None:
    """Write one ordinary HDF5 file in the order of the table, for notebooks."""
    from embed.inventory import export_task

    done = export_task(_load(task), file, backbones, overwrite=overwrite)
    click.echo(f"{done.rows} rows in {file}")
    for remark in done.remarks:
        say(remark)


@cache.command(**example("cache prune my/task.toml --yes"))
@_task
@click.option("--yes", is_flag=True, help="Remove what is listed.")
@_json
def prune(task: Path, yes: bool, as_json: bool) -> None:
    """List, or with --yes remove, caches that the task no longer asks for, and leftovers."""
    from cache.prune import prune as remove
    from embed.inventory import unused

    items = unused(_load(task))
    if yes:
        remove(items)
    lines = [{"path": str(item.path), "bytes": item.bytes, "reason": item.reason} for item in items]
    print_result({"removed": yes, "items": lines}, lines, as_json)
    if items and not yes:
        say("nothing removed yet: add --yes")


@main.group("list", **example("list backbones"))
def list_() -> None:
    """List what there is to choose from."""


@list_.command(**example("list backbones"))
@_json
def backbones(as_json: bool) -> None:
    """The table of backbones; timm:NAME and open_clip:ARCH/TAG work too."""
    from embed.backbones import BACKBONES

    lines = [
        {
            "backbone": row.name,
            "weights": row.described,
            "width": row.width,
            "size": row.size,
            "licence": row.licence,
        }
        for row in BACKBONES.values()
    ]
    print_result({"backbones": lines}, lines, as_json)


@list_.command(**example("list views"))
@_json
def views(as_json: bool) -> None:
    """The named sets of views."""
    from embed.views import DESCRIPTIONS

    lines = [{"views": name, "what": what} for name, what in DESCRIPTIONS.items()]
    print_result({"views": lines}, lines, as_json)


def _load(task: Path) -> "Task":
    from task.config import load_task

    return load_task(task)
