"""Fine-tune a network on 1,714 real images, and see whether it beats a probe on the cache.

    .venv/bin/python benchmarks/finetune_images.py [--images N] [--epochs N] [--size N]

Needs ../shared. MobileNetV2, the whole of it, for a few epochs, one repeat of the folds; beside it
the probes on what the same network and its older sister give, and the greedy ensembles. Like is
compared with like: all see the same six views at the same size, are held out in the same folds and
learn all rows of the other folds. The network therefore holds nothing out to choose an epoch with:
their number is fixed, and the last one is kept. Takes about a quarter of an hour on two cores.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import Figure, arguments, load, report, run
from real_images import IMAGES, write_task

from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.intervals import compare
from archiveprobe.evaluate.leaderboard import leaderboard
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_status import load_systems
from archiveprobe.task.config import load_task

_NO_MEMBERS = ("greedy",)
TUNED = "mobilenetv2-tuned"
ALONE = "logistic-mobilenetv2"
RECIPE = """
[model]
backbone = "mobilenetv2"
start = "probe"
[loss]
smoothing = 0.1
[optimiser]
body_rate = 5e-4
[schedule]
epochs = {epochs}
warm_up = 1.0
watch = "none"
[augment]
crop_scale = [0.35, 1.0]
[ema]
remainder = 0.01
[rows]
merged = true
[predict]
views = "crops6"
"""


def main(words: list[str] | None = None) -> None:
    """Run everything and print the table."""
    parser = arguments(__doc__, "finetune_images")
    parser.add_argument("--images", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args(words)
    if not IMAGES.is_dir():
        sys.exit(f"skipped: this benchmark needs the images in {IMAGES}")
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        task = write_task(Path(folder), options.images, options.size)
        recipe = task.parent / f"{TUNED}.toml"
        recipe.write_text(RECIPE.format(epochs=options.epochs))
        figures = [*measured(task, recipe)]
    report(options.json, figures, before)


def measured(task: Path, recipe: Path) -> Iterator[Figure]:
    """Embed, probe, fine-tune, ensemble; the lines of the last leaderboard, and comparisons."""
    run("embed", task, "--json")
    first, _ = run("probe", task, "--json")
    probes = [line["system"] for line in first["leaderboard"] if line["system"] not in _NO_MEMBERS]
    run("probe", task, "--features", "mobilenetv2", "--probe", "logistic", "--json")
    tuned, seconds = run("finetune", task, "--recipe", recipe, "--fold", "all", "--json")
    yield Figure("finetune --fold all", round(seconds, 1), "s")
    rows = sum(part["epochs"] for part in tuned["parts"]) * rows_outside_a_fold(task)
    trained = sum(part["seconds"] for part in tuned["parts"])
    yield Figure("images per second, in training", round(rows / trained, 1))
    chosen = [word for name in (*probes, TUNED) for word in ("--system", name)]
    for method in ("greedy", "probability"):
        run("ensemble", task, "--method", method, "--name", f"{method}-both", *chosen)
    names = [*probes, ALONE, TUNED, "greedy", "greedy-both", "probability-both"]
    systems = load_systems(load_dataset(load_task(task)), names)
    lines = [line for line in leaderboard(systems, seconds=0.0).lines if line.system in names]
    best = next(line.system for line in lines if line.system in probes)
    for line in lines:
        told = f"{line.macro_f1:.4f} ({line.low:.3f} - {line.high:.3f})"
        yield Figure(f"nested macro-F1, {line.system}", told)
    yield against(systems, TUNED, ALONE)
    yield against(systems, TUNED, best)
    yield against(systems, "greedy-both", best)
    yield against(systems, "greedy-both", "greedy")


def rows_outside_a_fold(task: Path) -> int:
    """Return how many rows a fold learns, about."""
    dataset = load_dataset(load_task(task))
    return round(len(dataset) * (1 - 1 / dataset.folds))


def against(systems: Sequence[Predictions], name: str, other: str) -> Figure:
    """Compare two systems on the first repeat, by a paired bootstrap."""
    one, two = (next(each for each in systems if each.system == word) for word in (name, other))
    decisions = one.decision[0], two.decision[0]
    found = compare(one.labels, *decisions, one.groups, len(one.classes))
    told = f"{found.difference:+.4f} ({found.low:+.3f} - {found.high:+.3f}), p = {found.p:.3f}"
    return Figure(f"{name} over {other}", told)


if __name__ == "__main__":
    main()
