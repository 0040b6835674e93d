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


def find_recipe(name: str) -> Path:
    """Find the file of the recipe of that name; the path of a .toml file is its own.

    Raises:
        InputError: no such recipe; the nearest name is given.
    """
    file = RECIPES.get(name)
    if file is None and not name.endswith(".toml"):
        raise InputError(
            f"unknown recipe {name!r}{nearest(name, RECIPES)}: `archiveprobe list recipes` "
            "shows them; the path of a .toml file works too"
        )
    return file or Path(name)
