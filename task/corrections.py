"""corrections.csv: what people decided of labels, laid over the table and never written into it.

A file of one's own may have the columns `id` and `label` only: a label replaces that of the table,
an empty one takes it away. What is recorded here has also what the table said, the decision, who
and when. Rows to keep, and those a person is unsure of, change nothing; where one has another label
than the table, that is said.
"""

import codecs
import csv
import difflib
import io
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import drop_temporaries_of, explained, make_folder, write_whole
from archiveprobe.base.lock import wait_for_lock
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import clipped, first_few, number_of
from archiveprobe.task.config import Task
from archiveprobe.task.ids import id_faults, unknown_ids
from archiveprobe.task.labels import Words, read_labels, read_words, refuse
from archiveprobe.task.tables.table import TABLE_ENDINGS, Table, read_table

FILE = "corrections.csv"
KEEP, CHANGE, UNSURE = "keep", "change", "unsure"
DECISIONS = (KEEP, CHANGE, UNSURE)
_MARKS = {"comma": ",", "semicolon": ";", "tab": "\t"}
_LONGEST_NAME = 100
# How alike two names of files are (difflib's ratio) of which one is the other, mistyped.
_NEAR = 0.85
# What spreadsheets run as a formula; no name needs it in front.
_FORMULA = "=+-@＝＋－＠"
# They join letters in the names of several languages.
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person decided of one row: to keep its label, to change it, or that it is unsure.

    `label` is the label from now on, that of the table where nothing changes, "" for none;
    `old_label` that of the table, "" for none. `when` is ISO 8601 in UTC, in seconds: "" means now
    where a correction is recorded.
    """

    id: str
    label: str
    old_label: str = ""
    decision: str = CHANGE
    who: str = ""
    when: str = ""


COLUMNS = tuple(field.name for field in fields(Correction))


def corrections_file(task: Task) -> Path:
    """Return where the corrections of a task lie, or will: beside task.toml unless it names a file.

    The name `""` means that there are none.
    """
    return task.folder / (task.corrections or FILE)


def read_corrections(task: Task) -> dict[str, Correction]:
    """Read the corrections by id, in the order of their file; none where it is not there.

    A row without a decision, as in a file of one's own, is a change. Ids need not be in the table.

    Raises:
        InputError: the file is damaged, or holds repeated ids, unknown labels or decisions.
    """
    table = _read(task)
    return {} if table is None else _parsed(task, table)


@dataclass(frozen=True)
class Counts:
    """How many corrections of a task did what; every one counts once.

    `changed` gave another label than the table has, `labelled` one where the table has none, and
    `removed` took it away; the table has what `same` say already; `kept` and `unsure` change
    nothing. `tests` are of test rows, whose labels are not looked at, and `unknown` of rows that
    the table lacks. Counted again, `outdated` were decided under another label of the table, and
    `contradictory` are to keep or unsure, but have another label, as after an edit by hand.
    `missing` says that the file is named and not there yet.
    """

    file: str = ""
    changed: int = 0
    labelled: int = 0
    removed: int = 0
    kept: int = 0
    unsure: int = 0
    same: int = 0
    tests: int = 0
    unknown: int = 0
    outdated: int = 0
    missing: bool = False
    unknown_ids: tuple[str, ...] = ()
    contradictory_ids: tuple[str, ...] = ()

    @property
    def contradictory(self) -> int:
        """Count the rows to keep or unsure that have another label."""
        return len(self.contradictory_ids)

    @property
    def total(self) -> int:
        """Count all corrections."""
        return sum(getattr(self, name) for name in _SAID)

    def remarks(self) -> list[str]:
        """Say what corrections there are, in a line, and in another one what was not used."""
        if self.missing:
            return [f"{self.file} is named in task.toml and not there yet"]
        if not self.total:
            return []
        counts = [(getattr(self, name), words) for name, words in _SAID.items()]
        counts = [(count, _ONE.sub("", words) if count == 1 else words) for count, words in counts]
        listed = [f"{count} {words}" for count, words in counts if count]
        lacking = f" ({_named(self.unknown_ids)})" if self.unknown_ids else ""
        again = (
            f"; {self.outdated} of them decided under another label than the table has now: "
            "look at them again"
        )
        said = f"{self.file}: {', '.join(listed)}{lacking}{again if self.outdated else ''}"
        return [said, *self._unused()]

    def _unused(self) -> Iterator[str]:
        if self.contradictory:
            verb = "has" if self.contradictory == 1 else "have"
            yield (
                f"{self.file}: {number_of(self.contradictory, 'row')} to keep or unsure {verb} "
                f"another label, which is not used ({_named(self.contradictory_ids)}): write "
                "change in the column decision to use it"
            )

    def record(self) -> dict[str, int] | None:
        """Return the form of `--json`; None where the task has no file of corrections."""
        if not self.file or self.missing:
            return None
        return {name: getattr(self, name) for name in (*_SAID, "outdated", "contradictory")}


def _named(ids: Iterable[str]) -> str:
    return first_few(map(clipped, ids))


_ONE = re.compile("(?<=^label)s|(?<=^row)s")
_SAID = {
    "changed": "labels changed",
    "labelled": "rows without a label labelled",
    "removed": "labels taken away",
    "kept": "kept",
    "unsure": "unsure",
    "same": "that the table has already",
    "tests": "of test rows, which stay rows to predict",
    # The last one: ids follow.
    "unknown": "of rows that the table lacks, left out",
}


def lay_over(
    task: Task, rows: Iterable[tuple[str, str | None, bool]], notify: Notify = lambda _: None
) -> tuple[dict[str, Correction], Counts]:
    """Find the corrections of a task's rows by id, and count them.

    Every row has its id, its label in the table, and whether it is a test row whose label must not
    be looked at. In what comes back `old_label` is the label that the table has now. Rows that are
    not there are left out where people decided them; `notify` is told what else was guessed.

    Raises:
        InputError: see `read_corrections`; or a file of one's own names rows that are not there.
    """
    name = (task.corrections or FILE) if task.corrections != "" else ""
    table = _read(task)
    if table is None:
        return {}, Counts(name, missing=True) if task.corrections else Counts()
    labels = {id_: ("" if hidden else label or "", hidden) for id_, label, hidden in rows}
    given = _parsed(task, table, labels, notify)
    effects: dict[str, Any] = Counter(
        _effect(fix, *labels.get(id_, (None, False))) for id_, fix in given.items()
    )
    found = {id_: fix for id_, fix in given.items() if id_ in labels}
    outdated = sum(
        labels[id_][0] not in (fix.old_label, fix.label)
        # Where it is empty, nobody saw a label of the table: it may be that of a test row.
        for id_, fix in found.items()
        if fix.old_label and not labels[id_][1]
    )
    contradictory = (
        id_
        for id_, fix in found.items()
        if fix.decision != CHANGE and fix.label not in (fix.old_label, labels[id_][0])
    )
    laid = {id_: replace(fix, old_label=labels[id_][0]) for id_, fix in found.items()}
    return laid, Counts(
        name,
        outdated=outdated,
        unknown_ids=tuple(id_ for id_ in given if id_ not in labels),
        contradictory_ids=tuple(contradictory),
        **effects,
    )


def _effect(correction: Correction, label: str | None, hidden: bool) -> str:
    """Return the name of the count that a correction of a row with a label belongs to."""
    if label is None:
        return "unknown"
    if hidden:
        return "tests"
    if correction.decision != CHANGE:
        return {KEEP: "kept", UNSURE: "unsure"}[correction.decision]
    if correction.label == label:
        return "same"
    if not correction.label:
        return "removed"
    return "changed" if label else "labelled"


def record_corrections(
    task: Task, corrections: Sequence[Correction], *, remove: Collection[str] = ()
) -> int:
    """Write corrections into their file, one row per id; of two for an id the last one given stays.

    The rows of the ids in `remove` go first. All other rows stay, and so do further columns and the
    order of both. Several processes may record at a time. The file is written whole: after any
    fault the old one is there. Returns how many rows of the file are others than before.

    Raises:
        InputError: a correction that no file can hold, a damaged file, or one that is no CSV; or
            task.toml says that there are no corrections.
    """
    if task.corrections == "":
        raise InputError(
            f'corrections = "" in {task.file} means that there are none: remove that line'
        )
    file = Path(os.path.realpath(corrections_file(task)))
    new = {correction.id: _storable(file, correction) for correction in corrections}
    with explained(f"write {file}"):
        make_folder(file.parent)
    with explained(f"write {file}"), wait_for_lock(file.parent):
        state, now = None, _state(file)
        # Again, where a program that knows no lock, as an editor, has saved the file meanwhile.
        while state != now:
            changed, content = _merged(task, file, new, remove)
            state, now = now, _state(file)
        drop_temporaries_of(file)
        if changed:
            write_whole(file, content)
    return changed


def _state(file: Path) -> tuple[int, ...]:
    """Return what differs after a file was written, (0,) where there is none."""
    if not file.exists():
        return (0,)
    facts = file.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _merged(
    task: Task, file: Path, new: Mapping[str, Correction], remove: Collection[str]
) -> tuple[int, bytes]:
    """Merge corrections into the file as it is: how many rows are others then, and its bytes."""
    table = _read(task) or Table(file, COLUMNS, (), ())
    _check_form(task, table)
    _parsed(task, table)
    before = {row["id"]: row for row in table.rows}
    after = {id_: row for id_, row in before.items() if id_ not in remove}
    for id_, correction in new.items():
        after[id_] = before.get(id_, {}) | asdict(correction)
    merged = replace(table, columns=tuple(dict.fromkeys((*table.columns, *COLUMNS))))
    rows = tuple({name: row.get(name, "") for name in merged.columns} for row in after.values())
    _parsed(task, replace(merged, rows=rows, lines=tuple(range(1, len(rows) + 1)), unit="row"))
    changed = sum(before.get(id_) != after.get(id_) for id_ in before | after)
    return changed, _encoded(merged, rows)


def _read(task: Task) -> Table | None:
    file = corrections_file(task)
    # Read as the rows themselves, it corrects nothing.
    if task.corrections == "" or (task.corrections is None and file in task.tables.values()):
        return None
    if not os.path.lexists(file):
        _refuse_mistyped(task, file)
        return None
    table = read_table(file)
    table.require("id", "label", advice="call the columns of corrections id and label")
    return table


def _refuse_mistyped(task: Task, file: Path) -> None:
    """Refuse the name of a missing file where a table beside it is called nearly the same."""
    try:
        beside = (other.name for other in file.parent.iterdir())
        names = {name for name in beside if name.lower().endswith(TABLE_ENDINGS)}
    except OSError:
        names = set()
    own = {table.name for table in task.tables.values() if table.parent == file.parent}
    near = difflib.get_close_matches(file.name, names - own, n=1, cutoff=_NEAR)
    if task.corrections and near:
        raise InputError(
            f"no file {file} (did you mean {near[0]!r}?): correct corrections in {task.file}"
        )


def _parsed(
    task: Task,
    table: Table,
    known: Collection[str] | None = None,
    notify: Notify = lambda _: None,
) -> dict[str, Correction]:
    """Read the rows of a table, and refuse all that is wrong with it in one line."""
    is_own = "decision" not in table.columns
    decisions = read_words((row.get("decision") for row in table.rows), Words(DECISIONS).meaning)
    changes = [word in (None, CHANGE) for word in decisions.meanings]
    # A row to keep or unsure with another label was edited: that must be a label, too.
    is_read = [
        change or row["label"] != row.get("old_label", "")
        for row, change in zip(table.rows, changes, strict=True)
    ]
    labels, words = read_labels(task, table, "label", is_read), Words(task.labels)
    faults = [*id_faults(table, "id"), *labels.faults]
    if known is not None and is_own:
        faults += unknown_ids(table, "id", known)
    if decisions.unknown:
        listed = decisions.listed(DECISIONS, table.place)
        faults.append(
            f"unknown decisions in {number_of(decisions.unknown.total(), 'row')}: {listed}: "
            "use keep, change or unsure"
        )
    refuse(table.file, faults)
    for remark in (*table.remarks, *labels.remarks):
        notify(remark)
    given = zip(table.rows, decisions.meanings, is_read, labels.meanings, strict=True)
    return {
        row["id"]: Correction(
            **{name: row.get(name, "") for name in COLUMNS}
            | {
                "decision": word or CHANGE,
                "label": (label or "") if read else _as_in_task(words, row["label"]),
                "old_label": _as_in_task(words, row.get("old_label", "")),
            }
        )
        for row, word, read, label in given
    }


def _as_in_task(words: Words, label: str) -> str:
    """Return a label in the spelling of task.toml; one that is no label any more stays."""
    return words.meaning(label) or label


def _storable(file: Path, correction: Correction) -> Correction:
    """Return a correction with its time and a plain name.

    Raises InputError where the file could not give it back.
    """
    if correction.decision not in DECISIONS:
        raise InputError(
            f"{file}: unknown decision {clipped(correction.decision)} of {clipped(correction.id)}: "
            f"use {', '.join(DECISIONS)}"
        )
    if correction.decision != CHANGE and correction.label != correction.old_label:
        raise InputError(
            f"{file}: the label of {clipped(correction.id)} is {clipped(correction.label)}, but "
            f"{correction.decision!r} repeats that of the table"
        )
    try:
        when = datetime.fromisoformat(correction.when) if correction.when else datetime.now(UTC)
        if when.tzinfo is None:
            raise ValueError("no time zone")
        stamp = when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        stored = replace(correction, who=plain_name(correction.who), when=stamp)
        "".join(asdict(stored).values()).encode()
    except (ValueError, OverflowError) as error:
        raise InputError(f"{file}: cannot store {clipped(correction.id)}: {error}") from None
    return stored


def plain_name(text: str) -> str:
    """Write the name of a person in one line that no program takes for anything else."""
    shown = (mark if mark.isprintable() or mark in _JOINERS else " " for mark in text)
    return " ".join("".join(shown).lstrip(f"{_FORMULA} ").split())[:_LONGEST_NAME].strip()


def _check_form(task: Task, table: Table) -> None:
    """Check that the file is a CSV, and no other file of the task. Raises InputError."""
    others = [task.file, *task.tables.values()]
    others += [task.folder / task.submission.template] if task.submission.template else []
    if os.path.realpath(table.file) in map(os.path.realpath, others):
        raise InputError(f"{table.file} is another file of the task: correct corrections there")
    if not table.form.startswith("CSV"):
        raise InputError(
            f"{table.file} is {table.form}: corrections are recorded in a CSV, save it as one and "
            f"name that in {task.file}"
        )


def _encoded(table: Table, rows: Sequence[Mapping[str, str]]) -> bytes:
    """Write rows as a CSV in UTF-8, with a mark where a spreadsheet has written the file before."""
    out = io.StringIO()
    writer = csv.DictWriter(
        out, table.columns, delimiter=_MARKS[table.separator], lineterminator="\r\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return (codecs.BOM_UTF8 if _has_mark(table) else b"") + out.getvalue().encode()


def _has_mark(table: Table) -> bool:
    if not table.rows:
        return False
    with table.file.open("rb") as stream:
        is_marked = stream.read(3) == codecs.BOM_UTF8
    return is_marked or "UTF-8" not in table.form
