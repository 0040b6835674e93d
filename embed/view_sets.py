"""The named sets of views; embed/views.py renders them, and this file loads nothing heavy."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import nearest

_MOST_DRAWS = 64


@dataclass(frozen=True)
class View:
    """One deterministic view of an image: a named crop or draw, mirrored or not."""

    crop: str
    mirror: bool = False

    @property
    def name(self) -> str:
        """Return the name as fingerprints keep it."""
        return f"{self.crop}-mirrored" if self.mirror else self.crop


@dataclass(frozen=True)
class ViewSet:
    """The views of a name, and a sentence about them for `list views`."""

    views: tuple[View, ...]
    description: str


_CROPS3 = tuple(View(f"crop-{place}") for place in ("first", "middle", "last"))
_DRAWS = "augmentK"
VIEW_SETS = {
    "center": ViewSet((View("center"),), "the preprocessing of the weights"),
    "squash": ViewSet((View("squash"),), "the whole image, both sides resized to the input"),
    "flip": ViewSet((View("center"), View("center", mirror=True)), "center and its mirror image"),
    "crops3": ViewSet(
        _CROPS3, "short side resized to the input; left or top, centre, right or bottom"
    ),
    "crops6": ViewSet(
        _CROPS3 + tuple(View(view.crop, mirror=True) for view in _CROPS3),
        "crops3 and their mirror images",
    ),
    # K is a number in the name that a task asks for.
    _DRAWS: ViewSet((), "K seeded draws of crop, flip, rotation and colour jitter"),
}
TEXT = (View("text"),)


def view_set(name: str) -> tuple[View, ...]:
    """Return the views of a named set.

    Raises:
        InputError: no such set; the message names the nearest.
    """
    if name in VIEW_SETS and name != _DRAWS:
        return VIEW_SETS[name].views
    draws = re.fullmatch(r"augment([1-9][0-9]?)", name)
    if draws and int(draws[1]) <= _MOST_DRAWS:
        return tuple(View(f"augment-{draw}") for draw in range(int(draws[1])))
    known = f"{', '.join(VIEW_SETS)} (K from 1 to {_MOST_DRAWS})"
    raise InputError(f"unknown views {name!r}{nearest(name, VIEW_SETS)}: use one of {known}")


def place_of_view(view: str, names: Sequence[str], backbone: str) -> int:
    """Return the place of a view among those of a backbone.

    Raises:
        InputError: it is none of them; the message names the nearest.
    """
    if view not in names:
        raise InputError(
            f"unknown view {view!r}{nearest(view, names)}: {backbone} has {', '.join(names)}, "
            "and their mean"
        )
    return names.index(view)
