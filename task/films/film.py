"""Frames of a film: the first one of every scene, or one every few seconds.

FFmpeg reads the film, through PyAV. It sees the bytes of this file only: formats that name other
files or addresses are not allowed. Every frame becomes a JPEG that `decode` has read, so its size
and its perceptual hash follow the policy of all images.
"""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import one_line
from archiveprobe.task.decoding import PIXEL_LIMIT, DecodedImage, decode
from archiveprobe.task.duplicates import NEAR_BITS

LONGEST = 24 * 3600.0
"""Seconds of a film that are looked at."""
# Of 10,000 frames of one film nobody labels more.
MOST_FRAMES = 10_000
# Two looks a second; a scene that is shorter shows nothing.
_LOOK = 0.5
# Mean difference, of 255, of two frames in 8 x 8 grey values. Of the pairs of 200 real images
# 0.01 % differ by less; an image moved by 5 % of its width differs by more from itself in 5 % of
# cases, moved by 20 % in 86 %.
CUT = 20.0
_SIDE = 8
_QUALITY = 95
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi,asf,flv,mpeg,mpegts,mpegvideo,m4v,h264,hevc,ogg,dv,mxf,rm,nut,ivf",
)
_OPTIONS = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "none"}
_BUFFER = 1 << 20
# A film may end this much before the length it declares: seconds, or a share of it.
_EARLY = 2.0, 0.05


@dataclass(frozen=True)
class Frame:
    """A frame as a JPEG, and its second from the start of the film."""

    second: float
    jpeg: bytes


@dataclass
class FilmReading:
    """What reading a film came to: `ok`, `partial` (what came before a fault is kept), or why not.

    `seconds` is how long it was as far as it could be read, `frames` how many were kept.
    """

    status: str = "ok"
    detail: str = ""
    seconds: float = 0.0
    frames: int = 0
    faults: list[str] = field(default_factory=list)

    def refuse(self, status: str, detail: str) -> None:
        """Record that the film gives no frames, or no more."""
        self.status, self.detail = status, detail

    def stop(self, detail: str) -> None:
        """Record a fault at which reading ended, or that frames are missing."""
        self.refuse("partial" if self.frames else "unreadable", detail)


def check_reader() -> None:
    """Check that films can be read. Raises InputError: the extra is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise InputError("films need another package: pip install 'archiveprobe[frames]'") from None


def read_film(file: Path, every: float | None, keep: Callable[[Frame], None]) -> FilmReading:
    """Give frames of a film to `keep`, in order: of every scene, or one in `every` seconds.

    A frame that nearly equals an earlier one of the film is left out. Whatever is wrong with the
    film is in what is returned.

    Raises:
        InputError: `keep` does, or PyAV is not installed.
    """
    check_reader()
    import av

    reading = FilmReading()
    try:
        with (
            file.open("rb") as stream,
            av.open(
                stream,
                options=_OPTIONS,
                buffer_size=_BUFFER,
                metadata_errors="replace",
                io_open=_refuse_other_files,
            ) as film,
        ):
            _read(film, _Every(every) if every else _Scenes(), keep, reading)
    except InputError:
        raise
    except Exception as error:
        # FFmpeg's errors are of many classes, as are those of what it finds in a film.
        reading.stop(_reason(error))
    return reading


def _read(
    film: Any, choice: "_Every | _Scenes", keep: Callable[[Frame], None], reading: FilmReading
) -> None:
    video = next((stream for stream in film.streams.video if not _is_cover(stream)), None)
    if video is None:
        reading.refuse("no_video", "it has no moving image")
        return
    video.thread_type = "AUTO"
    kept = _Distinct()
    for second, frame in _with_seconds(_decoded(film, video, reading.faults), video):
        reading.seconds = second
        if frame.width * frame.height > PIXEL_LIMIT:
            size = f"{frame.width} x {frame.height} pixels, limit {PIXEL_LIMIT}"
            reading.refuse("too_many_pixels", size)
            return
        if second > LONGEST or reading.frames >= MOST_FRAMES:
            reading.stop(f"cut off after {LONGEST / 3600:g} hours or {MOST_FRAMES} frames")
            return
        if choice.wants(second, frame):
            jpeg = _jpeg(frame, video.sample_aspect_ratio)
            if kept.is_new(jpeg):
                keep(Frame(second, jpeg))
                reading.frames += 1
    _judge(reading, _declared_seconds(film, video))


def _judge(reading: FilmReading, declared: float) -> None:
    """Say how much of a film that was read to its end could be used."""
    short = declared - reading.seconds
    if reading.faults:
        reading.stop(f"{len(reading.faults)} faults, the first: {reading.faults[0]}")
    elif not reading.frames:
        reading.stop("not one frame could be decoded")
    elif short > max(_EARLY[0], _EARLY[1] * declared):
        reading.stop(f"it ends after {reading.seconds:.0f} of {declared:.0f} seconds")


class _Every:
    """Chooses the first frame of every few seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._next = seconds, 0.0

    def wants(self, second: float, _: Any) -> bool:
        if second < self._next:
            return False
        self._next = (math.floor(second / self._seconds) + 1) * self._seconds
        return True


class _Scenes:
    """Chooses the first frame of every scene: one that is unlike the first of the scene before.

    Compared to that one and not to its neighbour, a camera that turns to something else slowly
    opens a scene as well.
    """

    def __init__(self) -> None:
        self._looks = _Every(_LOOK)
        self._first: np.ndarray | None = None

    def wants(self, second: float, frame: Any) -> bool:
        if not self._looks.wants(second, frame):
            return False
        small = frame.reformat(width=_SIDE, height=_SIDE, format="gray", interpolation="AREA")
        grey = small.to_ndarray().astype(np.float32)
        if self._first is not None and np.abs(grey - self._first).mean() <= CUT:
            return False
        self._first = grey
        return True


class _Distinct:
    """Knows the frames of a film by their perceptual hashes."""

    def __init__(self) -> None:
        self._hashes: list[int] = []

    def is_new(self, jpeg: bytes) -> bool:
        """Return whether a frame is unlike all before, and remember it then."""
        image = decode(jpeg)
        assert isinstance(image, DecodedImage)
        own = int(image.observation.phash, 16)
        if any((own ^ other).bit_count() <= NEAR_BITS for other in self._hashes):
            return False
        self._hashes.append(own)
        return True


def _decoded(film: Any, video: Any, faults: list[str]) -> Iterator[Any]:
    """Yield the frames of a film; what cannot be decoded is left out and goes to `faults`."""
    import av

    packets = film.demux(video)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except av.FFmpegError as error:
            # After a fault of the file itself there is no further packet.
            faults.append(_reason(error))
            continue
        for frame in frames:
            if frame.is_corrupt:
                faults.append("a damaged frame")
            else:
                yield frame


def _with_seconds(frames: Iterator[Any], video: Any) -> Iterator[tuple[float, Any]]:
    """Yield frames with the seconds since the first one; time never goes back."""
    step = 1 / float(video.average_rate or 25)
    start, last = None, -step
    for frame in frames:
        time = last + step if frame.time is None else float(frame.time)
        start = time if start is None else start
        second = time - start
        if second < last:
            # The clock was set anew, as where two recordings were joined.
            second = last + step
            start = time - second
        last = second
        yield second, frame


def _declared_seconds(film: Any, video: Any) -> float:
    if video.duration is not None and video.time_base is not None:
        return float(video.duration * video.time_base)
    return float(film.duration or 0) / 1e6


def _jpeg(frame: Any, aspect: Any) -> bytes:
    """Return a frame as it is shown: upright, its pixels as wide as they are high."""
    image: Image.Image = frame.to_image()
    if aspect and aspect != 1 and 0.25 <= aspect <= 4:
        width = max(1, round(image.width * float(aspect)))
        image = image.resize((width, image.height), Image.Resampling.BICUBIC)
    if frame.rotation:
        image = image.rotate(frame.rotation, expand=True)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return out.getvalue()


def _is_cover(stream: Any) -> bool:
    """Return whether a stream is the one image on the cover of a recording."""
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)


def _refuse_other_files(url: str, flags: int, options: dict[str, str]) -> Any:  # noqa: ARG001
    raise PermissionError("a film may not read other files")


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(text, 200)
