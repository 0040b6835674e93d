"""What an embed run leaves beside the caches: the manifest and the snapshot, kept in step.

Both are written when the run has something to do, now and then while it works, and at its end; all
but the last time the snapshot says that the run is not finished. A run over a share of the rows
leaves a manifest of that share, and no snapshot: the last run, over all rows, takes it over.
"""

import time
from collections.abc import Iterable
from typing import Any, Self

from archiveprobe.base.errors import InputError
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.embed.job import Job
from archiveprobe.embed.plan import Plan
from archiveprobe.embed.prepare import PreparedImage
from archiveprobe.evaluate.dataset import make_dataset
from archiveprobe.task.decoding import Observation
from archiveprobe.task.folds import FoldTable
from archiveprobe.task.manifest import Entry, with_observations, write_manifest
from archiveprobe.task.shares import drop_shares, share_manifest
from archiveprobe.task.snapshot import CacheInUse, Snapshot, update_snapshot

_SAVE_SECONDS = 60.0


class RunRecord:
    """The manifest and the snapshot of a run; a context manager that saves them after a fault."""

    def __init__(self, work: Plan) -> None:
        self._work = work
        self._jobs = [*work.jobs, *work.text_jobs]
        self._observed: dict[str, Observation] = {}
        self._saved = time.monotonic()
        self._pause = _SAVE_SECONDS
        self._folders_saved = self._folders()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, fault: type[BaseException] | None, *_: Any) -> None:
        if fault is not None:
            self.save()

    @property
    def entries(self) -> list[Entry]:
        """Return every row with what was observed of its image so far."""
        return with_observations(self._work.entries, self._observed)

    def add(self, image: PreparedImage) -> None:
        """Take over what was observed of an image."""
        self._observed[image.digest] = image.observation
        # Which cache is written is recorded at once: whoever reads half a run needs to know.
        late = time.monotonic() - self._saved > self._pause
        if late or self._folders() != self._folders_saved:
            self.save()

    def save(self) -> None:
        """Write both, as those of a run that is not finished."""
        started = time.monotonic()
        self._folders_saved = self._folders()
        self._write(finished=False, parts={})
        self._saved = time.monotonic()
        # A million rows take ten seconds to write: that may cost a twentieth of a run.
        self._pause = max(_SAVE_SECONDS, 20 * (self._saved - started))

    def finish(self, folds: FoldTable | None) -> None:
        """Write both, as those of a run that has come to its end."""
        self._write(finished=True, parts=self._parts(folds))
        if self._work.share is None:
            drop_shares(self._work.task)

    def _folders(self) -> list[str | None]:
        return [job.folder.name if job.folder else None for job in self._jobs]

    def _write(self, *, finished: bool, parts: dict[str, str]) -> None:
        entries = self.entries
        if self._work.share is not None:
            file = share_manifest(self._work.task, str(self._work.share))
            write_manifest(self._work.task, entries, file)
            return
        decoded = all(entry.observed is not None for entry in entries)
        keys = [entry.digest for entry in entries if entry.digest and entry.usable]

        def change(before: Snapshot) -> Snapshot:
            # Inside the lock, so that the two belong together even where several runs write them.
            manifest = self._manifest(entries, before)
            caches = [self._cache_in_use(job, keys, finished) for job in self._jobs]
            kept = [old for old in before.caches if not self._is_replaced(old, caches)]
            after = Snapshot(before.task, manifest, decoded, parts, tuple(kept))
            return after.with_caches(caches)

        update_snapshot(self._work.task, change)

    def _manifest(self, entries: list[Entry], before: Snapshot) -> str:
        """Return the digest of the manifest of the entries, which is written where it is not."""
        written = self._work.manifest
        if written and written == before.manifest and entries == self._work.entries:
            return written
        return write_manifest(self._work.task, entries)

    def _cache_in_use(self, job: Job, keys: Iterable[str], finished: bool) -> CacheInUse:
        asked = self._work.task.asks(job.backbone.name, job.backbone.tower)
        if job.folder is None:
            return CacheInUse(asked, finished=finished)
        wanted = self._work.texts if job.backbone.tower == "text" else keys
        complete = finished or not job.missing(wanted)
        return CacheInUse(asked, job.folder.name, CacheRecord.read(job.folder).digest, complete)

    def _is_replaced(self, old: CacheInUse, caches: Iterable[CacheInUse]) -> bool:
        """Return whether a cache of other views or layers is of weights that are now replaced."""
        weights = self._weights(old)
        return any(
            weights != self._weights(new)
            for new in caches
            if new.folder is not None
            and new.asked["backbone"] == old.asked["backbone"]
            and (new.asked["views"] == "text") == (old.asked["views"] == "text")
        )

    def _weights(self, cache: CacheInUse) -> object:
        try:
            folder = self._work.task.caches / str(cache.folder)
            return CacheRecord.read(folder).fingerprint["weights"]
        except (InputError, KeyError):
            return None

    def _parts(self, folds: FoldTable | None) -> dict[str, str]:
        """Return digests of what the rows are now; none where there is nothing to learn from."""
        if folds is None:
            return {}
        work = self._work
        try:
            return make_dataset(work.task, work.rows, self.entries, folds, Snapshot("")).parts
        except (InputError, KeyError):
            return {}
