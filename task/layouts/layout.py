"""What a folder of images seems to hold: tables or one folder per label, columns and labels.

Known are Kaggle's tables (train.csv, test.csv, sample_submission.csv), Hugging Face's metadata
files, folders of splits and labels, and any table with a column of paths or names. Whatever is
guessed is said, and so is what was looked for in vain.
"""

import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import first_few, number_of, quote_few
from archiveprobe.task import corrections
from archiveprobe.task.config import Images
from archiveprobe.task.find_images import find_images, printable
from archiveprobe.task.labels import UNLABELLED
from archiveprobe.task.layouts.form_layout import use_form
from archiveprobe.task.layouts.label_column import (
    MOST_LABELS,
    check_positive,
    given_labels,
    guess_labels,
    list_counts,
    merged_spellings,
    named_column,
    positive_last,
)
from archiveprobe.task.layouts.table_layout import (
    Listing,
    Root,
    choose_listings,
    describe_rows,
    doubt_tests,
    file_names,
    film_column,
    find_root,
    find_tables,
    forms_apart,
    plain_name,
    read_listing,
    try_listing,
    without_tests,
)
from archiveprobe.task.own_answers import is_own_answer, is_prediction
from archiveprobe.task.rows import BY_FOLDERS, split_folders
from archiveprobe.task.splits import SPLITS, is_form, split_named

_SPLIT_NAMES = ("split", "set", "subset", "partition")
_TEXT_NAMES = ("caption", "text", "description")


@dataclass(frozen=True)
class Choices:
    """What the user says instead of having it guessed."""

    tables: tuple[Path, ...] = ()
    images: Path | None = None
    labels: tuple[str, ...] = ()
    positive: str | None = None


@dataclass(frozen=True)
class Layout:
    """What the folder seems to hold; `label_column` is None where no table has labels.

    `counts` has the labelled rows of every label, `template` the form to hand in, `group` is what
    stays in one fold. `remarks` say what was guessed and what was not found, a sentence each.
    """

    labels: tuple[str, ...]
    images: Images
    counts: Counter[str] = field(default_factory=Counter)
    label_column: str | None = None
    positive: str | None = None
    template: str | None = None
    group: str = "near-duplicates"
    remarks: list[str] = field(default_factory=list)


NO_CHOICE = Choices()


def detect_layout(folder: Path, choices: Choices = NO_CHOICE) -> Layout:
    """Guess labels, tables and columns of a folder of images, but for what is chosen.

    Raises:
        InputError: there is no image, or what is chosen does not fit what is there.
    """
    folder = folder.resolve()
    if len(set(choices.labels)) < len(choices.labels) or "" in choices.labels:
        raise InputError("--labels: name every label once, separated by commas")
    base = (choices.images or folder).resolve()
    if not base.is_dir():
        raise InputError(f"no folder {base}: correct --images")
    files = find_images(base, [folder / "work"]).paths
    if not files:
        raise InputError(_nothing(folder, base))
    candidates, forms, unused = _candidates(folder, files, choices)
    others: list[str] = []
    if not choices.tables and _are_beside_labels(candidates, files):
        why = "it names no image below the folder of a label"
        names = [listing.name for listing in candidates if not is_form(listing.name)]
        others = [f"not used: {printable(name)}: {why}" for name in names]
        candidates = []
    if candidates and (choices.tables or not all(is_form(listing.name) for listing in candidates)):
        layout, others = _from_tables(folder, base, files, candidates, choices, forms)
    else:
        layout = _from_folders(folder, base, files, choices)
        if not layout.labels and candidates:
            layout, others = _from_tables(folder, base, files, candidates, choices, forms)
    layout = _with_forms(folder, layout, forms, files)
    layout, positive = _with_positive(layout, choices)
    remarks = [*layout.remarks, *positive, *others, *unused]
    # Names may hold line ends.
    return replace(layout, remarks=[" ".join(remark.split()) for remark in remarks])


def _nothing(folder: Path, base: Path) -> str:
    tables = [path.name for path in find_tables(folder)]
    also = f", but {first_few(tables)}" if tables else ""
    return f"no image below {base}{also}: name the folder that holds them with --images"


def _candidates(
    folder: Path, files: Sequence[str], choices: Choices
) -> tuple[list[Listing], list[Path], list[str]]:
    """Return the tables that list images, the forms to hand in, and what cannot be used."""
    names = file_names(files)
    forms = [file for file in find_tables(folder) if is_form(file.name)]
    if choices.tables:
        taken = {file.resolve(): file for file in choices.tables}
        given = [read_listing(folder, file, names) for file in taken.values()]
        return given, [file for file in forms if file.resolve() not in taken], []
    listings, unused = [], []
    for file in find_tables(folder):
        if file.name == corrections.FILE:
            continue
        if is_own_answer(folder / "work", file):
            unused.append(f"not used: {printable(file.name)}, which `submit` or `predict` wrote")
            continue
        try:
            listing = read_listing(folder, file, names)
            if is_prediction(listing.table.columns):
                unused.append(f"not used: {printable(file.name)}, which has answers of `predict`")
            else:
                listings.append(listing)
        except InputError as error:
            if not is_form(file.name):
                unused.append(f"not used: {error}")
    tables = [listing for listing in listings if not is_form(listing.name)]
    return tables or listings, forms, unused


def _are_beside_labels(listings: Sequence[Listing], files: Sequence[str]) -> bool:
    """Return whether folders are labels, and no table names an image in one of them."""
    splits = split_folders(files, ())
    labels = {file: _label_folder(file, splits) for file in files}
    labelled = [file for file, label in labels.items() if label not in (None, UNLABELLED)]
    names = file_names(labelled)
    several = len({labels[file] for file in labelled}) > 1
    return several and not any(
        plain_name(path) in names for one in listings for path in one.paths()
    )


def _from_tables(
    folder: Path,
    base: Path,
    files: Sequence[str],
    candidates: Sequence[Listing],
    choices: Choices,
    forms: Sequence[Path],
) -> tuple[Layout, list[str]]:
    """Describe the tables that belong together, and say which are not used."""
    chosen = list(candidates)
    if not choices.tables:
        labelled = Counter({listing.name: _labelled(listing) for listing in candidates})
        chosen = choose_listings(base, files, candidates, labelled)
    asked = [form for file in forms if (form := try_listing(folder, file, files))]
    chosen += forms_apart(base, files, chosen, asked)
    root = find_root(base, files, chosen, is_given=choices.images is not None)
    tables = [listing.table for listing in chosen]
    split, doubtful, remarks = _split(root, chosen)
    text = named_column(tables[0].columns, _TEXT_NAMES)
    if not all(text in table.columns for table in tables):
        text = None
    listings = [listing for listing in chosen if listing.split != "test" or len(chosen) == 1]
    training = [without_tests(root, listing, split) for listing in listings]
    taken = {split, text, *doubtful, *(listing.column for listing in chosen)}
    # Where nothing else is to be predicted, rows without a label may be.
    alone = len(chosen) == 1 and not forms and not split
    labels = (
        given_labels(training, choices.labels)
        if choices.labels
        else guess_labels(training, taken, with_empty_cells=alone)
    )
    names = tuple(printable(listing.name) for listing in chosen)
    images = Images(
        root=Path(os.path.relpath(base / root.root, folder)).as_posix(),
        table=names if len(names) > 1 else names[0],
        relative_to=root.relative_to(chosen),
        id=chosen[0].column,
        label=labels.column or "label",
        split=split,
        text=text,
    )
    said = _left_out(base / root.root, len(files) - len(root.files))
    said += [*describe_rows(root, chosen, asked), *root.remarks(chosen), *remarks, labels.why]
    film = film_column(tables)
    if film:
        said.append(f"images of one film, in the column {film!r}, stay in one fold")
    layout = Layout(
        choices.labels or positive_last(labels.counts),
        images,
        labels.counts,
        labels.column,
        group=film or Layout.group,
    )
    unused = [_unused(listing, chosen) for listing in candidates if listing not in chosen]
    return replace(layout, remarks=said), unused


def _unused(listing: Listing, chosen: Sequence[Listing]) -> str:
    ids = {path for listing in chosen for path in listing.paths()}
    shared = [path for path in listing.paths() if path in ids]
    names = " and ".join(listing.name for listing in chosen)
    why, first = ": to use it, name it and every other table with --table", chosen[0]
    if not shared and listing.column != first.column:
        why = (
            f": its images are in the column {listing.column!r}, those of {first.name} in "
            f"{first.column!r}: give both the same name"
        )
    if shared:
        rows = number_of(len(listing.table.rows), "row")
        left = len(listing.table.rows) - len(shared)
        remedy = "a row must stand in one table only"
        if left:
            remedy = "take them out of one of the two, or name tables with --table; till then its "
            remedy += f"other {number_of(left, 'row')} are left out"
        elif listing.split:
            remedy = "rename images so that ids differ, or put those of each table into a folder "
            remedy += "of its split (train/, test/)"
        why = f": {len(shared)} of its {rows} stand in {names} too: {quote_few(shared)}: {remedy}"
    return f"not used: {printable(listing.name)}{why}"


def _labelled(listing: Listing) -> int:
    return guess_labels([listing.table], {listing.column}).counts.total()


def _split(
    root: Root, listings: Sequence[Listing]
) -> tuple[str | None, list[str | None], list[str]]:
    """Find what says the splits: a column, or the folders in the paths; columns of other words than
    splits; and what to say of it.
    """
    remarks: list[str] = []
    doubtful: list[str | None] = []
    for listing in listings:
        column = named_column(listing.table.columns, _SPLIT_NAMES)
        words = {row[column] for row in listing.table.rows if row[column].strip()} if column else ()
        odd = sorted(word for word in words if not split_named(word))
        if column and not odd:
            return column, doubtful, remarks
        if odd:
            doubtful.append(column)
            remarks.append(
                f"the column {column!r} has other values than {', '.join(SPLITS)} "
                f"({quote_few(odd)}): it is left out"
            )
    if len(listings) > 1:
        return None, doubtful, remarks
    tops = Counter(path.partition("/")[0] for path in root.paths(listings[0]) if "/" in path)
    splits = {split_named(top) for top in tops}
    if len(splits) > 1 and None not in splits:
        return BY_FOLDERS, doubtful, remarks
    return None, doubtful, [*remarks, *doubt_tests(root, listings[0])]


def _from_folders(folder: Path, base: Path, files: Sequence[str], choices: Choices) -> Layout:
    root, paths = base, list(files)
    while choices.images is None and (inner := _inner_root(paths)):
        root /= inner
        paths = [path.removeprefix(f"{inner}/") for path in paths if path.startswith(f"{inner}/")]
    splits = split_folders(paths, choices.labels)
    folders = Counter(printable(name) for path in paths if (name := _label_folder(path, splits)))
    counts = merged_spellings(folders)
    counts.pop(UNLABELLED, None)
    why = f"labels from the folders: {list_counts(counts)}"
    if choices.labels:
        known = merged_spellings(Counter(choices.labels))
        counts = Counter({label: counts[label] for label in known})
    elif not 2 <= len(counts) <= MOST_LABELS:
        found = number_of(len(counts), "folder")
        why = f"no labels found ({found}): fill in labels, and give a table (--table)"
        counts = Counter()
    images = Images(root=Path(os.path.relpath(root, folder)).as_posix())
    remarks = [f"{number_of(len(paths), 'image')} below {printable(str(root))}", why]
    remarks += _left_out(root, len(files) - len(paths))
    labels = choices.labels or positive_last(counts)
    return Layout(labels, images, counts, remarks=remarks)


def _left_out(root: Path, count: int) -> list[str]:
    """Say how many images are not below the root."""
    images = number_of(count, "image")
    name = printable(root.name)
    return [f"{images} beside {name}/ left out: name another folder with --images"] if count else []


def _inner_root(paths: Collection[str]) -> str | None:
    """Return the folder that holds the images: `images`, or the only one, where it holds folders
    and names no split.
    """
    tops = {path.partition("/")[0] if "/" in path else "" for path in paths}
    if "images" in tops:
        return "images"
    inner = {path.split("/")[1] for path in paths if path.count("/") > 1}
    top = tops.pop() if len(tops) == 1 else ""
    return top if top and len(inner) > 1 and not split_named(top) else None


def _label_folder(path: str, splits: dict[str, str]) -> str | None:
    folders = path.split("/")[:-1]
    if folders and folders[0] in splits:
        # Below `test` a folder may have any name.
        folders = folders[1:] if splits[folders[0]] != "test" else []
    return folders[0] if folders else None


def _with_forms(
    folder: Path, layout: Layout, forms: Sequence[Path], files: Sequence[str]
) -> Layout:
    """Take the first form to hand in that fits as the template, and say so."""
    remarks = [*layout.remarks]
    for form in forms:
        name = Path(os.path.relpath(form.resolve(), folder)).as_posix()
        if layout.template:
            remarks.append(f"not used: {name}, another form to hand in")
            continue
        images, remark = use_form(folder, layout.images, layout.labels, form, files)
        if images is not None:
            layout = replace(layout, template=name, images=images)
        remarks.append(remark)
    return replace(layout, remarks=remarks)


def _with_positive(layout: Layout, choices: Choices) -> tuple[Layout, list[str]]:
    if choices.positive is not None:
        return replace(layout, positive=check_positive(choices.positive, layout.labels)), []
    if len(layout.labels) != 2:
        return layout, []
    positive = positive_last(layout.labels)[1]
    remark = f"positive, the label to look for, is {positive!r}: a guess"
    return replace(layout, positive=positive), [remark]
