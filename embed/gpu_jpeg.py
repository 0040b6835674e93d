"""Baseline JPEGs decoded on a GPU with CUDA, by NVIDIA's library through torchvision."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from archiveprobe.base.wording import one_line
from archiveprobe.embed.libraries import make_torchvision_importable

if TYPE_CHECKING:
    import torch

DecodeJpegs = Callable[[Sequence[bytes]], "list[torch.Tensor]"]
"""Decodes files to (3, height, width) uint8 tensors; raises where it refuses one of them."""


class NoDecoderError(Exception):
    """A device decodes no JPEG; the message says why, for people."""


def jpeg_decoder(device: str) -> DecodeJpegs:
    """Return what decodes JPEGs on a device.

    Raises:
        NoDecoderError: it is no GPU with CUDA, or torchvision cannot use it.
    """
    if not device.startswith("cuda"):
        raise NoDecoderError(f"only a GPU with CUDA decodes, and this run is on {device}")
    import torch

    def decode(files: Sequence[bytes]) -> "list[torch.Tensor]":
        from torchvision.io import ImageReadMode, decode_jpeg  # type: ignore[import-untyped]

        # Copied, since torch wants memory that it may write into.
        encoded = [torch.from_numpy(np.frombuffer(file, np.uint8).copy()) for file in files]
        decoded: list[torch.Tensor] = decode_jpeg(encoded, ImageReadMode.RGB, device=device)
        return decoded

    try:
        make_torchvision_importable()
        decode([_trial_file()])
    except Exception as error:
        reason = one_line(error)
        raise NoDecoderError(f"torchvision decodes no JPEG here ({reason})") from error
    return decode


def _trial_file() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "grey").save(file, "JPEG")
    return file.getvalue()
