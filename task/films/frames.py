"""A folder of films becomes a folder of frames, with a table that says where each comes from.

    frames.csv             image, film, second: one line per frame, a table for `init`
    films.csv              film, status, detail, frames, seconds: one line per film
    <folder>/<film>/00-01-05.500.jpg
    .frames/record.json    sealed: the settings and the films that are done, by their digests

A film's frames are gathered in a hidden folder that takes its place in one step, and the record is
written after it: a film is done as a whole or not at all.
"""

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.reading import TABLE_BYTES, TooManyBytesError, digest_of, read_product
from archiveprobe.base.sealed import read_sealed, write_sealed
from archiveprobe.task.file_kind import HEAD, reason_for_unknown
from archiveprobe.task.films.film import Frame, check_reader, read_film
from archiveprobe.task.find_images import has_image_extension, printable

TABLE, FILMS = "frames.csv", "films.csv"
FILM_COLUMN = "film"
OWN, _RECORD = ".frames", "record.json"
_FILMS = frozenset(
    "3g2 3gp asf avi divx dv f4v flv m2t m2ts m2v m4v mkv mov mp4 mpe mpeg mpg mts mxf ogv rm rmvb "
    "ts vob webm wmv".split()
)
# Sound, which begins like a film.
_SOUND = frozenset("aac aif aiff flac m4a m4b mka mp3 oga ogg opus wav wma".split())
_FILM_BYTES = 1 << 40
# In characters: four bytes each, and a digest, are still a name.
_LONGEST_NAME = 50
_UNSAFE = re.compile(r"[^\w.-]+")


class Film(BaseModel):
    """A film that is done: its file as it was, how reading went, and its frames (second, path)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    film: str
    digest: str
    bytes: int
    mtime_ns: int
    status: str
    detail: str
    seconds: float
    folder: str
    frames: list[tuple[float, str]]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    # Seconds from frame to frame, None for scenes.
    every: float | None
    # SHA-256 of frames.csv, as it was written before and is to be now.
    tables: list[str] = []
    films: dict[str, Film] = {}


@dataclass(frozen=True)
class Frames:
    """All films below a folder: `new` of them were read now; those that gave less than all."""

    films: int
    new: int
    frames: int
    table: Path
    faulty: list[Film] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        keys = ("film", "status", "detail")
        return {
            **asdict(self),
            "table": str(self.table),
            "faulty": [{key: getattr(film, key) for key in keys} for film in self.faulty],
        }


def take_frames(
    folder: Path,
    target: Path,
    *,
    every: float | None = None,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Frames:
    """Write the frames of all films below `folder` into `target`; films that are done are left.

    One frame per scene, or one in `every` seconds. Films that cannot be read cost themselves only,
    and `notify` is told of each.

    Raises:
        InputError: there is no film; `target` holds frames of other settings, or a table that was
            edited; the disk refuses; PyAV is not installed.
    """
    check_reader()
    found = list(find_films(folder, target))
    if not found:
        raise InputError(f"no film below {folder}: name the folder that holds them")
    own = target / OWN
    with files.explained(f"write to {target}"):
        files.make_folder(own)
    with Lock(own, "the frames"):
        with files.explained(f"tidy {own}"):
            _remove_folders(own)
        work = _Work(folder, target, _load_record(target, every))
        new = work.waiting(found)
        with progress("films", len(found)) as advance:
            for name in found:
                if name in new:
                    film = work.take(name)
                    if film.status != "ok":
                        notify(f"{film.film}: {film.status}: {film.detail}")
                advance()
        if _table_digest(target) not in work.record.tables[-1:]:
            work.write()
    films = [work.record.films[printable(name)] for name in found]
    return Frames(
        films=len(films),
        new=len(new),
        frames=sum(len(film.frames) for film in films),
        table=target / TABLE,
        faulty=[film for film in films if film.status != "ok"],
    )


def find_films(folder: Path, target: Path) -> Iterator[str]:
    """Yield the films below a folder, sorted, as paths below it; hidden ones and `target` not.

    Raises:
        InputError: there is no such folder, or it is the target.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: name the folder that holds the films")
    if folder.resolve() == target.resolve():
        raise InputError(f"{target} holds the films themselves: name another folder with -o")
    skipped = target.resolve()

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot list {printable(str(error.filename))}: {error.strerror}")

    for place, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".") and Path(place, name).resolve() != skipped
        )
        for name in sorted(names):
            if not name.startswith(".") and _may_be_film(Path(place, name)):
                yield Path(place, name).relative_to(folder).as_posix()


def _may_be_film(file: Path) -> bool:
    """Return whether the name, or else the first bytes, are those of a film."""
    ending = file.suffix.lower().lstrip(".")
    if ending in _SOUND or has_image_extension(file.name):
        return False
    try:
        if not file.is_file():
            return False
        if ending in _FILMS:
            return True
        with file.open("rb", buffering=0) as stream:
            head = stream.read(HEAD)
    except OSError:
        return False
    return reason_for_unknown(head, ValueError(), 1)[0] == "video_not_image"


def _load_record(target: Path, every: float | None) -> _Record:
    """Read what is done in a folder. Raises InputError: it is not for this run to go on with."""
    file = target / OWN / _RECORD
    remedy = f"delete {target / OWN} and {target / TABLE} to take all frames anew"
    content = read_sealed(file, remedy=remedy)
    if content is None:
        for name in (TABLE, FILMS):
            if (target / name).exists():
                raise InputError(f"{target / name} is not of this command: name another folder")
        return _Record(every=every)
    try:
        record = _Record.model_validate(content)
    except ValidationError:
        raise InputError(f"{file} is of another version: {remedy}") from None
    if record.every != every:
        before = "one per scene" if record.every is None else f"one in {record.every:g} seconds"
        raise InputError(f"{target} has frames, {before}: name another folder, or ask for the same")
    if _table_digest(target) not in (None, *record.tables):
        raise InputError(
            f"{target / TABLE} was edited since it was written: rename it, and name it in "
            "task.toml; then run again, which writes a new one"
        )
    return record


def _table_digest(target: Path) -> str | None:
    content = read_product(target / TABLE, TABLE_BYTES, "move it away")
    return None if content is None else hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class _Work:
    """The folder of films, that of frames, and what is done."""

    source: Path
    target: Path
    record: _Record

    def waiting(self, found: Sequence[str]) -> set[str]:
        """Return the films that are new, have changed since, or lack a frame."""
        return {name for name in found if not self._is_done(name)}

    def _is_done(self, name: str) -> bool:
        done = self.record.films.get(printable(name))
        file = self.source / name
        if done is None or not all((self.target / image).is_file() for _, image in done.frames):
            return False
        try:
            facts = file.stat()
            same = (facts.st_size, facts.st_mtime_ns) == (done.bytes, done.mtime_ns)
            return same or digest_of(file, _FILM_BYTES) == done.digest
        except OSError:
            return False

    def take(self, name: str) -> Film:
        """Read a film, put its frames into their place, and write it down as done."""
        temporary = files.temporary_beside(self.target / OWN / "film")
        with files.explained(f"write to {self.target}"):
            try:
                film = self._read(name, temporary)
                self._put_in_place(film, temporary)
            finally:
                _remove_folders(self.target / OWN)
        return film

    def _read(self, name: str, temporary: Path) -> Film:
        file, written = self.source / name, []

        def keep(frame: Frame) -> None:
            image = f"{_time(frame.second)}.jpg"
            # As an InputError, since the film is innocent of a full disk.
            with files.explained(f"write to {self.target}"):
                files.write_whole(temporary / image, frame.jpeg)
            written.append((round(frame.second, 3), image))

        folder = self._folder_of(name)
        try:
            facts = file.stat()
            digest = digest_of(file, _FILM_BYTES)
        except TooManyBytesError as error:
            return _refused(name, folder, "too_many_bytes", str(error.strerror))
        except OSError as error:
            return _refused(name, folder, "unreadable", str(error.strerror or error))
        reading = read_film(file, self.record.every, keep)
        return Film(
            film=printable(name),
            digest=digest,
            bytes=facts.st_size,
            mtime_ns=facts.st_mtime_ns,
            status=reading.status,
            detail=reading.detail,
            seconds=round(reading.seconds, 3),
            folder=folder,
            frames=[(second, f"{folder}/{image}") for second, image in written],
        )

    def _put_in_place(self, film: Film, temporary: Path) -> None:
        place = self.target / film.folder
        before = self.record.films.get(film.film)
        for _, image in before.frames if before else ():
            files.remove(self.target / image)
        # Left where a run was killed before it wrote the film down.
        for path in sorted(place.glob("??-??-??.???.jpg")):
            files.remove(path)
        if film.frames:
            files.make_folder(place)
            for _, image in film.frames:
                files.move_durable(temporary / Path(image).name, self.target / image)
        self.record.films[film.film] = film
        self.write()

    def write(self) -> None:
        """Write down what is done, and the tables of it. Raises OSError."""
        films = [self.record.films[name] for name in sorted(self.record.films)]
        table = _csv(
            ["image", FILM_COLUMN, "second"],
            (
                [image, film.film, f"{second:.3f}"]
                for film in films
                for second, image in film.frames
            ),
        )
        # The record first: a table that no record knows would be taken for somebody's own.
        self.record.tables = [*self.record.tables[-1:], hashlib.sha256(table).hexdigest()]
        write_sealed(self.target / OWN / _RECORD, self.record.model_dump(mode="json"))
        files.write_whole(self.target / TABLE, table)
        lines = (
            [film.film, film.status, film.detail, len(film.frames), f"{film.seconds:.3f}"]
            for film in films
        )
        header = [FILM_COLUMN, "status", "detail", "frames", "seconds"]
        files.write_whole(self.target / FILMS, _csv(header, lines))

    def _folder_of(self, name: str) -> str:
        """Return a folder for a film's frames: named after it, and no other film's."""
        *folders, last = printable(name).split("/")
        stem = Path(last).stem or last
        own = "/".join([*map(_safe, folders), _safe(stem)])
        others = {
            film.folder.casefold()
            for film in self.record.films.values()
            if film.film != printable(name)
        }
        if own.casefold() in others:
            own += f"-{_digest(name)}"
        return own


def _safe(name: str) -> str:
    """Return a name as every file system takes it; where it had to be changed, with a digest."""
    plain = _UNSAFE.sub("_", name).strip("._-")[:_LONGEST_NAME]
    return plain if plain == name else f"{plain or 'film'}-{_digest(name)}"


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


def _refused(name: str, folder: str, status: str, detail: str) -> Film:
    return Film(
        film=printable(name),
        digest="",
        bytes=-1,
        mtime_ns=-1,
        status=status,
        detail=detail,
        seconds=0.0,
        folder=folder,
        frames=[],
    )


def _time(second: float) -> str:
    whole, thousandths = divmod(round(second * 1000), 1000)
    return f"{whole // 3600:02}-{whole // 60 % 60:02}-{whole % 60:02}.{thousandths:03}"


def _csv(header: Sequence[str], lines: Iterable[Sequence[object]]) -> bytes:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(header)
    table.writerows(lines)
    return out.getvalue().encode("utf-8", "surrogateescape")


def _remove_folders(own: Path) -> None:
    """Remove the folders that gather a film's frames. Raises OSError."""
    for folder in sorted(own.glob(f"{files.TEMPORARY}*/")):
        for path in sorted(folder.iterdir()):
            files.remove(path)
        files.remove_folder(folder)
