"""A descriptor without weights: oriented gradients and colour, the baseline that runs anywhere.

Histograms of oriented gradients after Dalal and Triggs, "Histograms of oriented gradients for human
detection" (CVPR 2005), through scikit-image, beside a coarse histogram of hue, saturation and value
over a 2 x 2 grid.
"""

import hashlib

import numpy as np

from archiveprobe.embed.networks import LoadedBackbone
from archiveprobe.embed.preprocess import Geometry, Preprocess
from archiveprobe.task.config import Decode

SIZE = 128
VERSION = 1
_CELL = 16
_BINS = 8
_GRID = 2


class Hog(LoadedBackbone):
    """The descriptor as a backbone; embeddings (n, 1860) are 1764 gradients, 96 colours."""

    def __init__(self, name: str = "hog", decode: Decode = "exact") -> None:
        digest = hashlib.sha256(f"hog {VERSION}".encode()).hexdigest()
        geometry = Geometry(SIZE, SIZE, decode=decode)
        super().__init__(name, digest, Preprocess(geometry, (0.0,) * 3, (1.0,) * 3))

    def embed(
        self, crops: np.ndarray, mirror: np.ndarray, crop: np.ndarray | None = None
    ) -> np.ndarray:
        """See LoadedBackbone."""
        shown = crops if crop is None else crops[crop]
        mirrored = np.where(mirror[:, None, None, None], shown[:, :, ::-1], shown)
        return np.stack([describe(pixels) for pixels in mirrored])


def describe(crop: np.ndarray) -> np.ndarray:
    """Describe an RGB crop (size, size, 3) uint8 by 1,860 float32 numbers."""
    from skimage.color import rgb2gray, rgb2hsv
    from skimage.feature import hog

    gradients = hog(
        rgb2gray(crop),
        orientations=9,
        pixels_per_cell=(_CELL, _CELL),
        cells_per_block=(2, 2),
        block_norm="L2-Hys",
    )
    colours = _colour_histograms(rgb2hsv(crop))
    return np.concatenate([gradients, colours]).astype(np.float32)


def _colour_histograms(hsv: np.ndarray) -> np.ndarray:
    """Return square roots of the shares of pixels per bin: 2 x 2 fields, 3 channels, 8 bins.

    With roots, the Euclidean distance between two histograms is Hellinger's.
    """
    side = hsv.shape[0] // _GRID
    bins = np.minimum((hsv * _BINS).astype(np.int64), _BINS - 1)
    fields = bins.reshape(_GRID, side, _GRID, side, 3).transpose(0, 2, 4, 1, 3)
    flat = fields.reshape(-1, side * side)
    counts = np.stack([np.bincount(row, minlength=_BINS) for row in flat])
    roots: np.ndarray = np.sqrt(counts / (side * side)).ravel()
    return roots
