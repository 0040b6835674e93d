"""A recipe: how a network is tuned. A file holds what differs from the defaults in settings.py."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from archiveprobe.base.errors import InputError
from archiveprobe.finetune.settings import (
    Augment,
    Ema,
    Interpolate,
    Loss,
    Model,
    Optimiser,
    Predict,
    Rows,
    Schedule,
    Section,
)
from archiveprobe.task.config import nearest

FOLDER = Path(__file__).parent / "recipes"
RECIPES: Mapping[str, Path] = MappingProxyType(
    {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
)
"""Name -> file of every recipe that comes with the project."""
FROM_CACHE = "@cache"
"""Ends the name of a system that was trained from cached tokens."""
_PARTS = ("Origin", "Launch", "Published", "Assumed")


class Recipe(Section):
    """All of it. `name` is the file's name without its ending, `seed` that of every draw."""

    name: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    model: Model
    loss: Loss = Loss()
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    ema: Ema = Ema()
    interpolate: Interpolate = Interpolate()
    rows: Rows = Rows()
    predict: Predict = Predict()

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.rows.merged and self.schedule.watch == "macro-f1":
            raise ValueError('rows.merged leaves no row for watch = "macro-f1": change one of them')
        if self.schedule.last_rate > self.optimiser.head_rate:
            raise ValueError("schedule.last_rate must not be above optimiser.head_rate")
        if self.interpolate.tuned and self.model.unfreeze == "none":
            raise ValueError("interpolate.tuned: a frozen backbone has nothing to interpolate")
        return self

    def differs(self) -> dict[str, Any]:
        """What differs from the defaults, nested as in a recipe file."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"name"})


@dataclass(frozen=True)
class Head:
    """What the comment at the top of a recipe file says."""

    origin: str
    launch: str
    published: str
    assumed: str


def load_recipe(name: str) -> Recipe:
    """The recipe of that name, or in the .toml file of that path.

    Raises:
        InputError: no such recipe, an unknown key, a wrong value; the nearest name is given.
    """
    file = _file(name)
    return _checked(file.stem, _parse(file), str(file))


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with other values, checked again: ``changed(r, {"schedule.epochs": 1})``.

    Raises:
        InputError: an unknown key or a wrong value.
    """
    content = recipe.model_dump()
    del content["name"]
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = content
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return _checked(recipe.name, content, f"recipe {recipe.name}")


def read_head(file: Path) -> Head:
    """The comment at the top of a recipe file; a part that is missing is empty.

    A part begins with its name and a colon and goes on until the next one.
    """
    parts: dict[str, list[str]] = {part: [] for part in _PARTS}
    current: list[str] = []
    for line in file.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("# ").rstrip()
        word, colon, rest = text.partition(":")
        if colon and word in parts:
            current, text = parts[word], rest.strip()
        current.append(text)
    origin, launch, published, assumed = (" ".join(parts[part]).strip() for part in _PARTS)
    return Head(origin, launch, published, assumed)


def _file(name: str) -> Path:
    if name in RECIPES:
        return RECIPES[name]
    if name.endswith(".toml"):
        return Path(name)
    raise InputError(
        f"unknown recipe {name!r}{nearest(name, RECIPES)}: `archiveprobe list recipes` shows them; "
        "the path of a .toml file works too"
    )


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read the recipe {file}: {error.strerror}: name another") from None
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text: save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not valid TOML: {error}: mend that line") from None


def _checked(name: str, content: dict[str, Any], where: str) -> Recipe:
    if "name" in content:
        raise InputError(f"unknown key 'name' in {where}: the file's name is the name; remove it")
    try:
        return Recipe(name=name, **content)
    except ValidationError as error:
        # A misspelt key is the reason of a missing one.
        faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        raise InputError(_explain(faults[0], where)) from None


def _explain(fault: Mapping[str, Any], where: str) -> str:
    place = [str(part) for part in fault["loc"]]
    key = ".".join(place)
    if fault["type"] == "extra_forbidden":
        hint = nearest(place[-1], _keys_beside(place))
        return f"unknown key {key!r} in {where}{hint}: correct or remove it"
    if fault["type"] == "missing":
        return f"missing key {key!r} in {where}: add it"
    if fault["type"] == "value_error":
        inside = f"{key}: " if key else ""
        return f"{inside}{fault['ctx']['error']} in {where}: correct it"
    wanted = fault["msg"].lower().replace("tuple", "list")
    shown = repr(fault["input"])[:60]
    return f"wrong value for {key!r} in {where}: {wanted}, not {shown}: correct it"


def _keys_beside(place: list[str]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in place[:-1]:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return []
        model = field.annotation
    return [key for key in model.model_fields if key != "name"]
