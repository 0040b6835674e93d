"""What there is to choose from: list backbones, views, probes, recipes, metrics, systems."""

import re
from dataclasses import asdict
from pathlib import Path

from archiveprobe.commands.terminal import (
    example,
    group,
    json_option,
    load,
    print_result,
    say,
    task_argument,
)


@group("list", "list backbones")
def listing() -> None:
    """List what there is to choose from."""


@listing.command(**example("list backbones"))
@json_option
def backbones(as_json: bool) -> None:
    """List backbones; timm:NAME, open_clip:ARCH/TAG and tuned:SYSTEM work too."""
    from archiveprobe.embed.backbones import BACKBONES

    record = [
        {
            "backbone": row.name,
            "weights": row.described,
            "width": row.width,
            "size": row.size,
            "licence": row.licence,
        }
        for row in BACKBONES.values()
    ]
    shown = ("backbone", "library", "width", "size", "licence")
    lines = [{**line, "library": str(line["weights"]).split(":")[0]} for line in record]
    print_result(
        {"backbones": record}, [{key: line[key] for key in shown} for line in lines], as_json
    )


@listing.command(**example("list views"))
@json_option
def views(as_json: bool) -> None:
    """List view sets."""
    from archiveprobe.embed.view_sets import VIEW_SETS

    lines = [{"views": name, "what": entry.description} for name, entry in VIEW_SETS.items()]
    print_result({"views": lines}, lines, as_json)


@listing.command(**example("list probes"))
@json_option
def probes(as_json: bool) -> None:
    """List probes."""
    from archiveprobe.probe.table import PROBES

    lines = [{"probe": row.name, "what": row.what} for row in PROBES.values()]
    print_result({"probes": lines}, lines, as_json)


@listing.command(**example("list recipes"))
@json_option
def recipes(as_json: bool) -> None:
    """List recipes of fine-tuning; the path of a .toml file works too."""
    from archiveprobe.finetune.recipe_file import load_recipe, read_head
    from archiveprobe.finetune.recipe_names import RECIPES

    heads = {name: read_head(file) for name, file in RECIPES.items()}
    record = [
        {
            "recipe": name,
            "backbone": load_recipe(name).model.backbone,
            "origin": head.origin,
            "launch": head.launch,
            "published": head.published,
        }
        for name, head in heads.items()
    ]
    lines = [
        {"recipe": line["recipe"], "backbone": line["backbone"], "origin": _short(line["origin"])}
        for line in record
    ]
    print_result({"recipes": record}, lines, as_json)


def _short(origin: str) -> str:
    """Return the beginning of what a recipe's head says of its origin."""
    return re.split(r"[:,(]| of ", origin)[0].strip()


@listing.command(**example("list metrics"))
@json_option
def metrics(as_json: bool) -> None:
    """List metrics, and how each is defined."""
    from archiveprobe.evaluate.metrics import METRICS

    record = [{"metric": name, "what": metric.what} for name, metric in METRICS.items()]
    lines = [{**line, "what": line["what"].split(" (")[0]} for line in record]
    print_result({"metrics": record}, lines, as_json)


@listing.command(**example("list systems my/task.toml"))
@task_argument
@json_option
def systems(task: Path, as_json: bool) -> None:
    """List the stored systems of a task, and whether they are up to date."""
    from archiveprobe.predict.states import system_states

    loaded = load(task)
    record = [asdict(line) for line in system_states(loaded, notify=say)]
    lines = [
        {**line, "threshold": "-" if line["threshold"] is None else f"{line['threshold']:.3f}"}
        for line in record
    ]
    print_result({"systems": record}, lines, as_json)
    if not record:
        say(f"no systems yet: run `archiveprobe probe {loaded.shell_path}`")
