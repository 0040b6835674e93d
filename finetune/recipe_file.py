"""Recipe files: those that come with the project and one's own, read, changed and checked.

A recipe is one file in the folder recipes/, which holds what differs from the defaults.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import SETTINGS_BYTES, read_ordinary
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.recipe_names import find_recipe
from archiveprobe.finetune.recipe_text import settings_of, toml_value
from archiveprobe.task.config import Task
from archiveprobe.task.faults import explain

# Beyond that, with "@cache", it might not fit a system's name.
_LONGEST_NAME = 180
_PLAIN = re.compile(r"[^A-Za-z0-9._+=,-]+")
# A backbone at the top may be the misplaced one of a recipe.
_OF_TASKS = Task.model_fields.keys() - Recipe.model_fields.keys() - {"backbone"}
_HEADINGS = ("Origin", "Launch", "Published", "Assumed")
# What other programs call the keys of a recipe.
_SYNONYMS = MappingProxyType(
    {
        "base_lr": "lr",
        "batch": "batch_size",
        "bs": "batch_size",
        "clip_grad": "clip_grad_norm",
        "criterion": "loss",
        "early_stopping": "patience",
        "ema_decay": "decay",
        "focal_gamma": "gamma",
        "img_size": "size",
        "learning_rate": "lr",
        "max_grad_norm": "clip_grad_norm",
        "model_name": "backbone",
        "num_epochs": "epochs",
        "smoothing": "label_smoothing",
        "tta": "views",
        "warmup_epochs": "warmup",
        "wd": "weight_decay",
    }
)


@dataclass(frozen=True)
class Head:
    """What the comment at the top of a recipe file says."""

    origin: str
    launch: str
    published: str
    assumed: str


def load_recipe(name: str) -> Recipe:
    """Load the recipe of that name, or the .toml file of that path.

    Raises:
        InputError: no such recipe, an unknown key, a wrong value; the nearest name is given.
    """
    file = find_recipe(name)
    try:
        content = tomllib.loads(_read(file))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not valid TOML: {error}: correct that line") from None
    if "model" not in content and content.keys() & _OF_TASKS:
        raise InputError(
            f"{file} is a task file, no recipe: `archiveprobe list recipes` shows some"
        )
    return _checked(file.stem, content, str(file))


def changed(recipe: Recipe, changes: Mapping[str, Any], where: str = "") -> Recipe:
    """Return the recipe with other values, checked again: ``changed(r, {"schedule.epochs": 1})``.

    Raises:
        InputError: an unknown key or a wrong value; the message says that it came from `where`.
    """
    content = recipe.model_dump(exclude={"name"})
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = content
        for section in sections:
            if not isinstance(inner.get(section), dict):
                inner[section] = {}
            inner = inner[section]
        inner[last] = value
    return _checked(recipe.name, content, where or f"recipe {recipe.name}")


def override(recipe: Recipe, texts: Sequence[str]) -> tuple[Recipe, list[str]]:
    """Return the recipe with the settings `KEY=VALUE` of a command line, and these in one form.

    Values are TOML; text needs no quotes, and "none" takes back what need not be set. The settings
    are sorted and become part of the recipe's name, so that its system is another one.

    Raises:
        InputError: no `=`, a key twice, an unknown key, a wrong value, or a name that is too long.
    """
    if not texts:
        return recipe, []
    changes: dict[str, Any] = {}
    optional = {entry.key for entry in settings_of(recipe) if entry.default is None}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key or key in changes:
            fault = "is set twice" if key in changes else "is no KEY=VALUE"
            raise InputError(f"--set {text!r} {fault}: write `--set schedule.epochs=5`, each once")
        changes[key] = None if value == "none" and key in optional else _parse(value)
    done = changed(recipe, changes, "--set")
    values = {entry.key: entry.value for entry in settings_of(done)}
    forms = {
        key: "none" if values[key] is None else toml_value(values[key]) for key in sorted(changes)
    }
    parts = [
        f"{key}={_PLAIN.sub('-', form.replace(', ', ',')).strip('-')}"
        for key, form in forms.items()
    ]
    name = "+".join([recipe.name, *parts])
    if len(name) > _LONGEST_NAME:
        raise InputError(
            f"so many settings cannot be part of a system's name: write a recipe of your own with "
            f"`archiveprobe recipe show {recipe.name} --set ... > my.toml`, and train that one"
        )
    return done.model_copy(update={"name": name}), [f"{key}={form}" for key, form in forms.items()]


def _parse(text: str) -> Any:
    """Parse a TOML value; what is none is text."""
    try:
        content = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return content["value"] if len(content) == 1 else text


def head_text(file: Path) -> str:
    """Return the comment at the top of a recipe file as it stands there.

    Raises:
        InputError: the file cannot be read.
    """
    return "\n".join(takewhile(lambda line: line.startswith("#"), _read(file).splitlines()))


def read_head(file: Path) -> Head:
    """Read the comment at the top of a recipe file; a part that is missing is empty.

    A part begins with its name and a colon and goes on until the next one.
    """
    parts: dict[str, list[str]] = {heading: [] for heading in _HEADINGS}
    current: list[str] = []
    for line in head_text(file).splitlines():
        text = line.lstrip("# ").rstrip()
        word, colon, rest = text.partition(":")
        if colon and word in parts:
            current, text = parts[word], rest.strip()
        current.append(text)
    return Head(*(" ".join(parts[heading]).strip() for heading in _HEADINGS))


def _read(file: Path) -> str:
    try:
        return read_ordinary(file, SETTINGS_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text: save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the recipe {file}: {reason}: name another") from None


def _checked(name: str, content: dict[str, Any], where: str) -> Recipe:
    if "name" in content:
        raise InputError(f"unknown key 'name' in {where}: the file's name is the name; remove it")
    try:
        return Recipe(name=name, **content)
    except ValidationError as error:
        # A misspelt key is the reason of a missing one.
        faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        fault = explain(faults[0], where, Recipe, given="name", synonyms=_SYNONYMS)
        raise InputError(fault) from None
