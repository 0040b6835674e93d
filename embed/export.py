"""The rows of a task and their embeddings, exported to one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of
from archiveprobe.cache.export import export
from archiveprobe.cache.export_forms import form_of, written_by
from archiveprobe.cache.store import Reader
from archiveprobe.embed.backbones import resolve
from archiveprobe.embed.fingerprint import request
from archiveprobe.evaluate.caches import open_in_use
from archiveprobe.evaluate.task_state import read_state
from archiveprobe.task.config import Task
from archiveprobe.task.find_images import printable
from archiveprobe.task.manifest import Entry
from archiveprobe.task.output import output_file
from archiveprobe.task.rows import Row, locate


@dataclass(frozen=True)
class Exported:
    """Rows written, and remarks for the reader, a sentence each.

    `partial` says, where it is not None, how few of them embed has come to.
    """

    rows: int
    remarks: list[str]
    partial: str | None = None


def export_task(
    task: Task,
    file: Path,
    backbones: tuple[str, ...] = (),
    *,
    form: str | None = None,
    overwrite: bool = False,
    partial: bool = False,
) -> Exported:
    """Write the table and the embeddings into one file, in the order of the table.

    `form` is hdf5, parquet, lance or npy; None goes by the ending of `file`.

    Raises:
        InputError: a backbone has no cache yet, the file must not be written, or rows wait for
            `embed`, which `partial` allows: their embeddings are NaN then.
        InputError: the file exists, or a cache is damaged.
    """
    target = output_file(task, file)
    state = read_state(task)
    rows, entries = state.rows, state.entries
    if not partial:
        state.check_complete()
    keys = [bytes.fromhex(entry.digest) if entry.digest else None for entry in entries]
    usable = [key for key, entry in zip(keys, entries, strict=True) if entry.usable]
    readers = {
        name: open_in_use(task, state.snapshot, name, keys=usable, partial=partial)
        for name in backbones or task.embed.backbones
    }
    lacking = _lacking(readers, usable)
    gaps = [
        f"no embedding by {name} yet of {number_of(len(them), 'image')}"
        for name, them in lacking.items()
    ]
    if gaps and not partial:
        raise InputError(f"{'; '.join(gaps)}: run `archiveprobe embed {task.shell_path}`")
    columns = {
        "id": [row.id for row in rows],
        "label": [row.label or "" for row in rows],
        "split": [row.split or "" for row in rows],
        "status": [entry.status for entry in entries],
        "path": [printable(row.path) for row in rows],
        "digest": [entry.digest or "" for entry in entries],
        "text": [row.text or "" for row in rows],
    }
    for beside in written_by(target, form or form_of(target)):
        output_file(task, beside)
    export(target, columns, keys, readers, form=form, overwrite=overwrite)
    remarks = [*state.corrections.remarks(), *(f"partial: {gap}" for gap in gaps)]
    remarks += _cache_remarks(task, readers)
    waiting = state.waiting()
    if waiting:
        count = number_of(len(waiting), "row")
        remarks.append(f"partial: no embedding yet of {count}, NaN stands for it: run embed")
    changed = sum(_has_changed(task, row, entry) for row, entry in zip(rows, entries, strict=True))
    if changed:
        count = number_of(changed, "image")
        remarks.append(f"{count} changed since the last embed: run embed")
    without = set().union(*lacking.values())
    done = sum(
        row.id not in waiting and key not in without for row, key in zip(rows, keys, strict=True)
    )
    return Exported(
        len(rows), remarks, f"partial: {done} of {len(rows)} rows" if waiting or lacking else None
    )


def _lacking(
    readers: Mapping[str, Reader], keys: Sequence[bytes | None]
) -> dict[str, set[bytes | None]]:
    """Return the decoded rows that a cache lacks, by the name of its backbone.

    Those that are known to have no embedding do not count.
    """
    lacking = {
        name: set(keys) - reader.keys - reader.failures.keys() for name, reader in readers.items()
    }
    return {name: them for name, them in lacking.items() if them}


def _has_changed(task: Task, row: Row, entry: Entry) -> bool:
    """Return whether the image is here and has another size than when it was embedded."""
    try:
        size = locate(task.root, row.path).stat().st_size
    except (OSError, ValueError):
        return False
    return entry.observed is not None and entry.observed.bytes not in (None, size)


def _cache_remarks(task: Task, readers: Mapping[str, Reader]) -> list[str]:
    remarks = []
    for name, reader in readers.items():
        if reader.fingerprint.get("random_weights"):
            remarks.append(f"{name}: RANDOM WEIGHTS, for trials only")
        if reader.record.request != request(task, resolve(name, task)):
            remarks.append(
                f"{name}: made with other weights or libraries than are here now; "
                "embed again if they should count"
            )
    return remarks
