"""Which files below a folder may be images.

The name decides where it says something; else the first bytes do. A broken file with the name of a
image counts, so that its row says why; whatever else lies beside the images is left out aloud.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import first_few
from archiveprobe.task.file_kind import HEAD, may_be_image

# Images that cannot be decoded are among them: their rows say why.
_IMAGES = frozenset(
    "apng arw avif avifs bmp cr2 cr3 dib dng gif heic heif hif j2k jfif jp2 jpe jpeg jpg jxl mpo "
    "nef orf png raf rw2 tif tiff webp".split()
)
# Companions that exports put beside the images: too many, perhaps, to open each one.
_COMPANIONS = frozenset(
    "csv db gz h5 hdf5 html ini ipynb json jsonl log md mov mp4 npy npz parquet pdf pt pth py "
    "safetensors sh tar toml tsv txt xml xmp yaml yml zip".split()
)
_SHOWN = 5
# A CSV that is written and read again loses a lone CR, an array of strings a NUL at the end.
UNSAFE_IN_IDS = re.compile("\0|\r(?!\n)")


def printable(path: str) -> str:
    """Write a path as text: bytes that are not UTF-8, or not allowed in ids, become `\\xNN`."""
    if not path.isascii():
        path = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return UNSAFE_IN_IDS.sub(lambda mark: f"\\x{ord(mark[0]):02x}", path)


@dataclass
class Found:
    """Files below a folder: paths that may be images, and what was left out.

    Paths have `/` between names; bytes that are not UTF-8 are escaped in them, as os.fsdecode does.
    """

    paths: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    barren: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)

    def remarks(self) -> Iterator[str]:
        """Yield what the user should know about what was left out, a sentence each."""
        if self.ignored:
            count = sum(self.ignored.values())
            files = "1 file that is no image" if count == 1 else f"{count} files, no images"
            ranked = sorted(self.ignored.items(), key=lambda item: (-item[1], item[0]))
            kinds = [f"{name} ({n})" for name, n in ranked]
            yield f"ignored {files}: {first_few(kinds, _SHOWN)}"
        if self.barren:
            yield f"no image lies in {first_few(self.barren, _SHOWN)}: move it out of images.root"
        if self.linked:
            yield f"links to folders are not followed: {first_few(self.linked, _SHOWN)}"


def find_images(root: Path, own: Collection[Path] = ()) -> Found:
    """Look at every file below `root`, but for hidden ones and those below or among `own`.

    Raises:
        InputError: a folder cannot be listed.
    """
    found = Found()
    found.paths.extend(walk_images(root, found, own))
    return found


def walk_images(root: Path, found: Found, own: Collection[Path] = ()) -> Iterator[str]:
    """Yield what `find_images` finds, sorted; all but the paths is added to `found` on the way.

    Raises:
        InputError: a folder cannot be listed.
    """
    skipped = frozenset(map(str, own))
    rich: set[str] = set()
    poor: set[str] = set()
    folders = [("", iter(_names(str(root), skipped)))]
    while folders:
        below, names = folders[-1]
        name = next(names, None)
        if name is None:
            folders.pop()
            continue
        path, file = f"{below}{name}", f"{root}/{below}{name}"
        if name.endswith("/"):
            if Path(file).is_symlink():
                found.linked.append(printable(path[:-1]))
            else:
                folders.append((path, iter(_names(file[:-1], skipped))))
            continue
        is_image, kind = _judge(file, name)
        if is_image:
            yield path
        else:
            found.ignored[kind] += 1
        if below:
            (rich if is_image else poor).add(path.partition("/")[0])
    found.barren = sorted(map(printable, poor - rich))


def _names(folder: str, skipped: frozenset[str]) -> list[str]:
    """List a folder; names of folders end in `/`, which puts their files where they are sorted."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                f"{entry.name}/" if _is_folder(entry) else entry.name
                for entry in entries
                if not entry.name.startswith(".") and f"{folder}/{entry.name}" not in skipped
            )
    except OSError as error:
        _refuse(error)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads back to itself


def _refuse(error: OSError) -> NoReturn:
    place = printable(str(error.filename))
    raise InputError(f"cannot list {place}: {error.strerror}: correct its permissions")


def has_image_extension(name: str) -> bool:
    """Return whether a file's name ends like an image's; `a.jpg_large`, from a download, does."""
    return _ending(name) in _IMAGES


def _ending(name: str) -> str:
    _, dot, ending = name.rpartition(".")
    return re.split(r"[\W_]", ending.lower(), maxsplit=1)[0] if dot else ""


def _judge(file: str, name: str) -> tuple[bool, str]:
    """Return whether a file may be an image, and how to call its kind if not."""
    is_image, kind = judge_name(name)
    return (_opens_like_a_image(file) if is_image is None else is_image), kind


def judge_name(name: str) -> tuple[bool | None, str]:
    """Return whether a file is an image by its name, and the kind that the name says.

    None where the name says nothing, so that its first bytes must.
    """
    ending = _ending(name)
    kind = f".{ending}" if re.fullmatch("[a-z0-9]{1,12}", ending) else "others"
    if ending in _IMAGES:
        return True, kind
    return False if ending in _COMPANIONS else None, kind


def _opens_like_a_image(file: str) -> bool:
    try:
        # A pipe must not be opened: nobody may ever write to it.
        if not Path(file).is_file():
            return False
        with Path(file).open("rb", buffering=0) as stream:
            return may_be_image(stream.read(HEAD))
    except FileNotFoundError:
        return False  # a link that leads nowhere
    except OSError:
        return True  # it cannot be told, so its row says so
