"""The views of baseline JPEGs, made on a GPU: decoded, resized and cut there, a group at a time.

Decoder processes have read and checked every file, and looked at a small copy of it (see
task/jpeg.py). The crops come back as uint8 pixels, like those that the processes render, so nothing
that follows knows where they were made. Resizing is that of Pillow in real numbers: Pillow rounds
between the two directions, so pixels differ by one level now and then.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from archiveprobe.base.memory import give_back_freed_memory, is_out_of_memory
from archiveprobe.base.progress import Notify
from archiveprobe.embed.gpu_jpeg import DecodeJpegs
from archiveprobe.embed.prepare import PreparedImage
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.view_sets import View
from archiveprobe.embed.views import Cut, Rendered, cut_of, is_far, render, rendered
from archiveprobe.task.decoding import Observation, decode_pixels

if TYPE_CHECKING:
    import torch

ViewsOf = Mapping[Geometry, Sequence[View]]

# Images that are on the device at a time, and their pixels: three bytes each, and twelve while an
# image is resized.
_GROUP = 64
_GROUP_PIXELS = 200_000_000
_RESAMPLING = ("bilinear", "bicubic")
# The orientation of EXIF: is the image transposed, and which axes (height 1, width 2) are turned?
_TURNS: Mapping[int, tuple[bool, tuple[int, ...]]] = {
    2: (False, (2,)),
    3: (False, (1, 2)),
    4: (False, (1,)),
    5: (True, ()),
    6: (True, (2,)),
    7: (True, (1, 2)),
    8: (True, (1,)),
}


def why_not(geometry: Geometry, views: Sequence[View]) -> str | None:
    """Return why a GPU does not make these views, for people; None where it does."""
    if geometry.interpolation not in _RESAMPLING:
        return f"{geometry.interpolation} resampling is made on the CPU only"
    if any(view.crop.startswith("augment") for view in views):
        return "drawn views are made on the CPU only"
    return None


def is_strip(image: PreparedImage, views: ViewsOf) -> bool:
    """Return whether an image is so long that some of its views are cut by Pillow only."""
    seen = image.observation
    size = seen.width or 1, seen.height or 1
    return any(
        is_far(cut_of(view.crop, size, geometry), geometry.size)
        for geometry, wanted in views.items()
        for view in wanted
    )


class GpuViews:
    """Makes the views that prepared images lack: at the geometries of `views` that say "gpu".

    `decode` decodes on `device`. Whatever is refused there is decoded by Pillow, as elsewhere.
    """

    def __init__(self, device: str, decode: DecodeJpegs, views: ViewsOf) -> None:
        self._device, self._decode = device, decode
        self._views = {at: wanted for at, wanted in views.items() if at.decode == "gpu"}
        self._most = _GROUP
        self._refused: Counter[str] = Counter()

    def report(self, notify: Notify) -> None:
        """Say how many images were refused, and why."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self._refused.most_common())
        if reasons:
            notify(f"JPEGs that Pillow decoded instead of {self._device}: {reasons}")

    def stream(self, images: Iterable[PreparedImage]) -> Iterator[PreparedImage]:
        """Complete images in order; a group is on the device while the next one is prepared."""
        before: Future[list[PreparedImage]] | None = None
        with ThreadPoolExecutor(1, "gpu-views") as thread:
            for group in self._groups(images):
                now = thread.submit(self._complete, group)
                if before is not None:
                    yield from before.result()
                before = now
            if before is not None:
                yield from before.result()

    def complete(self, images: Sequence[PreparedImage]) -> list[PreparedImage]:
        """Return images with all their views; those that lack none are left alone."""
        return [image for group in self._groups(images) for image in self._complete(group)]

    def _groups(self, images: Iterable[PreparedImage]) -> Iterator[list[PreparedImage]]:
        group: list[PreparedImage] = []
        pixels = 0
        for image in images:
            seen = image.observation
            own = (seen.width or 0) * (seen.height or 0) if image.jpeg else 0
            if group and (len(group) >= self._most or pixels + own > _GROUP_PIXELS):
                yield group
                group, pixels = [], 0
            group.append(image)
            pixels += own
        if group:
            yield group

    def _complete(self, images: Sequence[PreparedImage]) -> list[PreparedImage]:
        lacking = [at for at, image in enumerate(images) if image.jpeg]
        completed = list(images)
        for at, image in zip(lacking, self.on_gpu([images[at] for at in lacking]), strict=True):
            completed[at] = by_pillow(images[at], self._views) if image is None else image
        return completed

    def on_gpu(self, images: Sequence[PreparedImage]) -> list[PreparedImage | None]:
        """Return images with the views that the device makes; None for those that it refuses."""
        if not images:
            return []
        try:
            with _stream_of(self._device):
                return self._rendered(images)
        except Exception as error:
            is_full = is_out_of_memory(error)
            if len(images) == 1:
                self._refused["out of memory" if is_full else type(error).__name__] += 1
                return [None]
        half = len(images) // 2
        if is_full:
            # A size that memory asked for stays. Here, since the error holds what was made.
            self._most = min(self._most, half)
            give_back_freed_memory()
        return self.on_gpu(images[:half]) + self.on_gpu(images[half:])

    def _rendered(self, images: Sequence[PreparedImage]) -> list[PreparedImage | None]:
        decoded = self._decode([image.jpeg for image in images])
        upright = [
            _upright(pixels, image.observation)
            for pixels, image in zip(decoded, images, strict=True)
        ]
        made: list[dict[Geometry, Rendered]] = [{} for _ in images]
        for geometry, views in self._views.items():
            for at, rendered_views in _render(upright, geometry, views):
                made[at][geometry] = rendered_views
        strips = sum(len(views) < len(self._views) for views in made)
        if strips:
            self._refused["extreme_aspect"] += strips
        return [
            replace(image, views={**image.views, **views}, jpeg=b"")
            if len(views) == len(self._views)
            else None
            for image, views in zip(images, made, strict=True)
        ]


def _render(
    images: "Sequence[torch.Tensor]", geometry: Geometry, views: Sequence[View]
) -> Iterator[tuple[int, Rendered]]:
    """Yield the number and the views of every image (3, height, width) that is no strip."""
    import torch

    names = list(dict.fromkeys(view.crop for view in views))
    places, crops = [], []
    with torch.inference_mode():
        for at, pixels in enumerate(images):
            _, height, width = pixels.shape
            cuts = [cut_of(name, (width, height), geometry) for name in names]
            if not any(is_far(cut, geometry.size) for cut in cuts):
                places.append(at)
                crops.append(_cut_all(pixels, cuts, geometry))
        if not crops:
            return
        # Waits for all that was begun, before its memory is given to another group.
        arrays = torch.stack(crops).cpu().numpy()
    for at, array in zip(places, arrays, strict=True):
        yield at, rendered(dict(zip(names, array, strict=True)), views)


def by_pillow(image: PreparedImage, views: ViewsOf) -> PreparedImage:
    """Return an image with the views that it lacks, decoded as Pillow decodes it."""
    decoded = decode_pixels(image.jpeg)
    if isinstance(decoded, Observation):
        return PreparedImage(image.digest, decoded)
    made = {
        geometry: render(decoded.image, geometry, wanted, seed=image.digest)
        for geometry, wanted in views.items()
        if geometry not in image.views
    }
    return replace(image, views={**image.views, **made}, jpeg=b"")


@contextmanager
def _stream_of(device: str) -> Iterator[None]:
    """Compute on a stream of its own, beside the networks, where the device has streams."""
    with ExitStack() as stack:
        if device.startswith("cuda"):
            import torch

            stack.enter_context(torch.cuda.device(device))
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stack.enter_context(torch.cuda.stream(stream))
        yield


def _upright(pixels: "torch.Tensor", seen: Observation) -> "torch.Tensor":
    """Return pixels (3, height, width) turned as the orientation of their file says.

    Raises:
        ValueError: their size is not the one that was seen.
    """
    transposed, turned = _TURNS.get(seen.orientation or 1, (False, ()))
    upright = (pixels.transpose(1, 2) if transposed else pixels).flip(turned)
    if upright.shape != (3, seen.height, seen.width):
        raise ValueError(f"decoded to {tuple(upright.shape)}")
    return upright


def _cut_all(pixels: "torch.Tensor", cuts: Sequence[Cut], geometry: Geometry) -> "torch.Tensor":
    """Return the crops (n, size, size, 3) uint8 of pixels (3, height, width) uint8."""
    import torch

    resized = {cut.target: _resized(pixels, cut.target, geometry) for cut in cuts}
    crops = [_cut_one(resized[cut.target], cut.corner, geometry) for cut in cuts]
    return torch.stack(crops).permute(0, 2, 3, 1)


def _cut_one(pixels: "torch.Tensor", corner: tuple[int, int], geometry: Geometry) -> "torch.Tensor":
    """Return the crop (3, size, size) at a corner (x, y), filled where it goes beyond."""
    (x, y), size = corner, geometry.size
    inner = pixels[:, max(0, y) : y + size, max(0, x) : x + size]
    _, height, width = inner.shape
    if (height, width) == (size, size):
        return inner
    square = pixels.new_tensor(geometry.fill)[:, None, None].repeat(1, size, size)
    top, left = max(0, -y), max(0, -x)
    square[:, top : top + height, left : left + width] = inner
    return square


def _resized(pixels: "torch.Tensor", target: tuple[int, int], geometry: Geometry) -> "torch.Tensor":
    import torch
    from torch.nn.functional import interpolate

    width, height = target
    if pixels.shape[1:] == (height, width):
        return pixels
    real = interpolate(
        pixels[None].float(), size=(height, width), mode=geometry.interpolation, antialias=True
    )
    return real[0].round_().clamp_(0, 255).to(torch.uint8)
