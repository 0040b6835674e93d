"""Files in an object store, through fsspec: listed page by page, read whole or in part.

A store that fails for a moment (503, a timeout, an answer cut short) is asked again, with waits
that grow; one that goes on failing, or refuses, ends the run in one line, unless it still answers
for other files: then it is this one file that cannot be read.
"""

import contextlib
import io
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from archiveprobe.archive.references import UnreadableError
from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import IMAGE_BYTES
from archiveprobe.base.wording import clipped, one_line
from archiveprobe.task.find_images import printable

# Seconds between tries.
WAITS = (0.5, 2.0, 8.0, 30.0)
CONNECT_SECONDS = 10
READ_SECONDS = 60
# An answer that comes drop by drop never times out between two drops.
ANSWER_SECONDS = 300
# A tar is listed by reading through it, which small reads would make slow.
_BUFFER = 8 * 1024 * 1024
# A table may name files in a store, but not make this machine ask any address of the web.
STORES = frozenset("s3 s3a gs gcs az abfs abfss adl hf memory".split())
_BRING_BACK = "bring it back, and run the same command again (what is finished is kept)"
_WEB = frozenset(("http", "https"))
_REFUSALS = re.compile("Credential|Token|Unauthorized|ProfileNotFound|Forbidden")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
Result = TypeVar("Result")


class _ShortError(OSError):
    """An answer has another length than what was asked for."""


def protocol_of(text: str) -> str | None:
    """Return the scheme of a URL in small letters; None for a path on this machine."""
    match = _URL.match(text)
    return match[1].lower() if match else None


def check_url(url: str) -> None:
    """Refuse a URL of no store, or with a password in it, which every record would show.

    Raises:
        InputError: it is one of these, or the library for the store is not installed.
    """
    protocol = protocol_of(url)
    if protocol not in STORES | _WEB or "::" in url:
        known = ", ".join(f"{name}://" for name in sorted(STORES | _WEB - {"memory"}))
        raise InputError(f"{_shown(url)} is in no known store: name a path, or one of {known}")
    if protocol in _WEB and "@" in url.split("/")[2]:
        raise InputError("the address holds a password: leave it out, and use ~/.netrc")
    _filesystem(url)


def read_object(url: str, size: int | None = None) -> bytes:
    """Read a file whole; `size` is what its listing said, which spares a request.

    Raises:
        UnreadableError: it is gone, too large, or the store fails for it alone.
        InputError: the store fails or refuses.
    """
    known = size

    def action() -> bytes:
        nonlocal known
        length = size_of(url) if known is None else known
        if length > IMAGE_BYTES:
            raise UnreadableError.of_size(length)
        # One byte more would show that it has grown; beyond an empty file is no range.
        content = _range(url, 0, length + 1) if length else b""
        if len(content) != length:
            known = None
            raise _ShortError(f"{len(content)} bytes came of {length}")
        return content

    return _one_file(url, lambda: retried(url, action))


def read_range(url: str, offset: int, length: int) -> bytes:
    """Read a part of a file that many images lie in.

    Raises:
        UnreadableError: the store fails for this part alone.
        InputError: the file is gone, or the store fails or refuses.
    """
    try:
        return retried(url, lambda: _exactly(url, offset, length))
    except FileNotFoundError:
        raise InputError(f"{_shown(url)} is gone: {_BRING_BACK}") from None
    except _StoreError as error:
        _check_answers(url, error)
        raise UnreadableError("unreadable_file", error.reason) from None


def size_of(url: str) -> int:
    """Return the size of a file in bytes. Raises what the store's library raises."""
    filesystem = _filesystem(url)
    facts = filesystem.info(url, **_limit(filesystem))
    if facts["type"] == "directory":
        raise IsADirectoryError(url)
    if facts["size"] is None:
        raise OSError("the server does not say how large it is")
    return int(facts["size"])


def is_file(url: str) -> bool:
    """Return whether there is a file of exactly this name.

    Raises:
        InputError: the store fails or refuses.
    """
    try:
        return _whole_store(url, lambda: retried(url, lambda: size_of(url))) >= 0
    except (FileNotFoundError, IsADirectoryError):
        return False


def open_object(url: str) -> io.BufferedReader:
    """Open a file for reading at any place; what it reads is retried as all else.

    Raises:
        InputError: it is missing, or the store fails or refuses; also while it is read.
    """
    try:
        size = _whole_store(url, lambda: retried(url, lambda: size_of(url)))
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"no file {_shown(url)}: correct its name") from None
    return io.BufferedReader(_RangeFile(url, size), _BUFFER)


def list_objects(url: str) -> Iterator[tuple[str, int]]:
    """Yield name below `url` and size of every file, sorted.

    Of S3 a page of 1,000 is kept in memory at a time, of other stores the whole list.

    Raises:
        InputError: the store fails or refuses, or there is no such bucket.
    """
    filesystem, root = _filesystem(url), url.rstrip("/")
    pages = _s3_pages(filesystem, root) if hasattr(filesystem, "call_s3") else _found(root)
    try:
        yield from pages
    except FileNotFoundError:
        raise InputError(f"nothing at {_shown(url)}: correct its name") from None


def glob_objects(url: str) -> list[str]:
    """Return the URLs of the files that a pattern means, sorted.

    Raises:
        InputError: the store fails or refuses.
    """
    filesystem = _filesystem(url)
    paths = _whole_store(url, lambda: retried(url, lambda: filesystem.glob(url)))
    return sorted(filesystem.unstrip_protocol(path) for path in paths)


def retried(url: str, action: Callable[[], Result]) -> Result:
    """Do `action`, again after a wait where the store fails in it.

    What is missing or refused stays so, and is not tried again.
    """
    for wait in (*WAITS, None):
        try:
            return action()
        except (FileNotFoundError, IsADirectoryError, UnreadableError, InputError):
            raise
        except Exception as error:
            if wait is None or is_refusal(error):
                raise _StoreError(url, error) from error
            time.sleep(wait)
    raise AssertionError


def is_refusal(error: BaseException) -> bool:
    """Return whether a store says that this user may not, or does not say who he is."""
    refused = getattr(error, "status", None) in (401, 403)
    named = isinstance(error, PermissionError) or _REFUSALS.search(type(error).__name__)
    return refused or bool(named)


class _StoreError(Exception):
    """A store refuses, or failed at every try."""

    def __init__(self, url: str, cause: Exception) -> None:
        self.refused = is_refusal(cause)
        said = getattr(cause, "strerror", None) or str(cause)
        self.reason = one_line(said, 160) or type(cause).__name__
        super().__init__(url, self.reason)


def _whole_store(url: str, action: Callable[[], Result]) -> Result:
    """Do what the whole run depends on: a failing store ends it."""
    try:
        return action()
    except _StoreError as error:
        raise _unusable(url, error) from error


def _one_file(url: str, action: Callable[[], bytes]) -> bytes:
    """Read one file of many: where the store answers for others, only this one is unreadable."""
    try:
        return action()
    except FileNotFoundError:
        _check_answers(url, None)
        raise UnreadableError("missing_file") from None
    except IsADirectoryError:
        raise UnreadableError("not_a_file", "it is a folder") from None
    except _StoreError as error:
        _check_answers(url, error)
        raise UnreadableError("unreadable_file", error.reason) from None


def _check_answers(url: str, fault: _StoreError | None) -> None:
    """Refuse to go on where the folder of a file cannot be listed either."""

    def ask() -> object:
        return next(_listing_once(url.rpartition("/")[0]), None)

    try:
        # After a fault every try has failed; where a file is gone, this is the first question.
        _ = ask() if fault else retried(url, ask)
    except _StoreError as error:
        raise _unusable(url, error) from error
    except Exception as error:
        raise _unusable(url, fault or _StoreError(url, error)) from error


def _unusable(url: str, error: _StoreError) -> InputError:
    if error.refused:
        remedy = (
            "give this machine credentials that may read it, for S3 AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or FSSPEC_S3_ANON=true for a public "
            "bucket, and run the same command again"
        )
        return InputError(f"the store refuses {_shown(url)} ({error.reason}): {remedy}")
    return InputError(
        f"the store fails at {_shown(url)} ({error.reason}; {len(WAITS) + 1} tries): run the same "
        "command again when it works (what is finished is kept)"
    )


def _listing_once(folder: str) -> Iterator[Any]:
    filesystem = _filesystem(folder)
    if hasattr(filesystem, "call_s3"):
        bucket, key, _ = filesystem.split_path(folder)
        yield filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
        return
    with contextlib.suppress(FileNotFoundError):
        yield from filesystem.ls(folder, detail=False)


def _s3_pages(filesystem: Any, root: str) -> Iterator[tuple[str, int]]:
    bucket, key, _ = filesystem.split_path(root)
    begin = f"{key}/" if key else ""
    page: dict[str, Any] = {"IsTruncated": True}
    while page.get("IsTruncated"):
        where = {"Bucket": bucket, "Prefix": begin}
        if "NextContinuationToken" in page:
            where["ContinuationToken"] = page["NextContinuationToken"]
        page = _ask(root, filesystem, where)
        for entry in page.get("Contents", ()):
            if not entry["Key"].endswith("/"):
                yield entry["Key"][len(begin) :], int(entry["Size"])


def _ask(root: str, filesystem: Any, where: dict[str, str]) -> dict[str, Any]:
    def action() -> dict[str, Any]:
        page: dict[str, Any] = filesystem.call_s3("list_objects_v2", **where, **_limit(filesystem))
        return page

    return _whole_store(root, lambda: retried(root, action))


def _found(root: str) -> Iterator[tuple[str, int]]:
    filesystem = _filesystem(root)
    begin = filesystem._strip_protocol(root).rstrip("/") + "/"
    found = _whole_store(root, lambda: retried(root, lambda: filesystem.find(root, detail=True)))
    for path, facts in sorted(found.items()):
        if path.startswith(begin):
            yield path[len(begin) :], int(facts["size"] or 0)


def _exactly(url: str, offset: int, length: int) -> bytes:
    content = _range(url, offset, offset + length) if length else b""
    if len(content) != length:
        raise _ShortError(f"{len(content)} bytes came of {length}")
    return content


def _range(url: str, start: int, end: int) -> bytes:
    filesystem = _filesystem(url)
    return bytes(filesystem.cat_file(url, start=start, end=end, **_limit(filesystem)))


def _limit(filesystem: Any) -> dict[str, Any]:
    return {"timeout": ANSWER_SECONDS} if filesystem.async_impl else {}


def _filesystem(url: str) -> Any:
    """Return fsspec's filesystem for a URL; fsspec keeps one for each process and setting."""
    import fsspec

    protocol = protocol_of(url) or ""
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in ("s3", "s3a"):
        own = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        # botocore and s3fs would try again as well, which multiplies.
        once = {"retries": {"total_max_attempts": 1}}
        times = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        options["config_kwargs"] = {**times, **own, **once}
    try:
        filesystem = fsspec.filesystem(protocol, **options)
    except ImportError:
        raise InputError(
            f"{protocol}:// needs a library for that store: for s3 run "
            "`pip install 'archiveprobe[storage]'`, else install what fsspec names for it"
        ) from None
    if protocol in ("s3", "s3a"):
        filesystem.retries = 1
    return filesystem


def _part(url: str, offset: int, length: int) -> bytes:
    try:
        return _whole_store(url, lambda: retried(url, lambda: _exactly(url, offset, length)))
    except FileNotFoundError:
        raise InputError(f"{_shown(url)} is gone: {_BRING_BACK}") from None


class _RangeFile(io.RawIOBase):
    """A file in a store, read by ranges."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._at = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = (0, self._at, self._size)[whence]
        self._at = max(0, begin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        content = _part(self._url, self._at, length)
        buffer[:length] = content
        self._at += length
        return length


def _shown(url: str) -> str:
    return clipped(printable(url), 120)
