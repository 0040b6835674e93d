"""Tables of answers as people hand them over: also packed, one file in a zip."""

import tempfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path, PurePosixPath

from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import TABLE_BYTES
from archiveprobe.task.table import Table, read_table


def read_any_table(file: Path) -> Table:
    """Read a table in any form that `read_table` knows, or the only file in a zip.

    Raises:
        InputError: no such table, a damaged or locked zip, or one with several files.
    """
    if file.suffix.lower() != ".zip" or not file.is_file():
        return read_table(file)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(file) as archive:
                member = _only_member(file, archive)
                # What the zip says about sizes may be a lie: no more is read than a table may have.
                with archive.open(member) as stream:
                    content = stream.read(TABLE_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as e:
            raise InputError(f"{file} is no zip that can be read ({e}): pack it again") from None
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror or error}") from None
        if len(content) > TABLE_BYTES:
            raise InputError(f"{file}: {member} is larger than {TABLE_BYTES} bytes: it is no table")
        inner = Path(folder) / f"table{PurePosixPath(member).suffix}"
        inner.write_bytes(content)
        try:
            return replace(read_table(inner), file=file)
        except InputError as error:
            raise InputError(str(error).replace(str(inner), f"{file} ({member})")) from None


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
