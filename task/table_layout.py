"""The tables of a folder: which of them list its images, in which column, below which root."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import clipped, first_few, number_of, quote_few
from archiveprobe.task.find_images import has_image_extension, printable
from archiveprobe.task.match_files import Match, count_differences, match_some
from archiveprobe.task.splits import SPLITS, split_named, split_of_table
from archiveprobe.task.table import TABLE_ENDINGS, Table, read_table

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
    """The folder where paths begin: `root` relative to `base`, whose images are `files`."""

    base: Path
    root: str
    files: list[str]
    relative_to_table: bool = False

    def matches(self, listing: Listing, most: int | None = None) -> dict[str, Match]:
        """Find the files of a table's rows, by their paths below the root."""
        paths = dict.fromkeys(self.paths(listing, most))
        return match_some(self.base / self.root, [*paths], self.files)

    def paths(self, listing: Listing, most: int | None = None) -> list[str]:
        """Return the paths of a table's rows as the task will read them."""
        before = ""
        if self.relative_to_table:
            below = os.path.relpath(listing.table.file.parent.resolve(), self.base / self.root)
            before = "" if below == "." else f"{below}/"
        return [before + path for path in listing.paths(most)]


def find_tables(folder: Path) -> Iterator[Path]:
    """Yield the files that may be tables: at the top, and metadata files in the folders below."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in TABLE_ENDINGS and path.is_file():
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


def choose_listings(candidates: Sequence[Listing], base_labels: Counter[str]) -> list[Listing]:
    """Choose the tables that belong together: the longest with labels, and those of other splits.

    `base_labels` counts the labelled rows of a table by its name.
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
    ids = set(first.paths())
    chosen = [first]
    for other in others:
        in_folders = "/" in other.name and "/" in first.name
        fits = other.split and other.split != first.split and other.column == first.column
        if fits and (in_folders or ids.isdisjoint(other.paths())):
            chosen.append(other)
            ids.update(other.paths())
    return sorted(chosen, key=lambda listing: SPLITS.index(listing.split) if listing.split else 0)


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
