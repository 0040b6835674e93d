"""The snapshot of a work folder that a test has put together by hand."""

from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

from archiveprobe.cache.spec import CacheRecord
from archiveprobe.embed.backbones import Backbone
from archiveprobe.evaluate.caches import asked_of
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import read_manifest_with_digest
from archiveprobe.task.snapshot import CacheInUse, Snapshot, read_snapshot, update_snapshot


def write_snapshot(task: Task, *, decoded: bool = True, unfinished: Collection[str] = ()) -> None:
    """Pin the manifest and every cache that lie below work/, as `embed` does at its end.

    `unfinished` names backbones whose cache still lacks rows.
    """
    records = [CacheRecord.read(file.parent) for file in task.work.glob("cache/*/fingerprint.json")]
    caches = [
        CacheInUse(
            record.request["asked"],
            record.folder.name,
            record.digest,
            record.request["asked"]["backbone"] not in unfinished,
        )
        for record in records
        if "asked" in record.request
    ]
    digest = read_manifest_with_digest(task)[1]
    update_snapshot(task, lambda _: Snapshot(task.file.name, digest, decoded, {}, tuple(caches)))


def seal_anything(file: Path, text: str) -> None:
    """Write a text with a true digest, whatever it says."""
    rest = text.removeprefix("{").encode("utf-8", "surrogatepass")
    digest = sha256(rest).hexdigest()
    file.write_bytes(f'{{"sha256": "{digest}",\n'.encode() + rest)


def sealed_anew(manifest: bytes) -> bytes:
    """The content of a manifest with the digest that it ought to have now."""
    header, end, rows = manifest.partition(b"\r\n")
    columns = header.rpartition(b",")[0]
    seal = f",sha256={sha256(columns + end + rows).hexdigest()}".encode()
    return columns + seal + end + rows


def current_cache(task: Task, backbone: str | Backbone) -> CacheRecord | None:
    """The cache that a backbone of the task has in use."""
    name = backbone if isinstance(backbone, str) else backbone.cache
    in_use = read_snapshot(task).cache(asked_of(task, name))
    if in_use is None or in_use.folder is None:
        return None
    return CacheRecord.read(task.work / "cache" / in_use.folder)
