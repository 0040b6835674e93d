"""What the sections of a recipe are made of: ranges of numbers, and names of a table."""

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from archiveprobe.task.config import nearest

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[Finite, Field(ge=0, le=1)]
Positive = Annotated[Finite, Field(gt=0)]
NotNegative = Annotated[Finite, Field(ge=0)]
# What AdamW makes of it must be a float of 32 bits.
LearningRate = Annotated[Finite, Field(gt=0, le=1e37)]
Weight = Annotated[Finite, Field(ge=0, le=1000)]
Probability = Annotated[Finite, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=65536)]


class Section(BaseModel):
    """A part of a recipe: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def entry_of(what: str, table: Collection[str]) -> tuple[Any, ...]:
    """Accept the names in a table, and name the nearest of them otherwise."""

    def check(name: str) -> str:
        if name not in table:
            known = ", ".join(table)
            raise ValueError(f"no {what} {name!r}{nearest(name, table)}: use one of {known}")
        return name

    return AfterValidator(check), Field(json_schema_extra={"enum": list(table)})
