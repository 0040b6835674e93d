"""Whether a GPU may decode the JPEGs of a cache: only where its crops give equal embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.embed.backbones import Backbone, decoded_on_cpu
from archiveprobe.embed.gpu_jpeg import DecodeJpegs, NoDecoderError, jpeg_decoder
from archiveprobe.embed.gpu_views import (
    GpuViews,
    ViewsOf,
    by_pillow,
    is_strip,
    why_not,
)
from archiveprobe.embed.networks import LoadedBackbone, geometry_of
from archiveprobe.embed.precision import AGREEMENT, Embed, worst_cosine
from archiveprobe.embed.prepare import PreparedImage
from archiveprobe.embed.view_sets import View

COMPARED = 8
"""Images that are decoded in both ways before a GPU is believed."""


def is_decoded_on_gpu(cache: CacheRecord) -> bool:
    """Return whether a GPU decoded the JPEGs of a cache."""
    return bool(cache.fingerprint["decode"].get("jpeg") == "gpu")


def as_made(backbone: Backbone, cache: CacheRecord) -> Backbone:
    """Return a backbone with the decoding of its cache, where a GPU was asked for and refused."""
    return backbone if is_decoded_on_gpu(cache) else decoded_on_cpu(backbone)


def needed_decoder(device: str, cache: str) -> DecodeJpegs:
    """Return what decodes JPEGs on a device for a cache that a GPU has decoded.

    Raises:
        InputError: nothing does.
    """
    try:
        return jpeg_decoder(device)
    except NoDecoderError as error:
        raise InputError(refusal(cache, str(error))) from None


def refusal(cache: str, reason: str) -> str:
    """Return why a cache that a GPU has decoded cannot go on, in one line."""
    return (
        f"the images of {cache} were decoded on a GPU, and here {reason}: run this where such a "
        'GPU is, or set decode = "exact", which embeds all of them again'
    )


@dataclass(frozen=True)
class Trial:
    """Some images as a GPU decoded them, and the same as Pillow decoded them, in order.

    `lack` says why there are none; `is_untried`: nothing was there that a GPU would decode.
    """

    on_gpu: Sequence[PreparedImage]
    by_pillow: Sequence[PreparedImage]
    lack: str = ""
    is_untried: bool = False

    @classmethod
    def of(cls, images: Sequence[PreparedImage], gpu: GpuViews, views: ViewsOf) -> "Trial":
        """Decode images that lack views of "gpu" in both ways."""
        pairs = [
            (made, by_pillow(image, views))
            for image, made in zip(images, gpu.on_gpu(images), strict=True)
            if made is not None
        ]
        pairs = [(made, plain) for made, plain in pairs if plain.views]
        if not pairs:
            return cls((), (), "it decodes none of the baseline JPEGs that were tried")
        return cls([made for made, _ in pairs], [plain for _, plain in pairs])

    def judge(
        self, loaded: LoadedBackbone, views: Sequence[View], embed: Embed
    ) -> tuple[bool, str]:
        """Return whether a network embeds both alike, and a sentence that says so.

        A crop of every image is compared; `embed` runs the network.
        """
        geometry = geometry_of(loaded)
        lack = why_not(geometry, views) or self.lack
        if lack:
            return False, lack
        crops = [
            np.stack([image.views[geometry].crops[0] for image in images])
            for images in (self.on_gpu, self.by_pillow)
        ]
        mirror = np.zeros(len(crops[0]), np.bool_)
        on_gpu, exact = (embed(loaded, some, mirror) for some in crops)
        worst = worst_cosine(on_gpu, exact)
        # A NaN agrees with nothing.
        agrees = worst >= AGREEMENT
        verb = "agree" if agrees else "disagree"
        return agrees, (
            f"JPEGs decoded on the GPU {verb}, worst cosine to Pillow's {worst:.5f} over "
            f"{len(mirror)} images"
        )


class ProvedGpu:
    """Makes the views that prepared images lack, once a GPU has proved itself on some of them.

    `check` is given the trial of the first images, and raises where it is not convinced. Threads
    may share one.
    """

    def __init__(self, device: str, views: ViewsOf, check: Callable[[Trial], None]) -> None:
        self._device, self._views, self._check = device, views, check
        self._lock = Lock()
        self._gpu: GpuViews | None = None

    def complete(self, images: Sequence[PreparedImage]) -> Sequence[PreparedImage]:
        """Return images with all their views.

        Raises:
            InputError: what `check` raises.
        """
        if not any(image.jpeg for image in images):
            return images
        with self._lock:
            if self._gpu is None:
                decode, trial = make_trial(self._device, self._views, lambda: images)
                if trial.is_untried:
                    return [by_pillow(each, self._views) if each.jpeg else each for each in images]
                self._check(trial)
                assert decode is not None
                self._gpu = GpuViews(self._device, decode, self._views)
        return self._gpu.complete(images)

    def report(self, notify: Notify) -> None:
        """Say how many images were refused, and why."""
        if self._gpu is not None:
            self._gpu.report(notify)


def make_trial(
    device: str, views: ViewsOf, images: Callable[[], Sequence[PreparedImage]]
) -> tuple[DecodeJpegs | None, Trial]:
    """Try a device on the images that `images` prepares; return its decoder, None for none."""
    try:
        decode = jpeg_decoder(device)
    except NoDecoderError as error:
        return None, Trial((), (), str(error))
    views = {geometry: each for geometry, each in views.items() if not why_not(geometry, each)}
    baseline = [image for image in images() if image.jpeg]
    some = [image for image in baseline if not is_strip(image, views)][:COMPARED]
    if not some:
        kind = "but strips, which Pillow cuts, " if baseline else ""
        lack = f"there is no baseline JPEG {kind}among the images that were tried"
        return decode, Trial((), (), lack, is_untried=True)
    return decode, Trial.of(some, GpuViews(device, decode, views), views)
