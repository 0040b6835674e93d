"""What --features and stored systems name: backbones, and what becomes of their views."""

import re
from dataclasses import dataclass

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import TUNED, nearest

VIEWS = {
    "mean": "views averaged before anything is fitted",
    "rows": "every view a training row; probabilities averaged over an image's views",
    "logits": "every view a training row; logits averaged over an image's views",
}


_LIBRARIES = ("timm", "open_clip", TUNED.removesuffix(":"))


@dataclass(frozen=True)
class Choice:
    """Backbones to put side by side, and what becomes of the views: mean, rows or logits."""

    backbones: tuple[str, ...]
    views: str = "mean"

    def __str__(self) -> str:
        return f"{'+'.join(self.backbones)}:{self.views}"


def parse_choice(text: str) -> Choice:
    """Read "a+b:rows"; without a colon the views are averaged.

    Raises:
        InputError: no such way with views; the message names the nearest.
    """
    head, _, tail = text.rpartition(":")
    names, views = (head, tail) if head and tail in VIEWS else (text, "mean")
    # "+" is also part of the name of a system with settings of its own: tuned:ours+ema.decay=0.9.
    backbones = re.split(r"\+(?![^+=]*=)", names)
    if not names or "" in backbones or TUNED in backbones:
        raise InputError(f"features {text!r} name no backbone: write clip-vit-b32+hog:mean")
    last = names.rpartition(":")[2]
    if any(":" in name and name.partition(":")[0] not in _LIBRARIES for name in backbones):
        known = ", ".join(VIEWS)
        raise InputError(f"unknown views {last!r}{nearest(last, VIEWS)} in {text!r}: use {known}")
    return Choice(tuple(backbones), views)
