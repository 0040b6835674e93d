"""The tables of a folder: which of them list its images, in which column, below which root."""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import clipped, first_few, number_of, quote_few
from archiveprobe.task.config import Folds
from archiveprobe.task.films.frames import FILMS, OWN
from archiveprobe.task.find_images import has_image_extension, printable
from archiveprobe.task.match_files import Match, count_differences, match_some
from archiveprobe.task.rows import BY_FOLDERS
from archiveprobe.task.splits import SPLITS, split_named, split_of_table
from archiveprobe.task.tables.table import TABLE_ENDINGS, Table, read_table

# Values of a column that are looked at to tell whether they are paths.
_LOOKED_AT = 200
# Folders at the top of a root that may be the root themselves: more are labels, or days.
_MOST_ROOTS = 50


@dataclass(frozen=True)
class Listing:
    """A table and its column of paths or names of images; `name` is its path in task.toml."""

    name: str
    table: Table
    column: str

    @property
    def split(self) -> str | None:
        """Return the split that the table's name says."""
        return split_of_table(self.name)

    def paths(self, most: int | None = None) -> list[str]:
        """Return the paths of the first rows, or of all."""
        return [row[self.column] for row in self.table.rows[:most]]


@dataclass(frozen=True)
class Root:
    """The folder where paths begin: `root` relative to `base`, whose images are `files`.

    `folders` are those below it where the paths of tables of a split begin, by split.
    """

    base: Path
    root: str
    files: list[str]
    relative_to_table: bool = False
    folders: Mapping[str | None, str] = field(default_factory=dict)

    def relative_to(self, listings: Iterable[Listing]) -> str | tuple[str, ...]:
        """Return what task.toml calls `images.relative_to`."""
        if self.folders:
            return tuple(self.folders[listing.split] for listing in listings)
        return "table" if self.relative_to_table else "root"

    def remarks(self, listings: Iterable[Listing]) -> Iterator[str]:
        """Yield where tables of the same ids begin, and which ids their rows have then."""
        if self.folders:
            places = [f"{one.name} in {self.folders[one.split]}/" for one in listings]
            first = [path for one in listings for path in self.paths(one, 1)]
            yield (
                f"tables have ids in common, but folders of their own: images of "
                f"{', '.join(places)}; ids begin with the folder, as {quote_few(first)}"
            )

    def matches(self, listing: Listing, most: int | None = None) -> dict[str, Match]:
        """Find the files of a table's rows, by their paths below the root."""
        paths = dict.fromkeys(self.paths(listing, most))
        return match_some(self.base / self.root, [*paths], self.files)

    def paths(self, listing: Listing, most: int | None = None) -> list[str]:
        """Return the paths of a table's rows as the task will read them."""
        before = f"{self.folders[listing.split]}/" if listing.split in self.folders else ""
        if self.relative_to_table:
            below = os.path.relpath(listing.table.file.parent.resolve(), self.base / self.root)
            before = "" if below == "." else f"{below}/"
        return [before + path for path in listing.paths(most)]


def find_tables(folder: Path) -> Iterator[Path]:
    """Yield the files that may be tables: at the top, and metadata files in the folders below."""
    for path in sorted(folder.iterdir()):
        of_films = path.name == FILMS and (folder / OWN).is_dir()
        if path.suffix.lower() in TABLE_ENDINGS and path.is_file() and not of_films:
            yield path
    for pattern in ("*/metadata.*", "*/*/metadata.*"):
        for path in sorted(folder.glob(pattern)):
            inside = path.relative_to(folder).parts
            hidden = any(part.startswith(".") for part in inside) or inside[0] == "work"
            if path.suffix.lower() in TABLE_ENDINGS and path.is_file() and not hidden:
                yield path


def read_listing(folder: Path, file: Path, names: frozenset[str]) -> Listing:
    """Read a table and find its column of images; `names` are those of the files (`file_names`).

    Raises:
        InputError: it cannot be read, or no column holds paths or names of images.
    """
    table = read_table(file)
    rated = [(_hits(table, column, names), -at) for at, column in enumerate(table.columns)]
    best, at = max(rated, default=(0, 0))
    name = Path(os.path.relpath(file.resolve(), folder)).as_posix()
    if not best:
        first = [f"{key} {clipped(value)}" for row in table.rows[:1] for key, value in row.items()]
        raise InputError(
            f"{'; '.join([printable(name), *_sheets(table)])}: no column holds paths or names of "
            f"the images (it begins with {first_few(first) or 'no row'}): name their folder with "
            "--images, or correct the table"
        )
    return Listing(name, table, table.columns[-at])


def try_listing(folder: Path, file: Path, files: Sequence[str]) -> Listing | None:
    """Read a table with a column of images; None where it is none."""
    try:
        return read_listing(folder, file, file_names(files))
    except InputError:
        return None


def _sheets(table: Table) -> Iterator[str]:
    """Yield which sheet of several was read: the images may be in another one."""
    mark = "read from the sheet"
    yield from (remark[remark.index(mark) :] for remark in table.remarks if mark in remark)


def _hits(table: Table, column: str, names: frozenset[str]) -> int:
    """Count the values among the first that may name an image; 0 where they are less than half."""
    values = {row[column] for row in table.rows[:_LOOKED_AT]} - {""}
    hits = sum(plain_name(value) in names for value in values)
    return hits if 2 * hits >= len(values) else 0


def file_names(files: Iterable[str]) -> frozenset[str]:
    """Return the names of files in the form that paths of tables are compared in."""
    names: set[str] = set()
    for file in files:
        name = file.rpartition("/")[2]
        names.add(plain_name(name))
        if has_image_extension(name):
            names.add(plain_name(name.rpartition(".")[0]))
    return frozenset(names)


def plain_name(path: str) -> str:
    """Return the name in a path in the form that names are compared in."""
    name = re.split(r"[/\\]", path.strip())[-1].lower()
    return name.lstrip("0") or "0" if name.isdigit() else name


def find_root(
    base: Path, files: Sequence[str], listings: Sequence[Listing], *, is_given: bool
) -> Root:
    """Find below which folder the paths of tables begin: where most have a file, then where most
    are written exactly so. Where the folder `is_given`, it is that one.
    """
    if any("/" in listing.name for listing in listings):
        beside = _beside_tables(base, files, listings)
        if beside is not None and (not is_given or beside.root == "."):
            return beside
    apart = None if _have_distinct_ids(listings) else _find_split_folders(base, files, listings)
    if apart is not None and (not is_given or apart.root == "."):
        return apart
    best = Root(base, ".", list(files))
    counts = _counts(best, listings)
    for root in [] if is_given else _roots(files):
        below = [file.removeprefix(f"{root}/") for file in files if file.startswith(f"{root}/")]
        candidate = Root(base, root, below)
        found = _counts(candidate, listings)
        # Where both fit, `images` says more than the folder around it.
        if found > counts or (found == counts and root == "images"):
            best, counts = candidate, found
    return best


def _beside_tables(base: Path, files: Sequence[str], listings: Sequence[Listing]) -> Root | None:
    """Return the root for paths that begin at the tables' own folders, None where they do not."""
    folders = [listing.table.file.parent.resolve() for listing in listings]
    common = Path(os.path.commonpath(folders))
    root = common.parent if split_named(common.name) and common != base else common
    if not root.is_relative_to(base):
        return None
    name = root.relative_to(base).as_posix()
    before = "" if name == "." else f"{name}/"
    below = [file.removeprefix(before) for file in files if file.startswith(before)]
    candidate, known = Root(base, name, below, relative_to_table=True), set(below)
    for listing in listings:
        paths = candidate.paths(listing, _LOOKED_AT)
        if 2 * sum(path in known for path in paths) < len(paths):
            return None
    return candidate


def _have_distinct_ids(listings: Sequence[Listing]) -> bool:
    ids = [path for listing in listings for path in set(listing.paths())]
    return len(set(ids)) == len(ids)


def _find_split_folders(
    base: Path, files: Sequence[str], listings: Sequence[Listing]
) -> Root | None:
    """Return the root with one folder for each table, named like its split, that holds its images;
    None where there is none, or two tables would have the same one.
    """
    places: dict[str | None, str] = {}
    folders = {folder for file in files for folder in _folders_of(file)}
    by_depth = sorted(folders, key=lambda folder: (folder.count("/"), folder))
    for listing in listings:
        likely = [folder for folder in by_depth if split_of_table(folder) == listing.split]
        hits = [
            (_hits_below(base, folder, files, listing), folder) for folder in likely[:_MOST_ROOTS]
        ]
        most, folder = max(hits, key=lambda hit: (hit[0], -len(hit[1])), default=(0, ""))
        if not listing.split or 2 * most < len({*listing.paths(_LOOKED_AT)}):
            return None
        places[listing.split] = folder
    if len(set(places.values())) < len(listings):
        return None
    root = posixpath.commonpath([posixpath.dirname(place) for place in places.values()]) or "."
    before = "" if root == "." else f"{root}/"
    below = [file.removeprefix(before) for file in files if file.startswith(before)]
    inner = {split: folder.removeprefix(before) for split, folder in places.items()}
    return Root(base, root, below, folders=inner)


def _folders_of(file: str) -> Iterator[str]:
    while "/" in file:
        file = file.rpartition("/")[0]
        yield file


def _hits_below(base: Path, folder: str, files: Sequence[str], listing: Listing) -> int:
    below = [file for file in files if file.startswith(f"{folder}/")]
    return _counts(Root(base, ".", below, folders={listing.split: folder}), [listing])[0]


def _roots(files: Sequence[str]) -> list[str]:
    """Return the folders that may be the root: `images`, those beside it, and those in it."""
    tops = Counter(file.partition("/")[0] for file in files if "/" in file)
    inner = Counter(
        "/".join(file.split("/")[:2]) for file in files if re.match("images/[^/]*/", file)
    )
    return [*sorted(tops), *sorted(inner)][:_MOST_ROOTS]


def _counts(root: Root, listings: Sequence[Listing]) -> tuple[int, int]:
    """Count rows with a file, and those whose path is the file's own."""
    matched = exact = 0
    for listing in listings:
        found = root.matches(listing, _LOOKED_AT)
        matched += sum(match.path is not None for match in found.values())
        exact += sum(match.path == path for path, match in found.items())
    return matched, exact


def choose_listings(
    base: Path, files: Sequence[str], candidates: Sequence[Listing], base_labels: Counter[str]
) -> list[Listing]:
    """Choose the tables that belong together: the longest with labels, and those of other splits.

    `base_labels` counts the labelled rows of a table by its name. Tables with ids in common belong
    together where a folder of each one's split holds its images.
    """
    by_rank = sorted(
        candidates,
        key=lambda listing: (
            not base_labels[listing.name],
            listing.split == "test",
            -len(listing.table.rows),
        ),
    )
    first, *others = by_rank
    chosen = [first]
    for other in others:
        in_folders = "/" in other.name and "/" in first.name
        fits = other.split and other.split != first.split and other.column == first.column
        both = [*chosen, other]
        if fits and (
            in_folders or _have_distinct_ids(both) or _find_split_folders(base, files, both)
        ):
            chosen.append(other)
    return sorted(chosen, key=lambda listing: SPLITS.index(listing.split) if listing.split else 0)


def forms_apart(
    base: Path, files: Sequence[str], chosen: Sequence[Listing], forms: Iterable[Listing]
) -> list[Listing]:
    """Return the form that stands for a table of test rows whose ids are those of other rows too,
    and whose images lie in a folder of their own.
    """
    if any(listing.split == "test" for listing in chosen):
        return []
    for form in forms:
        both = [*chosen, form]
        if form.column == chosen[0].column and not _have_distinct_ids(both):
            return [form] if _find_split_folders(base, files, both) else []
    return []


def describe_rows(
    root: Root, listings: Sequence[Listing], forms: Sequence[Listing]
) -> Iterator[str]:
    """Yield what each table holds and how its rows name their images, then how many images neither
    a table nor a form to hand in names.
    """
    named = {match.path for form in forms for match in root.matches(form).values()}
    for listing in listings:
        table = listing.table
        count = number_of(len(table.rows), "row")
        form = table.form.removeprefix("CSV, UTF-8, ")
        yield f"{listing.name}: {count}, {form}, images in the column {listing.column!r}"
        matches = root.matches(listing)
        found = {path: match.path for path, match in matches.items() if match.path}
        other = [(path, file) for path, file in found.items() if path != file]
        if other:
            yield (
                f"{listing.name}: {len(other)} of {count} name their file in another way: "
                f"{count_differences(other)}; the first is {other[0][0]!r} for {other[0][1]!r}"
            )
        lost = [path for path in root.paths(listing) if path not in found]
        if lost:
            detail = matches[lost[0]].detail if lost[0] in matches else ""
            why = f" ({detail})" if detail else ""
            yield f"{listing.name}: no image for {len(lost)} of {count}: {quote_few(lost)}{why}"
        named.update(found.values())
    unnamed = [file for file in root.files if file not in named]
    if unnamed:
        shown = quote_few(map(printable, sorted(unnamed)))
        yield f"no table names {len(unnamed)} of {number_of(len(root.files), 'image')}: {shown}"


def doubt_tests(root: Root, listing: Listing) -> Iterator[str]:
    """Yield that images lie in a folder of test images although nothing in the table says so."""
    paths = [match.path for match in root.matches(listing).values() if match.path]
    tested = [path for path in paths if split_named(path.partition("/")[0]) == "test"]
    if tested and len(tested) < len(paths):
        folder = tested[0].partition("/")[0]
        yield (
            f"{number_of(len(tested), 'image')} of {listing.name} in {folder}/, but no column "
            "says that they are test rows: those with a label are trained on; add a column `split`"
        )


def without_tests(root: Root, listing: Listing, split: str | None) -> Table:
    """Return a table without its test rows, whose labels only `score` reads."""
    table = listing.table
    words = [path.partition("/")[0] for path in root.paths(listing)] if split == BY_FOLDERS else []
    if split in table.columns:
        words = [row[str(split)] for row in table.rows]
    if not words:
        return table
    kept = [at for at, word in enumerate(words) if split_named(word) != "test"]
    rows, lines = (tuple(table.rows[at] for at in kept), tuple(table.lines[at] for at in kept))
    return replace(table, rows=rows, lines=lines)


def film_column(tables: Sequence[Table]) -> str | None:
    """Find the column that `frames` writes, where there are films for every fold."""
    if not all("film" in table.columns for table in tables):
        return None
    films = {row["film"] for table in tables for row in table.rows}
    return "film" if len(films) >= Folds().count else None
