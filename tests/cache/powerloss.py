"""A disk that notes what it was told, and the states it may be found in once the power has gone.

`RecordingOs` stands in for `os` in the modules that write: it carries every call out and notes it.
`states` plays the first calls of such a record again and draws what may be left of them, given
that only fsync makes anything last: bytes of a file by fsync of the file, names in a folder by
fsync of the folder.
"""

import fcntl
import os
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Tree = dict[Path, bytes | None]
"""What lies below a folder, by relative path: the bytes of a file, None for a folder."""


class Write(NamedTuple):
    file: int
    offset: int
    data: bytes


class Truncate(NamedTuple):
    file: int
    size: int


class SyncFile(NamedTuple):
    file: int


class SyncFolder(NamedTuple):
    folder: Path


class Name(NamedTuple):
    """A name appears (file: its number, or FOLDER) or goes (GONE)."""

    path: Path
    file: int


class Rename(NamedTuple):
    old: Path
    new: Path
    file: int


class Move(NamedTuple):
    """A folder gets another name in the same folder, all at once."""

    path: Path
    new: Path


FOLDER, GONE = -1, -2
Operation = Write | Truncate | SyncFile | SyncFolder | Name | Rename | Move


class Dead(BaseException):
    """The process is gone: nothing runs after this."""


def tree_of(root: Path) -> Tree:
    return {
        path.relative_to(root): None if path.is_dir() else path.read_bytes()
        for path in sorted(root.rglob("*"))
    }


def lay(tree: Tree, root: Path) -> None:
    """Put `tree` into the new folder `root`."""
    root.mkdir()
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)


class RecordingOs:
    """Stands in for `os`; what lies below `root` at first counts as durable.

    `forget` names calls of fsync that are lost on the way ("file", "folder"): a sabotage that a
    check has to notice. `dies_at` ends the process at that many operations, until `revive`.
    """

    def __init__(self, root: Path, *, forget: Iterable[str] = (), dies_at: int = -1) -> None:
        self.root, self.forget, self.dies_at = root, set(forget), dies_at
        self.start = tree_of(root)
        self.operations: list[Operation] = []
        self.promises: list[tuple[int, frozenset[Any]]] = []
        files = [path for path, data in self.start.items() if data is not None]
        self.numbers = {path: number for number, path in enumerate(files)}
        self._names = {root / path: number for path, number in self.numbers.items()}
        self._count = len(files)
        self._open: dict[int, tuple[Path, int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def promise(self, things: Iterable[Any]) -> None:
        """From here on the caller has been told that `things` are on disk."""
        self.promises.append((len(self.operations), frozenset(things)))

    def promised(self, operations: int) -> set[Any]:
        """What was promised by the time that many operations were done."""
        return set().union(*(things for at, things in self.promises if at <= operations))

    def revive(self) -> None:
        """What the kernel does for a process that is gone, and the start of the next one."""
        self.dies_at = -1
        for descriptor in list(self._open):
            self.close(descriptor)

    def _note(self, *operations: Operation) -> None:
        self.operations += operations

    def _live(self) -> None:
        if 0 <= self.dies_at <= len(self.operations):
            raise Dead

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        self._live()
        path = Path(path)
        descriptor = os.open(path, flags, mode)
        if not path.is_dir() and path not in self._names:
            self._names[path] = self._count
            self._count += 1
            self._note(Name(path, self._names[path]))
        self._open[descriptor] = (path, self._names.get(path, FOLDER))
        return descriptor

    def close(self, descriptor: int) -> None:
        del self._open[descriptor]
        os.close(descriptor)

    def write(self, descriptor: int, data: Any) -> int:
        self._live()
        append = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
        offset = os.lseek(descriptor, 0, os.SEEK_END if append else os.SEEK_CUR)
        written = os.write(descriptor, data)
        self._note(Write(self._open[descriptor][1], offset, bytes(data[:written])))
        return written

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        self._live()
        written = os.pwrite(descriptor, data, offset)
        self._note(Write(self._open[descriptor][1], offset, data[:written]))
        return written

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._live()
        os.ftruncate(descriptor, size)
        self._note(Truncate(self._open[descriptor][1], size))

    def fsync(self, descriptor: int) -> None:
        self._live()
        path, number = self._open[descriptor]
        if ("folder" if number == FOLDER else "file") not in self.forget:
            self._note(SyncFolder(path) if number == FOLDER else SyncFile(number))

    def replace(self, old: Path, new: Path) -> None:
        self._live()
        old, new = Path(old), Path(new)
        if old.is_dir():
            os.replace(old, new)  # noqa: PTH105
            self._names = {_moved(path, old, new): file for path, file in self._names.items()}
            self._note(Move(old, new))
            return
        os.replace(old, new)  # noqa: PTH105
        self._names[new] = self._names.pop(old)
        self._note(Rename(old, new, self._names[new]))

    def link(self, old: Path, new: Path) -> None:
        self._live()
        os.link(old, new)
        self._names[Path(new)] = self._names[Path(old)]
        self._note(Name(Path(new), self._names[Path(new)]))

    def unlink(self, path: Path) -> None:
        self._live()
        os.unlink(path)  # noqa: PTH108
        del self._names[Path(path)]
        self._note(Name(Path(path), GONE))

    def mkdir(self, path: Path) -> None:
        self._live()
        os.mkdir(path)  # noqa: PTH102
        self._note(Name(Path(path), FOLDER))

    def rmdir(self, path: Path) -> None:
        self._live()
        os.rmdir(path)  # noqa: PTH106
        self._note(Name(Path(path), GONE))


class _Disk:
    """What is durable after some operations, and what still waits for its fsync, in order."""

    def __init__(self, record: RecordingOs, operations: Iterable[Operation]) -> None:
        start = record.start.items()
        self.root = record.root
        self.names = {
            record.root / path: FOLDER if data is None else record.numbers[path]
            for path, data in start
        }
        self.data = {record.numbers[path]: data for path, data in start if data is not None}
        self.unsynced: dict[int, list[Write | Truncate]] = defaultdict(list)
        self.unnamed: list[Name | Rename | Move] = []
        for operation in operations:
            self._play(operation)

    def _play(self, operation: Operation) -> None:
        match operation:
            case Write(file) | Truncate(file):
                self.unsynced[file].append(operation)
            case SyncFile(file):
                self.data[file] = _changed(self.data.get(file, b""), self.unsynced.pop(file, []))
            case Name() | Rename() | Move():
                self.unnamed.append(operation)
            case SyncFolder(folder):
                self.unnamed = [rest for one in self.unnamed for rest in self._sync(one, folder)]

    def _sync(self, change: Name | Rename | Move, folder: Path) -> Iterator[Name | Rename | Move]:
        """Make the half of `change` that concerns `folder` durable, and give the rest."""
        if isinstance(change, Move):
            if change.new.parent == folder:
                _name(self.names, change)
            else:
                yield change
            return
        halves = _halves(change)
        here = [half for half in halves if half.path.parent == folder]
        for half in here:
            _name(self.names, half)
        yield from [half for half in halves if half not in here] if here else [change]


def _moved(path: Path, old: Path, new: Path) -> Path:
    return new / path.relative_to(old) if path.is_relative_to(old) else path


def _halves(change: Name | Rename | Move) -> list[Any]:
    if not isinstance(change, Rename):
        return [change]
    return [Name(change.new, change.file), Name(change.old, GONE)]


def _name(names: dict[Path, int], change: Name | Move) -> None:
    if isinstance(change, Move):
        if change.path in names and change.new not in names:
            moved = {_moved(path, *change): file for path, file in names.items()}
            names.clear()
            names.update(moved)
    elif change.file == GONE:
        names.pop(change.path, None)
    else:
        names[change.path] = change.file


def _changed(data: bytes, changes: Iterable[Write | Truncate]) -> bytes:
    for change in changes:
        if isinstance(change, Truncate):
            data = data[: change.size].ljust(change.size, b"\0")
        else:
            end = change.offset + len(change.data)
            data = data.ljust(end, b"\0")
            data = data[: change.offset] + change.data + data[end:]
    return data


def _filled(change: Write | Truncate, chance: random.Random | None) -> Write | Truncate:
    """`change` with other bytes: zeros, or garbage drawn by `chance`."""
    if isinstance(change, Truncate):
        return change
    size = len(change.data)
    return change._replace(data=chance.randbytes(size) if chance else bytes(size))


def _some_bytes(data: bytes, changes: list[Any], way: str, chance: random.Random) -> bytes:
    if way == "any":
        way = chance.choice(["none", "all", "prefix", "zeros", "garbage", "some"])
    if way == "prefix":
        *whole, last = changes[: chance.randint(1, len(changes))]
        if isinstance(last, Write):
            last = last._replace(data=last.data[: chance.randint(0, len(last.data))])
        changes = [*whole, last]
    elif way == "some":
        changes = [change for change in changes if chance.random() < 0.5]
    elif way in ("zeros", "garbage"):
        changes = [_filled(change, chance if way == "garbage" else None) for change in changes]
    return data if way == "none" else _changed(data, changes)


def _some_names(changes: list[Any], way: str, chance: random.Random) -> Iterator[Any]:
    if way == "any":
        way = chance.choice(["none", "all", "prefix", "some"])
    if way == "prefix":
        changes = changes[: chance.randint(0, len(changes))]
    for change in [] if way == "none" else changes:
        for half in _halves(change):
            if way != "some" or chance.random() < 0.5:
                yield half
            elif isinstance(change, Rename) and change.old.parent == change.new.parent:
                # Both names may last; no file system loses both in one folder.
                break


_WAYS = [("none", "none"), ("all", "none"), ("none", "all"), ("all", "zeros"), ("all", "garbage")]


def states(
    record: RecordingOs, operations: int, draws: int, chance: random.Random
) -> Iterator[Tree]:
    """What may be left when the power goes after that many operations: the extremes of (names,
    bytes), then `draws` at random."""
    disk = _Disk(record, record.operations[:operations])
    for names_way, bytes_way in _WAYS + [("any", "any")] * draws:
        names = dict(disk.names)
        for change in _some_names(disk.unnamed, names_way, chance):
            _name(names, change)
        tree: Tree = {}
        for path, file in sorted(names.items()):
            if path.parent != record.root and path.parent.relative_to(record.root) not in tree:
                continue
            data, waiting = disk.data.get(file, b""), disk.unsynced.get(file)
            if waiting:
                data = _some_bytes(data, waiting, bytes_way, chance)
            tree[path.relative_to(record.root)] = None if file == FOLDER else data
        yield tree
