"""Every recipe of the project trained on a device, in fp32 and bf16, by the command.

    cd benchmarks; ../.venv/bin/python -m gpu.recipes [--device cuda|cpu] [--tiny]

One fold of drawn images, random weights, three epochs: whether training ends with a loss that is a
number, how far the loss of bf16 is from that of fp32, and images a second of the epochs. What an
epoch takes over the same steps on resident tensors is measured by `finetune_loader.py`.
"""

import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import Figure, arguments, exactly, load, report, run
from gpu.work import attempt, draw_task, random_backbones

from archiveprobe.embed.backbones import Backbone
from archiveprobe.finetune.recipe_file import load_recipe
from archiveprobe.finetune.recipe_names import RECIPES

_PRECISIONS = ("fp32", "bf16")
_TINY = ("demo-tiny",)


def main(words: list[str] | None = None) -> None:
    """Train, and print the table."""
    parser = arguments(__doc__, "gpu_recipes")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--limit", type=float, default=120, help="seconds for every training")
    parser.add_argument("--recipes", nargs="+", choices=sorted(RECIPES), default=sorted(RECIPES))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(words)
    before = load()
    names = _TINY if options.tiny else options.recipes
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        file = draw_task(
            Path(folder), "JPEG", options.images, backbones_of(names), tiny=options.tiny
        )
        run("embed", file, "--device", "cpu", "--json")
        for name in names:
            if load_recipe(name).model.head_init == "probe":
                backbone = load_recipe(name).model.backbone
                run("embed", file, "--backbone", backbone, "--device", options.device, "--json")
            figures += trained(file, name, options.epochs, options.device, options.limit)
    report(options.json, figures, before)


def backbones_of(names: Sequence[str]) -> list[Backbone]:
    """Return the backbones of the table that recipes train, with random weights."""
    used = {load_recipe(name).model.backbone for name in names}
    return random_backbones([name for name in sorted(used) if ":" not in name], tiny=False)


def trained(file: Path, name: str, epochs: int, device: str, limit: float) -> Iterator[Figure]:
    """Yield what became of a recipe at both precisions."""
    losses = []
    for precision in _PRECISIONS:
        words = ["finetune", file, "--recipe", name, "--fold", "0", "--device", device, "--json"]
        words += ["--set", f"schedule.epochs={epochs}", "--precision", precision]
        words += ["--set", "schedule.warmup=0"]
        # What was trained at another precision is not gone on with.
        shutil.rmtree(file.parent / "work" / "finetune", ignore_errors=True)
        done = attempt(*words, limit=limit)
        ended = "trained" if done.status == 0 else "too long" if done.status is None else "failed"
        said = ended if done.status == 0 else f"{ended}: {done.last_line}"
        yield exactly(f"outcome, {name}, {precision}", said, "trained")
        if done.status == 0:
            [part] = done.record["parts"]
            losses.append(part["loss"])
            finite = math.isfinite(part["loss"])
            yield exactly(f"loss is a number, {name}, {precision}", finite, True)
            yield Figure(f"loss, {name}, {precision}", round(part["loss"], 4))
            yield Figure(f"training, {name}, {precision}", part["seconds"], "s")
            yield Figure(f"whole command, {name}, {precision}", round(done.seconds, 1), "s")
    if len(losses) == len(_PRECISIONS):
        apart = abs(losses[1] / losses[0] - 1) if losses[0] else math.inf
        yield Figure(f"loss of bf16 over that of fp32, difference, {name}", round(apart, 4))


if __name__ == "__main__":
    main()
