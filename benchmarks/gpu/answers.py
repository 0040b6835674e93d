"""Training from cached tokens, and answering new images, on a device, by the commands.

    cd benchmarks; ../.venv/bin/python -m gpu.answers [--device cuda|cpu] [--tiny]

The last block of a network of random weights is trained for two epochs without augmentation, end to
end and from cached tokens: the losses must agree but for the tokens' rounding to float16. The five
networks of the folds then answer new images; the rate is that of the whole command.
"""

import tempfile
from pathlib import Path

from common import Figure, arguments, at_most, exactly, load, report, run
from drawn import draw_images
from gpu.work import attempt, draw_task, random_backbones

_APART = 0.01


def main(words: list[str] | None = None) -> None:
    """Train and answer, and print the table."""
    parser = arguments(__doc__, "gpu_answers")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--new", type=int, default=1024)
    parser.add_argument("--limit", type=float, default=240, help="seconds for every command")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(words)
    before = load()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder, device = Path(name), ("--device", options.device)
        [backbone, *_] = random_backbones(["clip-vit-b32"], tiny=options.tiny)
        file = draw_task(folder, "JPEG", options.images, [backbone], tiny=options.tiny)
        recipe = folder / "block.toml"
        recipe.write_text(
            f'[model]\nbackbone = "{backbone.name}"\nunfreeze = "last-block"\n'
            '[schedule]\nepochs = 2\nmonitor = "none"\n[rows]\nmerged = true\n'
            "[augment]\ncrop_scale = [1.0, 1.0]\n"
            "crop_ratio = [1.0, 1.0]\nflip = 0.0\n"
        )
        run("embed", file, "--device", "cpu", "--json")
        train = ["finetune", file, "--recipe", recipe, "--fold", "all", *device, "--json"]
        losses = {}
        for way in ((), ("--from-cache",)):
            done = attempt(*train, *way, limit=options.limit)
            what = "from the cache" if way else "end to end"
            said = "trained" if done.status == 0 else f"{done.status}: {done.last_line}"
            figures.append(exactly(f"the last block, {what}", said, "trained"))
            losses[what] = [part["loss"] for part in done.record.get("parts", ())]
            figures.append(Figure(f"whole command, {what}", round(done.seconds, 1), "s"))
        pairs = zip(losses["end to end"], losses["from the cache"], strict=False)
        apart = [abs(cached / whole - 1) for whole, cached in pairs]
        if apart:
            name = "largest relative difference of losses, from the cache and end to end"
            value = round(max(apart), 5)
            # The centre view of the tiny network is smaller than the crop it is trained on.
            figures.append(Figure(name, value) if options.tiny else at_most(name, value, _APART))
        width, height = (108, 135) if options.tiny else (1080, 1350)
        draw_images(folder / "new", "JPEG", options.new, width=width, height=height)
        ask = ["predict", file, "--system", recipe.stem, "--images", folder / "new", *device]
        done = attempt(*ask, "-o", folder / "answers.csv", limit=options.limit)
        said = "answered" if done.status == 0 else f"{done.status}: {done.last_line}"
        figures.append(exactly("new images", said, "answered"))
        rate = round(options.new / done.seconds, 1)
        figures.append(Figure("new images by three networks, whole command", rate, "images/s"))
    report(options.json, figures, before)


if __name__ == "__main__":
    main()
