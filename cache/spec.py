"""What a cache's numbers depend on: the fingerprint, its digest, and the file that holds both."""

import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base import files
from archiveprobe.base.errors import InputError

FILE = "fingerprint.json"
_DIGEST_CHARACTERS = 16
_SLUG_CHARACTERS = 120  # Room for the digest and for suffixes within a file system's 255 bytes.
_MOST_AXES = 16
_MOST_NUMBERS = 2**28  # In one row; half a gigabyte.


ABSENT = "(absent)"
"""Stands in `differences` for a field that one side does not have."""


def canonical(record: Mapping[str, Any]) -> bytes:
    """Return the one JSON form of `record`: keys sorted, no spaces, UTF-8.

    Raises ValueError for NaN, infinities and lone surrogates, TypeError for what is not JSON.
    """
    text = json.dumps(
        record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def fingerprint_digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical form, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(record)).hexdigest()


def slug(backbone: str) -> str:
    """Return `backbone` as part of a file name: not empty, not hidden, without separators."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", backbone)[:_SLUG_CHARACTERS]
    return re.sub(r"^(\.|$)", "-", safe)


def folder_name(backbone: str, record: Mapping[str, Any]) -> str:
    """Return the folder of the cache: "<slug>-<first 16 hexadecimal digits of the digest>"."""
    return f"{slug(backbone)}-{fingerprint_digest(record)[:_DIGEST_CHARACTERS]}"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """List the leaves in which two nested records differ: (dotted path, old, new), sorted.

    A field that one side lacks is `ABSENT` there. Lists are leaves; tuples equal lists.
    """
    return list(_differences("", json.loads(_text(old)), json.loads(_text(new))))


def list_changes(changed: Iterable[tuple[str, Any, Any]]) -> str:
    """Write some of what `differences` gave, for messages: "views was 1, is 6; ..."."""
    return "; ".join(f"{field} was {old!r}, is {new!r}" for field, old, new in changed)


def _differences(prefix: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Any]:
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(f"{prefix}{key}.", before, after)
        elif before is ABSENT or after is ABSENT or _text(before) != _text(after):
            yield f"{prefix}{key}", before, after


def _text(value: Any) -> str:
    """Write JSON that any string fits into, also one with bytes of a name that is not UTF-8.

    Raises ValueError for what could not be compared later, such as 1e999.
    """
    return json.dumps(value, sort_keys=True, allow_nan=False)


class DamagedRecordError(InputError):
    """A fingerprint.json whose content does not prove itself."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} is damaged ({reason}): run `archiveprobe embed TASK`, which writes it again; "
            f"where that does not help, move the folder {path.parent} away first"
        )
        self.reason = reason


@dataclass(frozen=True)
class CacheRecord:
    """The content of one fingerprint.json.

    `row_shape` is (views, *shape) of one row, None until the first row was written. Only the
    fingerprint is under the digest; the request and the row shape stand beside it, and all three
    under a CRC.
    """

    folder: Path
    fingerprint: Mapping[str, Any]
    request: Mapping[str, Any]
    row_shape: tuple[int, ...] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the fingerprint, 64 hexadecimal digits."""
        return fingerprint_digest(self.fingerprint)

    @classmethod
    def read(cls, folder: Path) -> "CacheRecord":
        """Read and check `<folder>/fingerprint.json`.

        Raises InputError: it cannot be read, or is damaged (DamagedRecordError).
        """
        path = folder / FILE
        with files.explained(f"read {path}"):
            data = path.read_bytes()
        try:
            return cls._from_content(folder, json.loads(data))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = str(error) if type(error) is ValueError else "it is not in the cache's form"
            raise DamagedRecordError(path, reason) from error

    @classmethod
    def _from_content(cls, folder: Path, content: Any) -> "CacheRecord":
        fingerprint, request = content["fingerprint"], content["request"]
        if not isinstance(fingerprint, dict) or not isinstance(request, dict):
            raise TypeError("fingerprint and request are objects")
        if content["sha256"] != fingerprint_digest(fingerprint):
            raise ValueError("its SHA-256 does not match the fingerprint")
        shape = content.get("row_shape")
        crc32 = _crc32(fingerprint, request, shape)
        if content.get("crc32", crc32) != crc32:
            raise ValueError("its CRC does not match the request and the row shape")
        row_shape = None if shape is None else checked_row_shape(shape)
        return cls(folder, fingerprint, request, row_shape)

    def write(self) -> None:
        """Put the record on disk, atomically and durably. Raises InputError; needs the lock."""
        content = {
            "fingerprint": self.fingerprint,
            "sha256": self.digest,
            "request": self.request,
            "row_shape": self.row_shape,
            "crc32": _crc32(self.fingerprint, self.request, self.row_shape),
        }
        text = json.dumps(content, sort_keys=True, indent=2, allow_nan=False)
        with files.explained(f"write {self.folder / FILE}"):
            files.write_whole(self.folder / FILE, f"{text}\n".encode())


def _crc32(*parts: Any) -> str:
    return f"{zlib.crc32(_text({'parts': parts}).encode()):08x}"


def checked_row_shape(value: Iterable[Any]) -> tuple[int, ...]:
    """Return `value` as a row shape (views, *shape), all positive. Raises ValueError."""
    shape = tuple(value)
    right = all(type(length) is int and length > 0 for length in shape)
    if not right or not 1 <= len(shape) <= _MOST_AXES or math.prod(shape) > _MOST_NUMBERS:
        raise ValueError(f"the row shape {shape!r} is not (views, ...)")
    return shape


def find_caches(root: Path, backbone: str) -> list[CacheRecord]:
    """Find the caches of `backbone` directly below `root`, by folder name.

    Foreign folders, and folders whose record is damaged or not their own, are passed over.
    """
    found = []
    for folder in sorted(root.glob(f"{slug(backbone)}-*")) if root.is_dir() else []:
        try:
            record = CacheRecord.read(folder)
        except InputError:
            continue
        if folder.name == folder_name(backbone, record.fingerprint):
            found.append(record)
    return found


def match_request(root: Path, backbone: str, request: Mapping[str, Any]) -> list[CacheRecord]:
    """Find the caches of `backbone` whose stored request is `request`, but for the precision.

    Needs no heavy library.
    """

    def is_like(stored: Mapping[str, Any]) -> bool:
        return all(path == "precision" for path, _, _ in differences(request, stored))

    return [record for record in find_caches(root, backbone) if is_like(record.request)]
