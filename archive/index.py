"""The index of a source: every image of it once, in a fixed order, cut into units.

One Parquet file. Its row groups are whole units, each proved by a digest of its content that stands
in the file's own sealed record, so that a unit is read without reading the rest.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiveprobe.archive.references import Reference
from archiveprobe.archive.repeats import Repeats
from archiveprobe.archive.units import Share, Unit
from archiveprobe.base.errors import InputError
from archiveprobe.base.files import (
    discard,
    explained,
    fsync,
    make_folder,
    move_durable,
    temporary_beside,
)
from archiveprobe.base.lock import wait_for_lock
from archiveprobe.base.progress import Progress, silent
from archiveprobe.base.sealed import seal, unseal

if TYPE_CHECKING:
    import pyarrow

    from archiveprobe.archive.source import Source
    from archiveprobe.base.progress import Notify

_FORMAT = 1
_RECORD = b"archiveprobe"
_RECORDED = ("digest", "images", "unit_images", "source", "groups")
# Rows of a group: enough that a digest for each is nothing, few enough to be read for one unit.
_GROUP_ROWS = 8192
_REMEDY = "delete it, and run the same command again"


@dataclass
class Index:
    """An index on disk; nothing of it but the last group that was read stays in memory.

    `digest` is one over all references and the size of units; `source` is its source's identity.
    """

    file: Path
    digest: str
    images: int
    unit_images: int
    source: dict[str, Any]
    groups: list[str] = field(repr=False)
    _group: tuple[int, list[Reference]] = field(default=(-1, []), repr=False, compare=False)

    @classmethod
    def open(cls, file: Path) -> "Index":
        """Open an index that `write_index` has written.

        Raises:
            InputError: it is missing or damaged, or another version wrote it.
        """
        import pyarrow.parquet as parquet

        try:
            stored = parquet.read_metadata(file).metadata[_RECORD]
            record = unseal(stored)
            if record["format"] != _FORMAT:
                raise ValueError("another version wrote it")
        except FileNotFoundError:
            raise InputError(f"no index {file}: run the command that writes it again") from None
        except Exception as error:
            raise _damaged(file, error) from None
        return cls(file, **{name: record[name] for name in _RECORDED})

    @property
    def units(self) -> int:
        """Return the number of units; they count from 0."""
        return -(-self.images // self.unit_images)

    def unit(self, number: int) -> Unit:
        """Read a unit.

        Raises:
            InputError: the index is gone or damaged.
            IndexError: there is no such unit.
        """
        if not 0 <= number < self.units:
            raise IndexError(number)
        first = number * self.unit_images
        group, start = divmod(first, _rows_per_group(self.unit_images))
        # Looked up once: another thread may put another group there meanwhile.
        kept, references = self._group
        if kept != group:
            references = self._read(group)
            self._group = group, references
        return Unit(number, tuple(references[start : start + self.unit_images]))

    def units_of(self, share: Share | None = None) -> range:
        """Return the numbers of the units of a share; of all where there is none."""
        return range(self.units) if share is None else range(share.k - 1, self.units, share.n)

    def __iter__(self) -> Iterator[Unit]:
        return map(self.unit, range(self.units))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_group": (-1, [])}

    def _read(self, group: int) -> list[Reference]:
        import pyarrow.parquet as parquet

        try:
            with parquet.ParquetFile(self.file) as opened:
                table = opened.read_row_group(group)
            references = _references(table)
            if _digest_of(references) != self.groups[group]:
                raise ValueError(f"its row group {group} has changed since it was written")
        except Exception as error:
            raise _damaged(self.file, error) from None
        return references


def write_index(
    source: "Source",
    file: Path,
    unit_images: int,
    *,
    notify: "Notify" = lambda _: None,
    progress: Progress = silent,
) -> Index:
    """List a source once, and write its index.

    An image that the source names twice is kept once; different images of one id are numbered, both
    said with counts. Where another process has written the index meanwhile, that one is used.

    Raises:
        InputError: the source cannot be listed or holds no image, the disk fails, or the index that
            another process wrote is of other images.
    """
    first, second = temporary_beside(file), temporary_beside(file)
    with explained(f"write the index {file}"):
        make_folder(file.parent)
        try:
            repeats = Repeats()
            listed = repeats.watch(source.references(notify=notify))
            with progress("images listed", 0) as advance:
                index = _write(first, _counted(listed, advance), unit_images, source)
            if index.images == 0:
                raise InputError(f"no image in {source.name}: name the place of the images")
            if repeats.found():
                again = repeats.resolve(ref for unit in index for ref in unit.references)
                index = _write(second, again, unit_images, source)
                for remark in repeats.remarks():
                    notify(f"{source.name}: {remark}")
            return _publish(index, file)
        finally:
            discard(first)
            discard(second)


def _counted(references: Iterable[Reference], advance: Callable[[], None]) -> Iterator[Reference]:
    for reference in references:
        advance()
        yield reference


def _publish(index: Index, file: Path) -> Index:
    with wait_for_lock(file.parent):
        if file.exists():
            theirs = Index.open(file)
            if theirs.digest != index.digest:
                raise InputError(
                    f"{file} lists other images ({theirs.images}, now {index.images}): the source "
                    "has changed, or another command runs there: name another output"
                )
            return theirs
        move_durable(index.file, file)
    index.file = file
    return index


def _write(
    file: Path, references: Iterable[Reference], unit_images: int, source: "Source"
) -> Index:
    import pyarrow.parquet as parquet

    rest, groups, images = iter(references), [], 0
    with parquet.ParquetWriter(file, _schema(), compression="zstd") as writer:
        while some := list(islice(rest, _rows_per_group(unit_images))):
            writer.write_table(_table(some), row_group_size=len(some))
            groups.append(_digest_of(some))
            images += len(some)
        digest = hashlib.sha256("\n".join([str(unit_images), *groups]).encode()).hexdigest()
        index = Index(file, digest, images, unit_images, source.identity(), groups)
        record = {name: getattr(index, name) for name in _RECORDED}
        writer.add_key_value_metadata({_RECORD: seal({"format": _FORMAT, **record})})
    fsync(file)
    return index


def _rows_per_group(unit_images: int) -> int:
    return unit_images * max(1, _GROUP_ROWS // unit_images)


def _schema() -> "pyarrow.Schema":
    import pyarrow as arrow

    fields = [("id", arrow.string()), ("place", arrow.binary())]
    fields += [("offset", arrow.int64()), ("length", arrow.int64())]
    return arrow.schema([arrow.field(name, kind) for name, kind in fields])


def _table(references: Sequence[Reference]) -> "pyarrow.Table":
    import pyarrow as arrow

    columns = [
        [reference.id for reference in references],
        [os.fsencode(reference.place) for reference in references],
        [reference.offset for reference in references],
        [reference.length for reference in references],
    ]
    return arrow.table(columns, schema=_schema())


def _references(table: "pyarrow.Table") -> list[Reference]:
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    return [Reference(id_, os.fsdecode(place), *span) for id_, place, *span in rows]


def _digest_of(references: Sequence[Reference]) -> str:
    # The content and not the file: another version of pyarrow may write it in other bytes.
    hashed = hashlib.sha256()
    for reference in references:
        hashed.update(repr(reference).encode("utf-8", "surrogateescape"))
    return hashed.hexdigest()


def _damaged(file: Path, error: Exception) -> InputError:
    return InputError(f"the index {file} is damaged ({error}): {_REMEDY}")
