"""A street seen from across it: a row of houses, sky, skyline, pavement and passers-by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archiveprobe.task.demo.building import Wall, draw_style, upright
from archiveprobe.task.demo.canvas import Canvas, Colour, mix, shade
from archiveprobe.task.demo.damage import WHOLE, Harm, draw_building, draw_harm, pancake
from archiveprobe.task.demo.heaps import clouds, debris, goods, rubble, smoke
from archiveprobe.task.demo.props import laundry, person, poles, stall, tree
from archiveprobe.task.demo.vehicles import car


def sky(canvas: Canvas, horizon: float) -> None:
    """Paint sky and ground, with clouds, a sun or a moon."""
    rng, mood = canvas.rng, canvas.mood
    for y in range(0, int(horizon) + 4, 4):
        colour = mix(mood.sky_top, mood.sky_low, (y / max(1.0, horizon)) ** 1.2)
        canvas.pen.rectangle((0, y, canvas.width, y + 4), fill=canvas.ink(colour))
    if rng.random() < 0.3:
        disc: Colour = (232, 232, 220) if mood.night else (255, 240, 200)
        size = canvas.unit * rng.uniform(2, 4)
        canvas.oval(
            (rng.uniform(0, canvas.width), horizon * rng.uniform(0.1, 0.7)), size, size, disc
        )
    if rng.random() < 0.65:
        clouds(canvas, horizon / canvas.height, rng.uniform(0.2, 1.0))
    if horizon < canvas.height:
        ground = (0, horizon, canvas.width, canvas.height)
        canvas.pen.rectangle(ground, fill=canvas.ink(mood.soil))


def skyline(canvas: Canvas, horizon: float, severity: float = 0.0) -> None:
    """Draw far houses in the haze; with `severity` some of them broken."""
    rng = canvas.rng
    x = -rng.uniform(0, 10) * canvas.unit
    while x < canvas.width:
        wide, high = rng.uniform(6, 18) * canvas.unit, rng.uniform(6, 26) * canvas.unit
        wall = upright(x, x + wide, horizon - high, horizon, rng.uniform(0.7, 1.0))
        style = draw_style(rng, storeys=max(2, int(high / canvas.unit / 4)), bays=3)
        broken = rng.random() < severity
        draw_building(canvas, wall, style, draw_harm(rng, style, 0.9) if broken else WHOLE)
        if broken:
            rubble(canvas, x - wide * 0.2, x + wide * 1.2, horizon, high * 0.3, 0.7)
        x += wide * rng.uniform(0.8, 1.5)


def haze_and_smoke(canvas: Canvas, base: float, severity: float) -> None:
    """Add smoke: likelier over ruins, but kitchens, dust and fires of rubbish smoke too."""
    rng = canvas.rng
    chance = 0.1 if severity == 0 else 0.16 + 0.2 * severity
    if rng.random() < chance:
        dark = bool(rng.random() < 0.5)
        smoke(canvas, rng.uniform(0.1, 0.9), base / canvas.height, rng.uniform(0.25, 0.6), dark)


@dataclass(frozen=True)
class Fate:
    """What becomes of one house: how hard it is hit, 0 for not at all."""

    severity: float

    @classmethod
    def draw(cls, rng: np.random.Generator, severity: float, struck: bool) -> Fate:
        """Draw the fate of a house in a street hit so hard; a `struck` one is never spared."""
        if severity == 0 or not (struck or rng.random() < severity):
            return cls(0.0)
        return cls(float(np.clip(severity * rng.uniform(0.7, 1.3), 0.12, 1.0)))


def house(canvas: Canvas, wall: Wall, fate: Fate, storeys: int, bays: int) -> None:
    """Draw a house and what became of it."""
    rng = canvas.rng
    style = draw_style(rng, storeys=storeys, bays=bays)
    if fate.severity > 0.6 and rng.random() < 0.28:
        pancake(canvas, wall, style)
        return
    harm = draw_harm(rng, style, fate.severity) if fate.severity else WHOLE
    draw_building(canvas, _tilted(wall, rng, fate.severity, harm), style, harm)


def _tilted(wall: Wall, rng: np.random.Generator, severity: float, harm: Harm) -> Wall:
    if not harm.profile or rng.random() > severity * 0.5:
        return wall
    lean = float(rng.normal(0, 0.14)) * abs(wall.left_base[1] - wall.left_top[1])
    drop = abs(lean) * 0.3
    left, right = wall.left_top, wall.right_top
    return Wall(
        wall.left_base,
        (left[0] + lean, left[1] + drop),
        wall.right_base,
        (right[0] + lean, right[1]),
        wall.depth,
    )


def _row(canvas: Canvas, base: float, severity: float) -> None:
    rng = canvas.rng
    x, first = -rng.uniform(0, 25) * canvas.unit, True
    struck = rng.uniform(0.25, 0.6) * canvas.width
    while x < canvas.width:
        wide, high = rng.uniform(26, 55) * canvas.unit, rng.uniform(34, 66) * canvas.unit
        high = min(high, base * 0.92)
        hit = first and x + wide > struck
        first = first and not hit
        fate = Fate.draw(rng, severity, hit)
        wall = upright(x, x + wide, base - high, base, 0.12)
        bays = max(2, int(wide / canvas.unit / rng.uniform(8, 13)))
        house(canvas, wall, fate, max(2, int(high / canvas.unit / rng.uniform(9, 13))), bays)
        if fate.severity:
            peak = high * (0.04 + 0.42 * fate.severity * rng.uniform(0.4, 1.0))
            rubble(canvas, x - wide * 0.1, x + wide * 1.1, base + canvas.unit * 2, peak)
        elif rng.random() < 0.1:
            kind = str(rng.choice(["stones", "sacks", "crates", "sand"]))
            goods(canvas, x, x + wide * 0.6, base + canvas.unit * 2, high * 0.16, kind)
        gap = rng.random() < 0.22
        if gap:
            tree(canvas, x + wide * 1.12, base, high * rng.uniform(0.5, 0.8), 0.1)
        x += wide * (1.24 if gap else 1.0)


def _road(canvas: Canvas, base: float) -> None:
    rng, soil = canvas.rng, canvas.mood.soil
    kerb = base + (canvas.height - base) * rng.uniform(0.2, 0.35)
    canvas.area(
        [(0, base), (canvas.width, base), (canvas.width, kerb), (0, kerb)],
        shade(soil, rng.uniform(1.05, 1.25)),
    )
    canvas.area(
        [(0, kerb), (canvas.width, kerb), (canvas.width, canvas.height), (0, canvas.height)],
        mix(soil, (92, 92, 96), rng.uniform(0.2, 0.9)),
    )
    canvas.line([(0, kerb), (canvas.width, kerb)], shade(soil, 0.7), 0.8)
    if rng.random() < 0.5:
        y = kerb + (canvas.height - kerb) * 0.5
        for x in np.arange(rng.uniform(0, 10), 110, 16) / 100 * canvas.width:
            canvas.line([(x, y), (x + canvas.width * 0.07, y)], (220, 216, 200), 0.9)


def _passers(canvas: Canvas, base: float, busy: float) -> None:
    rng = canvas.rng
    room = canvas.height - base
    for share in np.sort(rng.random(int(rng.poisson(3.2 * busy)))):
        foot = base + room * (0.08 + 0.8 * float(share))
        tall = canvas.unit * (11 + 14 * share)
        person(canvas, rng.uniform(0, canvas.width), foot, tall)


def front(canvas: Canvas, severity: float, *, far: float = 0.0) -> None:
    """Draw a row of houses across the street; `far` damages the skyline behind instead."""
    rng = canvas.rng
    base = canvas.height * rng.uniform(0.66, 0.8)
    sky(canvas, base)
    skyline(canvas, base - canvas.unit * 4, far)
    if far:
        smoke(canvas, rng.uniform(0.2, 0.8), base / canvas.height, 0.4, bool(rng.random() < 0.6))
    haze_and_smoke(canvas, base, severity)
    _road(canvas, base)
    if far:
        _low_row(canvas, base)
    else:
        _row(canvas, base, severity)
    rough = severity if severity else (rng.uniform(0.1, 0.4) if rng.random() < 0.2 else 0.0)
    debris(canvas, base + canvas.unit, canvas.height, rough)
    if rng.random() < 0.55 - 0.3 * severity:
        for x in rng.uniform(0, canvas.width, int(rng.integers(1, 4))):
            car(canvas, x, base + canvas.unit * rng.uniform(6, 11), canvas.unit * 30)
    if rng.random() < 0.22 and severity < 0.5:
        stall(
            canvas, rng.uniform(0.1, 0.9) * canvas.width, base + canvas.unit * 5, canvas.unit * 26
        )
    if rng.random() < 0.3:
        poles(canvas, base + canvas.unit * 3, canvas.unit * 52)
    if rng.random() < 0.2:
        level = base - canvas.unit * rng.uniform(20, 34)
        laundry(canvas, (0, level), (canvas.width, level - canvas.unit * 6))
    _passers(canvas, base, rng.uniform(0.2, 1.6))


def _low_row(canvas: Canvas, base: float) -> None:
    rng = canvas.rng
    x = -rng.uniform(0, 20) * canvas.unit
    while x < canvas.width:
        wide, high = rng.uniform(24, 44) * canvas.unit, rng.uniform(13, 22) * canvas.unit
        wall = upright(x, x + wide, base - high, base, 0.1)
        house(canvas, wall, Fate(0.0), 1 + int(high > 18 * canvas.unit), 3)
        x += wide * rng.uniform(1.0, 1.3)
