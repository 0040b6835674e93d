"""Where recipes lie, found without reading them or loading anything heavy."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import nearest

FOLDER = Path(__file__).parent / "recipes"
RECIPES: Mapping[str, Path] = MappingProxyType(
    {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
)
"""Name -> file of every recipe that comes with the project."""


def recipe_file(name: str) -> Path:
    """Return the file of the recipe of that name, or the .toml file of that path.

    Raises:
        InputError: no such recipe; the nearest name is given.
    """
    if name in RECIPES or name.endswith(".toml"):
        return RECIPES.get(name, Path(name))
    raise InputError(
        f"unknown recipe {name!r}{nearest(name, RECIPES)}: `archiveprobe list recipes` "
        "shows them; the path of a .toml file works too"
    )
