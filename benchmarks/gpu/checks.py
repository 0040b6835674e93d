"""The checks of a GPU: which program each is, its part, its words and its limit of time."""

from collections.abc import Sequence
from dataclasses import dataclass

_RATIO = "embed_speed --views center crops6 --limit 1.05 --repeats 1"


@dataclass(frozen=True)
class Check:
    """A program below benchmarks/, by the name of its module, with its words on a GPU.

    `tiny` are the words instead that walk through it on a CPU; `limit` is in seconds. Checks of one
    part fit into ten minutes on one GPU with 16 cores, by estimate.
    """

    name: str
    part: int
    limit: float
    words: str
    tiny: str

    def command(self, device: str, *, tiny: bool) -> Sequence[str]:
        """Return the words to run it with."""
        return [*(self.tiny if tiny else self.words).split(), "--device", device]


CHECKS = (
    Check("agreement of precisions", 1, 120, "gpu.agreement", "gpu.agreement --tiny"),
    Check(
        "forward rates",
        1,
        150,
        "gpu.forward_rates --seconds 1 --compile",
        "gpu.forward_rates --seconds 0.1 --batches 8 --tiny",
    ),
    Check(
        "decoding",
        1,
        120,
        "gpu.decoding --images 1200",
        "gpu.decoding --images 8 --tiny",
    ),
    Check(
        "memory that ends",
        1,
        150,
        "gpu.faults --only memory",
        "gpu.faults --only memory --tiny",
    ),
    Check(
        "embed over its limit, JPEG",
        2,
        220,
        f"{_RATIO} --formats JPEG --images 1200 --networks clip clip-l14 convnext",
        "embed_speed --views center --repeats 1 --formats JPEG --images 3 --networks tiny",
    ),
    Check(
        "embed over its limit, PNG",
        2,
        220,
        f"{_RATIO} --formats PNG --images 600 --networks clip clip-l14 convnext",
        "embed_speed --views crops6 --repeats 1 --formats PNG --images 3 --networks tiny",
    ),
    Check(
        "the peers' loop",
        2,
        140,
        "peer_loop --images 1200 --decoded 4096 --repeats 1",
        "peer_loop --images 3 --decoded 4 --repeats 1 --formats JPEG",
    ),
    Check(
        "every recipe",
        3,
        560,
        "gpu.recipes --limit 60",
        "gpu.recipes --images 18 --epochs 1 --tiny",
    ),
    Check(
        "200 steps",
        4,
        240,
        "gpu.recipes --epochs 30 --recipes nu-clip-last-block kvochur-convnextv2-nano nu-resnet50",
        "gpu.recipes --images 18 --epochs 2 --tiny",
    ),
    Check(
        "an epoch over resident tensors",
        4,
        150,
        "finetune_loader --repeats 1",
        "finetune_loader --repeats 1 --images 4",
    ),
    Check(
        "embed over its limit, decoded on the card",
        4,
        160,
        f"{_RATIO} --formats JPEG --images 2400 --networks clip --decode gpu",
        "embed_speed --views center --repeats 1 --formats JPEG --images 3 --networks tiny",
    ),
    Check(
        "a run that is killed",
        5,
        180,
        "gpu.faults --only resume",
        "gpu.faults --only resume --images 18 --tiny",
    ),
    Check(
        "a small /dev/shm",
        5,
        180,
        "gpu.faults --only shm",
        "gpu.faults --only shm --images 18 --tiny",
    ),
    Check(
        "from cached tokens, and predict",
        5,
        200,
        "gpu.answers",
        "gpu.answers --images 18 --new 6 --tiny",
    ),
)
