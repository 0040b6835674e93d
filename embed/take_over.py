"""What the embed of another task has seen and embedded of the same images, taken over.

From then on each task looks after its own caches: what one removes, the other keeps.
"""

from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import explained, link_whole
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import number_of
from archiveprobe.cache.carry import carry_over
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import (
    CacheRecord,
    differences,
    find_caches,
    list_changes,
    match_request,
)
from archiveprobe.cache.store import Writer
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.fingerprint import request
from archiveprobe.embed.thumbnails import stored_thumbnails, thumbnail_file
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import Entry, decoder_of, read_manifest_with_digest
from archiveprobe.task.snapshot import read_snapshot

_AT_ONCE = 1024


def take_over(
    task: Task,
    source: Task,
    backbones: Sequence[Backbone],
    *,
    precision: str = "auto",
    notify: Notify = lambda _: None,
) -> list[Entry]:
    """Take the caches and thumbnails of `source` into the work of `task`; return what it has seen.

    A cache is taken where it was made with the settings that `task` asks for; where none was,
    `notify` is told what differs. Called again it takes what came since. What comes back has its
    paths only where both tasks have the same folder of images: elsewhere bytes alone say what an
    image is.

    Raises:
        InputError: both are one task, `source` was not embedded or is damaged, another process
            writes one of the caches, or the disk refuses.
    """
    if task.work.resolve() == source.work.resolve():
        raise InputError(f"{source.file} is the task itself: name another one with --from")
    read_snapshot(source)
    entries, _ = read_manifest_with_digest(source, decoder=decoder_of(task))
    for backbone in backbones:
        _take_cache(task, source, backbone, precision, notify)
    if task.embed.thumbnails:
        _link_thumbnails(task, source, entries)
    is_same_root = task.root.resolve() == source.root.resolve()
    return [
        entry._replace(path=entry.path if is_same_root else "", written="") for entry in entries
    ]


def _take_cache(
    task: Task, source: Task, backbone: Backbone, precision: str, notify: Notify
) -> None:
    name, asked = backbone.cache, request(task, backbone)
    there, own = source.caches, task.caches
    fitting = _fitting(there, name, asked, precision)
    # A cache that is begun goes on as it was: rows in another precision would lie unused.
    own_caches = [each.folder for each in _fitting(own, name, asked, precision)]
    begun = {folder.name for folder in own_caches if _rows(folder)}
    if begun:
        fitting = [record for record in fitting if record.folder.name in begun]
    if not fitting:
        notify(f"{name}: nothing taken over, {_why_none(there, name, asked, source)}")
        return
    fullest = max(fitting, key=lambda record: _rows(record.folder))
    here = own / fullest.folder.name
    if _rows(here):
        taken = _add_missing(fullest.folder, here)
    else:
        # Whole shards, which is faster.
        taken = _rows(carry_over(fullest.folder, name, fullest.fingerprint, asked, own))
    notify(f"{name}: {number_of(taken, 'row')} taken over from {source.file}")


def _fitting(
    caches: Path, name: str, asked: Mapping[str, Any], precision: str
) -> list[CacheRecord]:
    return [
        record
        for record in match_request(caches, name, asked)
        if precision in ("auto", record.fingerprint.get("precision"))
    ]


def _add_missing(source: Path, here: Path) -> int:
    """Add the rows of a cache that another one of its fingerprint lacks; return how many."""
    reader, record = Reader(source, keep_shard=True), CacheRecord.read(here)
    keys = list(reader.keys)
    with Writer.open(here, record.fingerprint, record.request) as writer:
        missing = list(compress(keys, ~writer.keys.holds(keys)))
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            for key, row in zip(part, reader.read(part)[1], strict=True):
                writer.add(key, row)
    return len(missing)


def _why_none(there: Path, name: str, asked: Mapping[str, Any], source: Task) -> str:
    """Say in which settings the nearest cache is another one."""
    caches = find_caches(there, name)
    if not caches:
        return f"{source.file} has no cache of it"
    changed = min((differences(each.request, asked) for each in caches), key=len)
    listed = list_changes(changed) or "precision"
    return f"the settings differ from those of {source.file}: {listed}"


def _rows(folder: Path) -> int:
    try:
        return Reader(folder).rows
    except InputError:
        return 0


def _link_thumbnails(task: Task, source: Task, entries: Sequence[Entry]) -> None:
    here, there = task.work / "thumbs", source.work / "thumbs"
    stored, wanted = stored_thumbnails(there), {entry.digest for entry in entries}
    with explained(f"write {here}"):
        for digest in (stored & wanted) - stored_thumbnails(here):
            link_whole(thumbnail_file(there, digest), thumbnail_file(here, digest))
