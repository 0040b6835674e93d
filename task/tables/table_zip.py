"""A zip that holds one table, as Kaggle packs large ones and Codabench takes submissions."""

import io
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import TABLE_BYTES

_CONTENTS = "[Content_Types].xml"


def unpacked(file: Path, content: bytes, endings: Collection[str]) -> bytes:
    """Give the bytes of the only file in a zip with one of these endings; all else as it is.

    Raises:
        InputError: damaged, locked, or larger than a table may be.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.namelist()
            names = [name for name in members if _is_table(name, endings)]
            # An xlsx file is a zip too, and may hold another table as an attachment.
            if len(names) != 1 or _CONTENTS in members:
                return content
            # What a zip says about sizes may be a lie: no more is read than a table may have.
            with archive.open(names[0]) as stream:
                inner = stream.read(TABLE_BYTES + 1)
    except zipfile.BadZipFile:
        return content  # whoever reads it says what is wrong
    except Exception as error:  # the decompressors have some ten kinds of them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file} cannot be unpacked ({reason}): pack it anew") from None
    if len(inner) > TABLE_BYTES:
        raise InputError(f"{file} has more than {TABLE_BYTES} bytes unpacked: it is no table")
    return inner


def _is_table(name: str, endings: Collection[str]) -> bool:
    """Return whether a member is a table by its name; macOS adds hidden ones of its own."""
    path = PurePosixPath(name)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return path.suffix.lower() in endings and not hidden
