"""CLIP ViT-B/32 against the loop that peers run: a DataLoader, fp32, one view.

    .venv/bin/python benchmarks/peer_loop.py [--images N] [--device cpu|cuda] [--repeats N]

Twice: on decoded images, where only the network counts, and as whole runs, process start, imports
and all, over drawn 1080 x 1350 images. `peers_run` is the peers' script written out; it gets a
loader process per core, but no checks of files, no thumbnails, no manifest and no cache. Weights
are random on both sides. Each repeat measures both in turn; the figure is the median of the ratios.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from common import Figure, arguments, at_least, cores, load, report, run, timed
from drawn import draw_images, write_task
from PIL import Image

from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.forward import ForwardThreads
from archiveprobe.embed.job import crops_per_pass
from archiveprobe.embed.libraries import make_torchvision_importable
from archiveprobe.embed.networks import geometry_of, load_backbone

LIMIT = 3.0
_BATCH = 64
MODEL = "ViT-B-32-quickgelu"


def peers_run(folder: str, device: str, out: str) -> None:
    """Embed every file of a folder into one array, as scripts of papers do."""
    make_torchvision_importable()
    import open_clip
    import torch

    model, _, transform = open_clip.create_model_and_transforms(MODEL, device=device)
    model.eval()

    class Images(torch.utils.data.Dataset):
        files = sorted(Path(folder).iterdir())

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, at: int) -> object:
            return transform(Image.open(self.files[at]))

    loader = torch.utils.data.DataLoader(Images(), batch_size=_BATCH, num_workers=cores())
    with torch.no_grad():
        rows = [model.encode_image(batch.to(device)).cpu().numpy() for batch in loader]
    np.save(out, np.concatenate(rows))


def main(words: list[str] | None = None) -> None:
    """Measure both and print the table."""
    parser = arguments(__doc__, "peer_loop")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--decoded", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--formats", nargs="+", default=["JPEG", "PNG"])
    parser.add_argument("--peer", nargs=2, metavar=("FOLDER", "OUT"), help="run the loop itself")
    options = parser.parse_args(words)
    if options.peer:
        peers_run(options.peer[0], options.device, options.peer[1])
        return
    before = load()
    figures = decoded(options.decoded, options.device, options.repeats)
    for form in options.formats:
        figures += whole(form, options.images, options.device, options.repeats)
    report(options.json, figures, before)


def decoded(count: int, device: str, repeats: int) -> list[Figure]:
    """Both on images of the network's size that lie decoded in memory."""
    make_torchvision_importable()
    import open_clip
    import torch

    exact = load_backbone(Backbone("clip", "open_clip", MODEL, weights="random"), device)
    fast = exact.at(exact.faster_precisions()[0]) if exact.faster_precisions() else exact
    _, _, transform = open_clip.create_model_and_transforms(MODEL)
    model = exact._module  # type: ignore[attr-defined]
    side = geometry_of(exact).size
    crops = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    size, none = crops_per_pass(device, None), np.zeros(count, bool)
    threads = ForwardThreads(device)

    def ours() -> None:
        parts = [slice(start, start + size) for start in range(0, count, size)]
        passes = [threads.submit(fast.embed, crops[part], none[part]) for part in parts]
        for done in passes:
            done.result()
        threads.restore()

    def theirs() -> None:
        with torch.no_grad():
            for batch in torch.utils.data.DataLoader(tensors, batch_size=_BATCH):
                model(batch.to(device)).cpu()

    # The peers' tensors are made beforehand: their transform is part of decoding.
    tensors = [transform(Image.fromarray(crop)) for crop in crops]
    ours(), theirs()
    pairs = [(timed(ours)[1], timed(theirs)[1]) for _ in range(repeats)]
    what = f"decoded images ({fast.precision})"
    return compared(what, count, pairs, limit=LIMIT)


def whole(form: str, count: int, device: str, repeats: int) -> list[Figure]:
    """Both as a user starts them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_images(folder / "images", form, count)
        peer = (__file__, "--device", device, "--peer", folder / "images", folder / "rows.npy")
        pairs = []
        for number in range(repeats):
            place = folder / str(number)
            place.mkdir()
            (place / "images").symlink_to(folder / "images", target_is_directory=True)
            task = write_task(place, ["clip"], "center")
            _, mine = run("embed", task, "--device", device)
            pairs.append((mine, run(*peer, program=())[1]))
    return compared(f"whole run, {form}", count, pairs)


def compared(
    what: str, count: int, pairs: list[tuple[float, float]], limit: float | None = None
) -> list[Figure]:
    """Our images per second, the peers', and how many times as fast ours are."""
    mine, peers = (float(np.median(column)) for column in zip(*pairs, strict=True))
    ratio = round(float(np.median([theirs / ours for ours, theirs in pairs])), 2)
    name = f"times as fast as the peers' loop, {what}"
    return [
        Figure(name, ratio) if limit is None else at_least(name, ratio, limit),
        Figure(f"ours, {what}", round(count / mine, 1), "images/s"),
        Figure(f"peers' loop, {what}", round(count / peers, 1), "images/s"),
    ]


if __name__ == "__main__":
    sys.exit(main())
