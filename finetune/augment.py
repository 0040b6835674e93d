"""Training pixels: from a decoded image to the input of a network, drawn again in every epoch.

Every draw depends on seed, epoch, row and how often the row came before in that epoch: on no worker
and no earlier draw, so that a resumed run draws what the first would have.

Crop, flip, rotation and colour jitter are those of embed/augment.py and not torchvision's v2:
torchvision draws from torch's generator in another order, so the views that `embed` caches as
`augmentK`, and the pixels of every run before, would become others.
"""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from archiveprobe.embed.augment import Ranges, random_view, seeded
from archiveprobe.embed.libraries import make_torchvision_importable
from archiveprobe.embed.preprocess import Preprocess
from archiveprobe.embed.views import RESAMPLING
from archiveprobe.finetune.recipe import Augment

if TYPE_CHECKING:
    import torch

_PIXEL = 255
_JITTERED = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Augmentation:
    """A recipe's augmentation for one network; small and picklable, so that processes can have it.

    RandAugment and erasing borrow the global generators while they draw, so threads must not.
    """

    settings: Augment
    preprocess: Preprocess
    seed: int

    def __call__(
        self, image: np.ndarray, epoch: int, row: int, occurrence: int = 0
    ) -> "torch.Tensor":
        """Draw a training input from an image (height, width, 3) uint8; see `as_floats`.

        Bytes (size, size, 3) uint8, a quarter of what floats take on their way to the device; with
        erasing, whose noise is drawn after normalisation, floats (3, size, size). `occurrence`
        counts from 0 how often the row came before in this epoch: a sampler that balances classes
        repeats rows, and equal draws of a row would teach nothing new.
        """
        import torch

        pixels = self.pixels(image, epoch, row, occurrence)
        if not self.settings.erasing:
            return torch.from_numpy(pixels)
        make_torchvision_importable()
        from timm.data.random_erasing import RandomErasing

        erase = RandomErasing(  # type: ignore[no-untyped-call]
            self.settings.erasing, mode="pixel", device="cpu"
        )
        with _global_generators(seeded("erasing", *self._words(epoch, row, occurrence))):
            levels = _levels(self.preprocess)
            planes = np.stack([levels[band][pixels[..., band]] for band in range(3)])
            erased: torch.Tensor = erase(torch.from_numpy(planes))
        return erased

    def pixels(self, image: np.ndarray, epoch: int, row: int, occurrence: int = 0) -> np.ndarray:
        """Draw the same before normalisation and erasing: (size, size, 3) uint8."""
        settings, size = self.settings, self.preprocess.geometry.size
        rng = seeded("augment", *self._words(epoch, row, occurrence))
        jitter = dict(zip(_JITTERED, settings.jitter, strict=True))
        ranges = Ranges(
            settings.crop_scale, settings.crop_ratio, settings.flip, settings.rotation, jitter
        )
        view = random_view(Image.fromarray(image), size, self.resampling, rng, ranges)
        if settings.rand_augment is not None:
            policy = rand_augment(
                settings.rand_augment, size, self.preprocess.mean, self.resampling
            )
            with _global_generators(rng):
                view = policy(view)
        return np.array(view)

    @property
    def resampling(self) -> Image.Resampling:
        """Return how crops are resized."""
        name = self.settings.interpolation
        return RESAMPLING[self.preprocess.geometry.interpolation if name == "weights" else name]

    def _words(self, epoch: int, row: int, occurrence: int) -> tuple[int, ...]:
        return (self.seed, epoch, row, occurrence)[: 4 if occurrence else 3]


@cache
def rand_augment(
    policy: str, size: int, mean: tuple[float, float, float], resampling: Image.Resampling
) -> Any:
    """Make timm's RandAugment of that notation; what it moves away shows the mean colour."""
    make_torchvision_importable()
    from timm.data.auto_augment import rand_augment_transform

    transform: Any = rand_augment_transform(
        policy,
        {
            "translate_const": int(size * 0.45),
            "img_mean": tuple(round(_PIXEL * value) for value in mean),
            "interpolation": resampling,
        },
    )
    for operation in transform.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return transform


def _posterize(view: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Keep at least one bit: at the highest magnitude timm asks for 0, which Pillow 13 refuses."""
    return ImageOps.posterize(view, max(1, bits)) if bits < 8 else view


def as_floats(inputs: "torch.Tensor", preprocess: Preprocess) -> "torch.Tensor":
    """Return a batch as a network takes it: bytes are normalised on their device, floats stay."""
    import torch

    return normalise(inputs, preprocess) if inputs.dtype == torch.uint8 else inputs


def normalise(pixels: "np.ndarray | torch.Tensor", preprocess: Preprocess) -> "torch.Tensor":
    """Turn uint8 pixels (..., height, width, 3) into a float tensor (..., 3, height, width)."""
    import torch

    planes = torch.as_tensor(pixels).movedim(-1, -3)
    # Channels first before any arithmetic: three times as fast, and the same to the bit.
    tensor = planes.to(torch.float32, memory_format=torch.contiguous_format)
    mean, std = (_planes(each, str(tensor.device)) for each in (preprocess.mean, preprocess.std))
    return tensor.div_(_PIXEL).sub_(mean).div_(std)


@cache
def _levels(preprocess: Preprocess) -> np.ndarray:
    """Return what `normalise` makes of every byte in every band, (3, 256).

    A lookup takes one thread. torch's threads, which would share even one image, wait for each
    other, and beside other processes for the core that one of them lacks.
    """
    levels = np.arange(_PIXEL + 1, dtype=np.uint8)
    normalised = normalise(np.stack([levels] * 3, 1)[None], preprocess)
    return np.asarray(normalised[:, 0].numpy())


@cache
def _planes(values: tuple[float, float, float], device: str) -> "torch.Tensor":
    """Return three values as (3, 1, 1), kept: a copy in every step would wait for the device."""
    import torch

    with torch.inference_mode(False):
        return torch.tensor(values, device=device)[:, None, None]


def mixup_share(alpha: float, seed: int, epoch: int, step: int) -> float:
    """Draw the share of itself that every row of a batch keeps in MixUp; 1 where alpha is 0."""
    return float(seeded("mixup", seed, epoch, step).beta(alpha, alpha)) if alpha else 1.0


def mix(pixels: "torch.Tensor", share: float) -> "torch.Tensor":
    """Mix every image of a batch (n, ...) with its partner from the other end of the batch.

    With share s, image i becomes s x_i + (1 - s) x_(n-1-i), and `losses.soft_targets` mixes the
    targets by the same share (Zhang et al., 2018). timm's class draws from numpy's global generator
    and refuses odd batches.
    """
    return pixels if share == 1 else pixels * share + pixels.flip(0) * (1 - share)


@contextlib.contextmanager
def _global_generators(rng: np.random.Generator) -> Iterator[None]:
    """Start the global generators, which timm draws from, from `rng`; put them back afterwards.

    Of torch only the CPU's: torch.manual_seed would restart the GPU's, and with it all dropout.
    """
    import torch

    seeds = [int(word) for word in rng.integers(0, 2**32, 3)]
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    random.seed(seeds[0])
    np.random.seed(seeds[1])  # noqa: NPY002
    torch.default_generator.manual_seed(seeds[2])
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.default_generator.set_state(states[2])
