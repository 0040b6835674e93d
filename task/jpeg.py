"""JPEG through simplejpeg: exactly as Pillow decodes it, or faster and with other pixels.

Both are libjpeg-turbo: with the exact inverse transform and smooth upsampling, which are Pillow's,
simplejpeg gives the very same pixels with fewer copies on the way. It refuses also what the library
only warns about; all of that is Pillow's, whose word decides every status.
"""

import simplejpeg
from PIL import Image

from archiveprobe.task.config import Decode

# Both sides of an image keep at least as many pixels where it is decoded at half, a quarter or an
# eighth of its size. The library's faster transform is no part of "fast": it saves nothing where
# the exact one is vectorised, and moves embeddings most (see LOG.md).
FAST_SIDE = 512
_REDUCED = {"min_height": FAST_SIDE, "min_width": FAST_SIDE, "min_factor": 2}
_FORMATS = ("JPEG", "MPO")
_MODES = ("L", "RGB")


def decode_jpeg(content: bytes, opened: Image.Image, how: Decode) -> Image.Image | None:
    """Decode a file that Pillow has opened; None where it is no JPEG, or one for Pillow only.

    Returns:
        RGB, as stored (no orientation applied); of several images the first.
    """
    if not content or opened.format not in _FORMATS or opened.mode not in _MODES:
        return None
    fast = how == "fast"
    try:
        pixels = simplejpeg.decode_jpeg(
            content, "RGBA", fastdct=False, fastupsample=fast, **(_REDUCED if fast else {})
        )
    except ValueError:
        return None
    height, width, _ = pixels.shape
    if not fast and (width, height) != opened.size:
        return None
    # Four bytes a pixel are how Pillow itself keeps RGB, so that nothing is copied.
    import pyarrow

    flat = pyarrow.array(pixels.reshape(-1))
    return Image.fromarrow(pyarrow.FixedSizeListArray.from_arrays(flat, 4), "RGB", (width, height))
