"""Ids that a source gives twice: found among millions in eight bytes each, and made unique."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from archiveprobe.archive.references import Reference
from archiveprobe.base.wording import clipped, first_few, number_of

if TYPE_CHECKING:
    import numpy as np

_SHOWN = 3


class Repeats:
    """Watches references go by, then says which ids came more than once."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._again: frozenset[int] = frozenset()
        self._all: np.ndarray | None = None
        self._same: list[str] = []
        self._numbered: list[str] = []
        self._counts = Counter[str]()

    def watch(self, references: Iterable[Reference]) -> Iterator[Reference]:
        """Yield references as they are, keeping a hash of every id."""
        for reference in references:
            self._hashes.append(hash(reference.id))
            yield reference

    def found(self) -> bool:
        """Return whether an id may have come twice; call it when all have gone by."""
        import numpy as np

        ordered = np.sort(np.frombuffer(self._hashes, np.int64))
        self._all = ordered
        self._again = frozenset(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
        return bool(self._again)

    def resolve(self, references: Iterable[Reference]) -> Iterator[Reference]:
        """Yield the same references again, each image once and each id once.

        An image named twice is left out the second time; another one of a known id gets the id with
        `~2`, `~3` and so on behind it.
        """
        seen: dict[str, set[Reference]] = {}
        for reference in references:
            if hash(reference.id) not in self._again:
                yield reference
                continue
            others = seen.setdefault(reference.id, set())
            if reference in others:
                self._same.append(reference.id)
                continue
            others.add(reference)
            yield self._number(reference) if len(others) > 1 else reference

    def remarks(self) -> list[str]:
        """Say what `resolve` left out and numbered, with counts."""
        said = []
        if self._same:
            count = number_of(len(self._same), "image")
            said.append(f"{count} named again, answered once: {_list(self._same)}")
        if self._numbered:
            count = number_of(len(self._numbered), "image")
            said.append(f"{count} with the id of another, numbered: {_list(self._numbered)}")
        return said

    def _number(self, reference: Reference) -> Reference:
        name = reference.id
        while self._is_known(name):
            self._counts[reference.id] += 1
            name = f"{reference.id}~{self._counts[reference.id] + 1}"
        self._numbered.append(name)
        return replace(reference, id=name)

    def _is_known(self, name: str) -> bool:
        import numpy as np

        assert self._all is not None
        at = int(np.searchsorted(self._all, hash(name)))
        return at < len(self._all) and int(self._all[at]) == hash(name)


def _list(ids: list[str]) -> str:
    return first_few(map(clipped, ids), _SHOWN)
