"""What a folder of answers is about: answers.json, sealed, written before the first part."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import explained
from archiveprobe.base.sealed import read_sealed, write_sealed
from archiveprobe.predict.answers.layout import RECORD

_FORMAT = 1
_REMEDY = "name another folder with -o"
# What has to be equal for a run to go on, and what a person calls it.
_SAME = {
    "task": "task",
    "system": "system",
    "system_digest": "state of the system, which has changed since",
    "source": "source of images",
}


@dataclass(frozen=True)
class Counts:
    """Counts the images of every status, and the readable ones of every label."""

    status: Mapping[str, int]
    labels: Mapping[str, int]


@dataclass(frozen=True)
class AnswersRecord:
    """Says whose answers lie in a folder, about which images.

    `system_digest` is of all that the system computes with, `snapshot` of the state it was trained
    on, `backbones` the digests of their fingerprints by name, `source` the identity of the source,
    `index` the digest of the list of its images, cut into units of `unit_images`. `counts` are
    there when all is answered.
    """

    task: str
    system: str
    system_digest: str
    snapshot: str
    classes: tuple[str, ...]
    positive: int
    backbones: Mapping[str, str]
    source: Mapping[str, Any]
    index: str
    images: int
    unit_images: int
    listed: str
    versions: Mapping[str, str]
    counts: Counts | None = field(default=None, compare=False)

    @property
    def short(self) -> str:
        """Return the digest of the system as it stands in every part."""
        return self.system_digest[:16]

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the record of a folder; None where it has none.

        Raises:
            InputError: it is damaged, or of another version.
        """
        file = folder / RECORD
        stored = read_sealed(file, remedy=_REMEDY)
        if stored is None:
            return None
        names = {each.name for each in fields(cls)}
        if stored.pop("format", None) != _FORMAT or stored.keys() != names:
            raise InputError(f"{file} is of another version of archiveprobe: {_REMEDY}")
        counts = stored.pop("counts")
        stored["classes"] = tuple(stored["classes"])
        return cls(**stored, counts=counts and Counts(**counts))

    def write(self, folder: Path) -> None:
        """Write the record, durable on return. Raises InputError: the disk refuses."""
        with explained(f"write {folder / RECORD}"):
            write_sealed(folder / RECORD, {"format": _FORMAT, **asdict(self)})

    def check_same(self, folder: Path, **now: Any) -> None:
        """Check that a run with these values, by the names in `_SAME`, may go on with this record.

        Raises:
            InputError: what differs, and what to do.
        """
        for name, wanted in now.items():
            stored = getattr(self, name)
            if stored != wanted:
                raise InputError(
                    f"{folder} holds answers of another {_SAME[name]}: {_shown(stored, wanted)}, "
                    f"now {_shown(wanted, stored)}: {_REMEDY}, or delete that one"
                )


def _shown(value: Any, other: Any) -> str:
    """Write in few words how a value of a record differs from another one."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {value[key]}" for key in value if value[key] != other.get(key))
    return str(value)[:16] if len(str(value)) == 64 else str(value)
