"""From a kind of scene to a finished picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from archiveprobe.task.demo import canyon, others, places, streets
from archiveprobe.task.demo.canvas import Canvas, draw_mood

Painter = Callable[[Canvas, float], None]

_PAINTERS: dict[str, Painter] = {
    "front": streets.front,
    "canyon": canyon.canyon,
    "wall": places.close_wall,
    "roofs": places.roofs,
    "ruins": places.ruins,
    "yard": places.yard,
    "market": places.market,
    "site": places.site,
    "room": others.room,
    "portrait": others.portrait,
    "poster": others.poster,
    "land": others.open_land,
    "far": lambda canvas, severity: streets.front(canvas, 0.0, far=severity),
}
# Per label: how often each kind of scene is drawn. Those that only one label has are the
# deceptive ones: heaps and bare frames that are no damage, damage that is small or far away.
KINDS: dict[str, dict[str, float]] = {
    "not_destruction": {
        "front": 24,
        "canyon": 20,
        "wall": 11,
        "roofs": 9,
        "yard": 8,
        "market": 6,
        "site": 8,
        "room": 4,
        "portrait": 4,
        "poster": 3,
        "land": 3,
    },
    "destruction": {
        "front": 30,
        "canyon": 24,
        "wall": 13,
        "roofs": 9,
        "ruins": 9,
        "room": 4,
        "portrait": 4,
        "far": 4,
        "market": 2,
    },
}
_SIZES = ((400, 300), (420, 280), (448, 320), (300, 400), (320, 448), (352, 352), (480, 320))


def draw_severity(rng: np.random.Generator) -> float:
    """Draw how hard a destroyed place is hit: mostly badly, sometimes hardly at all."""
    draw = rng.random()
    if draw < 0.58:
        return float(rng.uniform(0.75, 1.0))
    if draw < 0.86:
        return float(rng.uniform(0.45, 0.75))
    return float(rng.uniform(0.14, 0.35))


def paint(label: str, rng: np.random.Generator) -> Image.Image:
    """Draw one picture that shows what the label says."""
    chances = KINDS[label]
    weights = np.array(list(chances.values())) / sum(chances.values())
    kind = list(chances)[int(rng.choice(len(chances), p=weights))]
    size = _SIZES[int(rng.integers(len(_SIZES)))]
    canvas = Canvas(size, rng, draw_mood(rng))
    severity = draw_severity(rng) if label == "destruction" else 0.0
    _PAINTERS[kind](canvas, severity)
    return canvas.develop()
