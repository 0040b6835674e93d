"""Every format that archiveprobe reads, with what runs on it and where a fuzzer begins."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import cache_targets
import seeds
import task_targets
from pydantic import BaseModel

from archiveprobe.task.config import Task
from archiveprobe.task.decoding import FLAGS, REJECTIONS

Run = Callable[[bytes, Path], None]


@dataclass(frozen=True)
class Target:
    """What runs on the bytes of a file of one format, valid files, and the words they consist of.

    `run` takes a folder of its own, empty at first, in which it may build what it uses again.
    """

    run: Run
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()


def _keys(annotation: Any) -> Iterator[str]:
    """The keys of a model and of those within it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield name
            yield from _keys(field.annotation)
    for part in get_args(annotation):
        yield from _keys(part)


_TOML = (
    *(key.encode() for key in dict.fromkeys(_keys(Task))),
    *b"[ ] [[ ]] { } = , . \"\"\" ''' # true false nan inf 1e400 0x -1 1979-05-27 \\u0000".split(),
    b"\\ud800",
    b"0x" + b"f" * 17,
)
_CSV = (b'"', b'""', b",", b"\r\n", b"\r", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b";")
_WORDS = (b"intact", b"NA", b"destroyed", b"train", b"validation", b"test", b"../", b"/", b" ")
_JSON = (
    *b'{ } [ ] : , " null true false NaN -Infinity 1e999 -1 0 \\ud800 \\u0000 \\n [[[[[[[['.split(),
    b"9" * 30,
)
_STATUSES = tuple(word.encode() for word in sorted({"ok", *FLAGS, *REJECTIONS}))
_HDF5 = (b"OHDR", b"OCHK", b"FAHD", b"FADB", b"FRHP", b"BTHD", b"\x89HDF\r\n\x1a\n", b"\xff" * 8)
_PICTURES = (
    *(b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n", b"IHDR", b"IDAT", b"IEND", b"eXIf"),
    *(b"PLTE", b"tRNS", b"GIF89a", b"RIFF", b"WEBP", b"VP8X", b"II*\0", b"MM\0*", b"ftypavif"),
)


def _cache_file(name: str) -> Callable[[], list[bytes]]:
    return lambda: [seeds.cache_files()[name]]


TARGETS: dict[str, Target] = {
    "task": Target(task_targets.task_file, lambda: [seeds.TASK, seeds.HOUSE.encode()], _TOML),
    "table": Target(task_targets.table, seeds.tables, (*_CSV, *_WORDS)),
    "corrections": Target(
        task_targets.corrections, lambda: [seeds.corrections(), seeds.decisions()], (*_CSV, *_WORDS)
    ),
    "starter": Target(task_targets.starter, seeds.tables, (*_CSV, *_WORDS)),
    "manifest": Target(
        task_targets.manifest, lambda: [seeds.products()["manifest.csv"]], (*_CSV, *_STATUSES)
    ),
    "snapshot": Target(task_targets.snapshot, lambda: [seeds.snapshot()], _JSON),
    "folds": Target(task_targets.folds, lambda: [seeds.products()["folds.csv"]], _CSV),
    "image": Target(task_targets.picture, seeds.pictures, _PICTURES),
    "commits": Target(cache_targets.commits, _cache_file("commits.jsonl"), _JSON),
    "failures": Target(cache_targets.failures, _cache_file("failures.jsonl"), _JSON),
    "fingerprint": Target(
        cache_targets.record,
        _cache_file("fingerprint.json"),
        (*_JSON, b"row_shape", b"request", b"views", b"precision", b"random_weights"),
    ),
    "shard": Target(
        cache_targets.shard,
        lambda: [seeds.cache_files()[path] for path in seeds.shards()[: seeds.LOGGED]],
        _HDF5,
    ),
    "lock": Target(cache_targets.holder, lambda: [b'{"pid": 7, "host": "h"}'], _JSON),
    "safetensors": Target(
        cache_targets.safetensors,
        lambda: seeds.weights(".safetensors"),
        (b"__metadata__", b"data_offsets", b"F32", b"BF16", b"F8_E4M3", b"shape", *_JSON),
    ),
    "torch": Target(
        cache_targets.torch_file,
        lambda: seeds.weights(".pt"),
        (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"data.pkl", b"\x80\x02", b"storage"),
    ),
}
