"""Tables of answers as people hand them over: also packed, one file in a zip."""

import io
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import TABLE_BYTES, read_ordinary
from archiveprobe.task.table import Table, read_table

_LONGEST = 10  # characters of an ending


def read_any_table(file: Path) -> Table:
    """Read a table in any form that `read_table` knows, or the only file in a zip.

    Raises:
        InputError: no such table, a damaged or locked zip, or one with several files.
    """
    if file.suffix.lower() != ".zip" or not file.is_file():
        return read_table(file)
    member, content = _unpack(file)
    ending = PurePosixPath(member).suffix
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder) / f"table{ending if len(ending) < _LONGEST else ''}"
        inner.write_bytes(content)
        try:
            return replace(read_table(inner), file=file)
        except InputError as error:
            raise InputError(str(error).replace(str(inner), f"{file} ({member})")) from None


def _unpack(file: Path) -> tuple[str, bytes]:
    """Give the name and the bytes of the one table in a zip."""
    try:
        packed = read_ordinary(file, TABLE_BYTES)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from None
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            member = _only_member(file, archive)
            # What a zip says about sizes may be a lie: no more is read than a table may have.
            with archive.open(member) as stream:
                content = stream.read(TABLE_BYTES + 1)
    except InputError:
        raise
    except Exception as error:  # zipfile and its decompressors have some ten kinds of them
        raise InputError(f"{file} is no zip that can be read ({error}): pack it again") from None
    if len(content) > TABLE_BYTES:
        raise InputError(f"{file}: {member} has more than {TABLE_BYTES} bytes: it is no table")
    return member, content


def _only_member(file: Path, archive: zipfile.ZipFile) -> str:
    """Find the one table in a zip; macOS and editors add files of their own."""
    names = [
        name
        for name in archive.namelist()
        if not name.endswith("/")
        and not PurePosixPath(name).name.startswith((".", "__"))
        and not name.startswith("__MACOSX/")
    ]
    if len(names) != 1:
        raise InputError(f"{file} holds {len(names)} files: a zip of answers holds one table")
    return names[0]
