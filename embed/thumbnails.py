"""Where the small images lie that `embed` makes for people, named by the digest of the image."""

import os
from contextlib import suppress
from pathlib import Path


def thumbnail_file(folder: Path, digest: str) -> Path:
    """Return where the thumbnail of an image lies."""
    return folder / digest[:2] / f"{digest}.jpg"


def stored_thumbnails(folder: Path) -> set[str]:
    """Return the digests of the images that have a thumbnail below a folder."""
    # Names, not Paths: there may be a million.
    with suppress(FileNotFoundError):
        parts = [part.path for part in os.scandir(folder) if len(part.name) == 2]
        return {
            name.removesuffix(".jpg")
            for part in parts
            for name in os.listdir(part)  # noqa: PTH208
            if name.endswith(".jpg")
        }
    return set()
