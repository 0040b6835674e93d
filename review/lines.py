"""What a line of a review's log may say: a table of types, one for every kind of line.

Digests are no secret: anybody can write a line whose digests are right. So what a line says is
checked where it is read, and nothing behind that meets a missing or a strange field. A line may
hold more than is named here.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from archiveprobe.base.wording import clipped
from archiveprobe.evaluate.system_names import SYSTEM_NAME

_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Line(BaseModel):
    """What every line says; `batch` [at, of] is there where several were added together."""

    model_config = ConfigDict(strict=True)

    previous: _Digest
    time: Annotated[str, Field(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
    batch: Annotated[list[_Count], Field(min_length=2, max_length=2)] = [1, 1]


class _Opened(_Line):
    task: str
    system: Annotated[str, Field(pattern=f"^{SYSTEM_NAME.pattern}$")]
    system_digest: str | None
    source: str | None
    source_digest: str
    snapshot: str
    population: _Digest
    images: _Count
    outside: _Count
    classes: Annotated[list[str], Field(min_length=1)]
    positive: str
    threshold: _Number | None
    similarity: _Number | None
    twice: _Share
    seed: str


class _Withdrawal(_Line):
    image: _Digest
    answer: str
    reviewer: str
    part: Literal["queue", "twice", "settle", "draw"]
    score: _Number | None = None
    group: str = ""
    position: int | None = None
    shown: Literal["blurred", "unblurred", "group", "file"] = "blurred"
    id: str = ""


class _Decision(_Withdrawal):
    answer: Annotated[str, Field(min_length=1)]


class _Shown(_Line):
    reviewer: str
    image: _Digest


class _Refit(_Line):
    looks: _Count


class _Import(_Line):
    file: str
    decisions: _Count


class _Stop(_Line):
    reviewer: str
    reviewed: _Count
    found: _Count
    unseen: _Count


class _Resume(_Line):
    reviewer: str


class _Wish(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    size: Annotated[int, Field(ge=1)]
    strata: bool = False
    looks: Annotated[int, Field(ge=1)] = 1
    any_time: bool = False
    recall: _Share = 0.95
    confidence: _Share = 0.95
    expect_recall: _Share = 0.98


class _Stratum(BaseModel):
    model_config = ConfigDict(strict=True)

    size: _Count
    drawn: _Count
    lowest_score: _Number | None


class _Drawn(_Line):
    seed: str
    wish: _Wish
    expected_share: _Share | None
    strata: Annotated[list[_Stratum], Field(min_length=1, max_length=2)]
    images: Annotated[list[_Digest], Field(min_length=1)]


class _Mended(_Line):
    bytes: _Count


KINDS: dict[str, type[_Line]] = {
    "opened": _Opened,
    "decision": _Decision,
    "withdrawal": _Withdrawal,
    "unblurred": _Shown,
    "refit": _Refit,
    "import": _Import,
    "stop": _Stop,
    "draw": _Drawn,
    "resume": _Resume,
    # Nobody reads what these say.
    "certificate": _Line,
    "estimate": _Line,
    "mended": _Mended,
}


def fault_of(record: Mapping[str, Any]) -> str | None:
    """Say what in a line is nothing that archiveprobe writes; None where all is as it should be."""
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        return f"its kind is {clipped(repr(kind))}"
    try:
        KINDS[kind].model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{clipped('.'.join(map(str, first['loc'])))}: {first['msg']}"
    return None
