"""What lies in a folder of answers.

    answers.json                  whose answers, about which images; sealed
    index.parquet                 all images in their order, cut into units
    parts/00000005.parquet        the answers of unit 5; in the end few files of many units each
    parts/_commits.jsonl          one line for every part; _commits-2of4.jsonl is that of a share
    LOCK, LOCK-2of4               held by whoever writes

A unit is done when a log names its part. Parts are whole from the moment they have their name, so
that whoever reads the folder meanwhile sees whole parts only, and no image twice.
"""

import os
from pathlib import Path

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import NAME as LOCK

RECORD, INDEX, PARTS = "answers.json", "index.parquet", "parts"
# Where a merge builds the parts that replace the old ones, and where it puts those.
MERGED, REPLACED = "merged", "replaced"
_OWN = {RECORD, INDEX, PARTS, MERGED, REPLACED}


def check_place(folder: Path) -> None:
    """Check that a folder is absent, empty, or one of answers.

    Raises:
        InputError: other files are there.
    """
    with files.explained(f"read {folder}"):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: name another place with -o")
        with os.scandir(folder) as entries:
            other = next((entry.name for entry in entries if not _is_own(entry.name)), None)
    if other is not None:
        raise InputError(f"{folder} holds other files ({other!r}): name a new folder with -o")


def _is_own(name: str) -> bool:
    return name in _OWN or name.startswith((LOCK, files.TEMPORARY))
