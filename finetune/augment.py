"""Training pixels: from a decoded picture to the input of a network, drawn anew in every epoch.

Every draw depends on seed, epoch, row and how often the row came before in that epoch: on no worker
and no earlier draw, so that a resumed run draws what the first would have.
"""

import contextlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from archiveprobe.embed import libraries
from archiveprobe.embed.augment import Ranges, random_view
from archiveprobe.embed.preprocess import Preprocess
from archiveprobe.embed.views import RESAMPLING
from archiveprobe.finetune.schedule import generator
from archiveprobe.finetune.settings import Augment

_PIXEL = 255
_JITTERED = ("brightness", "contrast", "saturation", "hue")
# timm draws from the global generators of Python, numpy and torch; threads would share them.
_GLOBAL_DRAWS = threading.Lock()


@dataclass(frozen=True)
class Augmentation:
    """A recipe's augmentation for one network; small and picklable, so that processes can have it.

    Threads may share it, but RandAugment and erasing then run one at a time.
    """

    settings: Augment
    preprocess: Preprocess
    seed: int

    def __call__(self, picture: np.ndarray, epoch: int, row: int | str, occurrence: int = 0) -> Any:
        """A picture (height, width, 3) uint8, as a normalised float tensor (3, size, size).

        `occurrence` counts from 0 how often the row came before in this epoch: a sampler that
        balances classes repeats rows, and equal draws of a row would teach nothing new.
        """
        tensor = normalised(self.pixels(picture, epoch, row, occurrence), self.preprocess)
        if self.settings.erasing:
            erase = libraries.timm_part("data.random_erasing").RandomErasing(
                self.settings.erasing, mode="pixel", device="cpu"
            )
            with _seeded(generator("erasing", *self._words(epoch, row, occurrence))):
                tensor = erase(tensor)
        return tensor

    def pixels(
        self, picture: np.ndarray, epoch: int, row: int | str, occurrence: int = 0
    ) -> np.ndarray:
        """The same before normalisation and erasing: (size, size, 3) uint8."""
        rng = generator("augment", *self._words(epoch, row, occurrence))
        geometry = self.preprocess.geometry
        view = random_view(
            Image.fromarray(picture), geometry.size, self.resampling, rng, self._ranges()
        )
        if self.settings.rand_augment is not None:
            policy = rand_augment(
                self.settings.rand_augment, geometry.size, self.preprocess.mean, self.resampling
            )
            with _seeded(rng):
                view = policy(view)
        return np.array(view)

    def _words(self, epoch: int, row: int | str, occurrence: int) -> tuple[int | str, ...]:
        words = (self.seed, epoch, row)
        return (*words, occurrence) if occurrence else words

    @property
    def resampling(self) -> Image.Resampling:
        """How crops are resized."""
        asked = self.settings.interpolation
        own = self.preprocess.geometry.interpolation
        return RESAMPLING[own if asked == "weights" else asked]

    def _ranges(self) -> Ranges:
        settings = self.settings
        jitter = dict(zip(_JITTERED, settings.jitter, strict=True))
        return Ranges(
            settings.crop_scale, settings.crop_ratio, settings.flip, settings.rotation, jitter
        )


@cache
def rand_augment(
    policy: str, size: int, mean: tuple[float, float, float], resampling: Image.Resampling
) -> Any:
    """timm's RandAugment of that notation; what it moves away shows the mean colour."""
    hparams = {
        "translate_const": int(size * 0.45),
        "img_mean": tuple(round(_PIXEL * value) for value in mean),
        "interpolation": resampling,
    }
    made = libraries.timm_part("data.auto_augment").rand_augment_transform(policy, hparams)
    for operation in made.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterized
    return made


def _posterized(view: Image.Image, bits: int, **_: Any) -> Image.Image:
    """At the highest magnitude timm asks for 0 bits, a black picture, and Pillow 13 refuses."""
    return ImageOps.posterize(view, max(1, bits)) if bits < 8 else view


def normalised(pixels: np.ndarray, preprocess: Preprocess) -> Any:
    """uint8 pixels (..., height, width, 3) as a float tensor (..., 3, height, width)."""
    torch = libraries.torch()
    given = (preprocess.mean, preprocess.std)
    mean, std = (torch.tensor(values)[:, None, None] for values in given)
    # Channels first before any arithmetic: three times as fast, and the same to the bit.
    planes = torch.from_numpy(pixels).movedim(-1, -3)
    tensor = planes.to(torch.float32, memory_format=torch.contiguous_format)
    return tensor.div_(_PIXEL).sub_(mean).div_(std)


def mixed_share(alpha: float, seed: int, epoch: int, step: int) -> float:
    """What share of itself every row of a batch keeps in MixUp; 1 where alpha is 0."""
    return float(generator("mixup", seed, epoch, step).beta(alpha, alpha)) if alpha else 1.0


def mix(pixels: Any, share: float) -> Any:
    """Every picture of a batch (n, ...) mixed with its partner from the other end of the batch.

    timm's class draws from numpy's global generator and refuses odd batches; its targets are used
    (`losses.soft_targets`).
    """
    return pixels if share == 1 else pixels * share + pixels.flip(0) * (1 - share)


@contextlib.contextmanager
def _seeded(rng: np.random.Generator) -> Iterator[None]:
    """Global generators that start from `rng` and are put back afterwards.

    Of torch only the CPU's: torch.manual_seed would restart the GPU's, and with it all dropout.
    """
    torch_cpu = libraries.torch().default_generator
    seeds = [int(word) for word in rng.integers(0, 2**32, 3)]
    with _GLOBAL_DRAWS:
        before = random.getstate(), np.random.get_state(), torch_cpu.get_state()  # noqa: NPY002
        random.seed(seeds[0])
        np.random.seed(seeds[1])  # noqa: NPY002
        torch_cpu.manual_seed(seeds[2])
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            torch_cpu.set_state(before[2])
