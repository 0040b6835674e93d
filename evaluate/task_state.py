"""Where a task stands: its rows as the table has them now, beside what `embed` left of them."""

from dataclasses import dataclass, field

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import quote_few
from archiveprobe.evaluate.caches import LEAVE_OUT, open_in_use
from archiveprobe.task.config import Task
from archiveprobe.task.corrections import Counts
from archiveprobe.task.find_images import printable
from archiveprobe.task.manifest import (
    Entry,
    manifest_file,
    read_manifest_with_digest,
    with_found_paths,
)
from archiveprobe.task.rows import Row, read_corrected
from archiveprobe.task.snapshot import Snapshot, read_snapshot


@dataclass(frozen=True)
class State:
    """The rows of a task as its table has them now, beside what `embed` left of them.

    A row's path is that of the file that `embed` found, where its table writes it in another way.
    `corrections` counts what people decided of labels, which is laid over the table.
    """

    task: Task
    rows: list[Row]
    entries: list[Entry]
    snapshot: Snapshot
    corrections: Counts = field(default_factory=Counts)

    def waiting(self) -> set[str]:
        """Return ids of rows that `embed` has not looked at as they are now."""
        return {
            row.id
            for row, entry in zip(self.rows, self.entries, strict=True)
            if entry.status == "new" or entry.path != printable(row.path)
        }

    def check_complete(self) -> None:
        """Check that no row waits for `embed`, and that the last one came to its end.

        Raises:
            InputError: it did not; the message says how many rows wait.
        """
        waiting = self.waiting()
        if not waiting and self.snapshot.decoded:
            return
        what = f"the last embed of {self.task.file} was interrupted before its end"
        if waiting:
            verb = "waits" if len(waiting) == 1 else "wait"
            count = f"{len(waiting)} of {len(self.rows)}"
            what = f"{count} rows {verb} for embed ({quote_few(sorted(waiting))})"
        raise InputError(f"{what}: run `archiveprobe embed {self.task.shell_path}` ({LEAVE_OUT})")

    def uncommitted(self) -> set[str]:
        """Return ids of rows that one of the task's caches in use still lacks."""
        keys = {
            row.id: bytes.fromhex(entry.digest)
            for row, entry in zip(self.rows, self.entries, strict=True)
            if entry.usable
        }
        lacking: set[bytes] = set()
        for name in dict.fromkeys(self.task.embed.backbones):
            in_use = self.snapshot.cache(self.task.asks(name))
            # Also one that was finished: a later run may have been for other backbones only.
            if in_use is not None and in_use.folder is not None:
                reader = open_in_use(self.task, self.snapshot, name, partial=True)
                lacking |= set(keys.values()) - reader.keys - reader.failures.keys()
        return {row for row, key in keys.items() if key in lacking}


def read_state(task: Task) -> State:
    """Read the table, the manifest and the snapshot of a task, each proved.

    Raises:
        InputError: nothing is embedded yet, or one of the files is damaged.
    """
    snapshot = read_snapshot(task)
    entries, digest = read_manifest_with_digest(task)
    # While embed works it saves the manifest now and then, and marks the snapshot before.
    if digest != snapshot.manifest and snapshot.decoded:
        raise InputError(
            f"{manifest_file(task)} is not the one that the last embed left: run "
            f"`archiveprobe embed {task.shell_path}`"
        )
    rows, corrections = read_corrected(task)
    known = {entry.id: entry for entry in entries}
    entries = [known.get(row.id, Entry(row.id, "")) for row in rows]
    return State(task, with_found_paths(rows, entries), entries, snapshot, corrections)
