"""Progress through something that is counted, for whoever reports it; base/reporting.py does."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from archiveprobe.base.wording import duration

Notify = Callable[[str], None]
"""Takes a message for people, in one line."""


class Progress(Protocol):
    """Opens a count from 0 to `total`, 0 where it is not known; calling what it yields advances."""

    def __call__(self, what: str, total: int) -> AbstractContextManager[Callable[[], None]]:
        """Open the count."""
        ...


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[], None]]:  # noqa: ARG001
    """Progress for nobody."""
    yield lambda: None


@dataclass
class Count:
    """How much of `total` is done (0: not known), since `start` (seconds of any clock)."""

    what: str
    total: int
    start: float
    done: int = 0

    def line(self, now: float) -> str:
        """Say in one line what is done, how fast, and how long the rest will take."""
        if not self.total:
            return f"{self.what}: {self.done}, {self._rate(now)}, unknown time left"
        rest = self.total - self.done
        # Nothing is known of the time left before the first one is done.
        left = duration((now - self.start) / self.done * rest) if self.done else "unknown time"
        rate = self._rate(now)
        share = f"{self.done / self.total:.0%}"
        return f"{self.what}: {self.done} of {self.total} ({share}), {rate}, {left} left"

    def last_line(self, now: float) -> str:
        """Say in one line what was done in which time."""
        seconds = duration(now - self.start)
        done = f"{self.done} of {self.total}" if self.total else f"{self.done}"
        return f"{self.what}: {done} in {seconds}, {self._rate(now)}"

    def _rate(self, now: float) -> str:
        rate = self.done / max(now - self.start, 1e-9)
        if rate >= 100:
            return f"{rate:,.0f}/s"
        return f"{rate:.1f}/s" if rate >= 1 or not self.done else f"{rate * 60:.1f}/min"
