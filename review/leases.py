"""Who looks at which images right now, so that two reviewers are not shown the same ones.

Nothing depends on it but comfort: a lease ends by itself, and what was lost is leased again.
"""

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from archiveprobe.base.files import explained, write_whole
from archiveprobe.base.reading import SETTINGS_BYTES, read_ordinary

FILE = "leases.json"
SECONDS = 600


class Leases:
    """The leases in the folder of a review; to be used under the lock of its log."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    def of_others(self, session: str) -> set[str]:
        """Return what other sessions look at."""
        return {look for look, (holder, _) in self._read().items() if holder != session}

    def take(self, session: str, looks: Iterable[str]) -> None:
        """Lease looks to a session, and give back those it had. Raises InputError."""
        until = time.time() + SECONDS
        kept = {image: each for image, each in self._read().items() if each[0] != session}
        kept |= dict.fromkeys(looks, (session, until))
        with explained(f"write {self._file}"):
            write_whole(self._file, json.dumps(kept).encode())

    def _read(self) -> dict[str, tuple[str, float]]:
        # Whatever stands there: at worst two reviewers see one image.
        with suppress(OSError, ValueError, TypeError, AttributeError):
            stored = json.loads(read_ordinary(self._file, SETTINGS_BYTES))
            now = time.time()
            return {
                str(look): (str(holder), float(until))
                for look, (holder, until) in stored.items()
                if now < until <= now + SECONDS
            }
        return {}
