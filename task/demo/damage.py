"""Damage to buildings: what is cut off, opened, burnt, holed, and the heaps below."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archiveprobe.task.demo.building import CLOTH, Cell, Style, Wall, cell_box, draw_cell, draw_roof
from archiveprobe.task.demo.canvas import Canvas, Colour, Point, mix, pick, shade, vary

CONCRETE: tuple[Colour, ...] = (
    (168, 164, 158),
    (140, 136, 130),
    (190, 182, 168),
    (112, 108, 104),
    (176, 152, 128),
)
_SOOT: Colour = (28, 26, 26)
_RUST: Colour = (84, 60, 48)


@dataclass(frozen=True)
class Harm:
    """What one building has lost; the default is nothing."""

    profile: tuple[float, ...] = ()  # height left standing, at even steps along the wall
    opened: frozenset[Cell] = frozenset()
    burnt: frozenset[Cell] = frozenset()
    holes: tuple[tuple[float, float, float], ...] = ()
    cracks: int = 0

    def left_at(self, u: float) -> float:
        """Return how much of the height still stands at `u`."""
        if not self.profile:
            return 1.0
        return float(np.interp(u, np.linspace(0, 1, len(self.profile)), self.profile))


WHOLE = Harm()


def draw_harm(rng: np.random.Generator, style: Style, severity: float) -> Harm:
    """Draw the damage to one building; `severity` from 0 (a few marks) to 1 (hardly stands)."""
    cells = [(row, bay) for row in range(style.storeys) for bay in range(style.bays)]
    chance = rng.random(len(cells))
    opened = frozenset(c for c, p in zip(cells, chance, strict=True) if p < severity * 0.42)
    burnt = frozenset(c for c, p in zip(cells, chance, strict=True) if p > 1 - severity * 0.35)
    count = int(rng.integers(1, 3)) + int(severity > 0.5)
    holes = tuple(
        (rng.uniform(0.1, 0.9), rng.uniform(0.2, 0.85), rng.uniform(0.05, 0.11) * (0.7 + severity))
        for _ in range(count)
    )
    profile = _broken_top(rng, severity) if rng.random() < severity * 1.3 - 0.15 else ()
    return Harm(profile, opened, burnt, holes, int(rng.integers(1, 4)))


def _broken_top(rng: np.random.Generator, severity: float) -> tuple[float, ...]:
    """Return a ragged height: a slope or a bite, with teeth."""
    along = np.linspace(0, 1, int(rng.integers(9, 16)))
    if rng.random() < 0.5:
        slope = along if rng.random() < 0.5 else along[::-1]
        height = 1.0 - severity * rng.uniform(0.3, 0.95) * slope ** rng.uniform(0.6, 2.0)
    else:
        bite = np.exp(-(((along - rng.uniform(0.15, 0.85)) / rng.uniform(0.12, 0.35)) ** 2))
        height = 1.0 - severity * rng.uniform(0.4, 0.9) * bite
    teeth = rng.uniform(-0.09, 0.05, len(along))
    return tuple(float(h) for h in np.clip(height + teeth, 0.12, 1.02))


def draw_building(canvas: Canvas, wall: Wall, style: Style, harm: Harm = WHOLE) -> None:
    """Draw a building, whole or harmed."""
    _draw_shell(canvas, wall, style, harm)
    for row in range(style.storeys):
        for bay in range(style.bays):
            u0, _, u1, v1 = cell_box(style, (row, bay))
            standing = min(harm.left_at(u0), harm.left_at(u1), harm.left_at((u0 + u1) / 2))
            if v1 - 0.3 / style.storeys > standing:
                continue
            if (row, bay) in harm.opened:
                draw_open_cell(canvas, wall, style, (row, bay))
            else:
                draw_cell(canvas, wall, style, (row, bay))
                if (row, bay) in harm.burnt:
                    _draw_soot(canvas, wall, style, (row, bay))
    for u, v, size in harm.holes:
        if v < harm.left_at(u):
            _draw_hole(canvas, wall, style, (u, v), size)
    for _ in range(harm.cracks):
        _draw_crack(canvas, wall, harm)


def _draw_shell(canvas: Canvas, wall: Wall, style: Style, harm: Harm) -> None:
    if not harm.profile:
        canvas.area(wall.patch(0, 0, 1, 1), style.wall, wall.depth)
        draw_roof(canvas, wall, style)
    else:
        along = np.linspace(0, 1, len(harm.profile))
        inner = [
            wall.at(u, min(1.0, v + canvas.rng.uniform(0.0, 0.16)))
            for u, v in zip(along, harm.profile, strict=True)
        ]
        canvas.area([wall.at(0, 0), *inner, wall.at(1, 0)], shade(style.wall, 0.55), wall.depth)
        _draw_rebar(canvas, wall, harm)
        edge = [wall.at(u, v) for u, v in zip(along, harm.profile, strict=True)]
        canvas.area([wall.at(0, 0), *edge, wall.at(1, 0)], style.wall, wall.depth)
        canvas.line(edge, shade(style.wall, 0.7), 0.6, wall.depth)
    if style.bands:
        for row in range(1, style.storeys):
            v = row / style.storeys
            if v < min(harm.profile, default=1.0):
                canvas.line([wall.at(0, v), wall.at(1, v)], style.trim, 0.5, wall.depth)


def _draw_rebar(canvas: Canvas, wall: Wall, harm: Harm) -> None:
    rng = canvas.rng
    for u in rng.uniform(0, 1, int(rng.integers(5, 14))):
        foot = harm.left_at(float(u))
        bend = rng.normal(0, 0.03, 2)
        rod = [
            wall.at(float(u), foot - 0.05),
            wall.at(float(u + bend[0]), foot + 0.06),
            wall.at(float(u + bend.sum()), foot + rng.uniform(0.06, 0.16)),
        ]
        canvas.line(rod, _RUST, 0.25, wall.depth)


def draw_open_cell(canvas: Canvas, wall: Wall, style: Style, cell: Cell) -> None:
    """Draw a room whose outer wall is missing: back wall, ceiling, floor slab, a doorway."""
    rng = canvas.rng
    u0, v0, u1, v1 = cell_box(style, cell)
    wide, high = u1 - u0, v1 - v0
    back = shade(
        pick(rng, ((150, 160, 140), (170, 140, 128), (140, 138, 134), (120, 140, 150))),
        rng.uniform(0.3, 0.75),
    )
    canvas.area(wall.patch(u0, v0, u1, v1), shade(back, 0.55), wall.depth)
    inner = wall.patch(u0 + wide * 0.16, v0 + high * 0.14, u1 - wide * 0.16, v1 - high * 0.2)
    canvas.area(inner, back, wall.depth)
    if rng.random() < 0.5:
        left = u0 + wide * rng.uniform(0.25, 0.5)
        door = wall.patch(left, v0 + high * 0.14, left + wide * 0.2, v0 + high * 0.62)
        canvas.area(door, shade(back, 0.35), wall.depth)
    for v in (v0, v1):
        slab = wall.patch(u0, v - high * 0.05, u1, v + high * 0.04)
        canvas.area(slab, (164, 160, 152), wall.depth)


def _draw_soot(canvas: Canvas, wall: Wall, style: Style, cell: Cell) -> None:
    u0, v0, u1, v1 = cell_box(style, cell)
    wide, high = u1 - u0, v1 - v0
    a, b = u0 + wide * 0.2, u1 - wide * 0.2
    canvas.area(wall.patch(a, v0 + high * 0.24, b, v0 + high * 0.8), _SOOT, wall.depth)
    lean = canvas.rng.uniform(-0.2, 0.2) * wide
    for step, share in ((0.5, 0.75), (0.35, 0.55), (0.2, 0.35)):
        plume = [
            wall.at(a, v0 + high * 0.75),
            wall.at(b, v0 + high * 0.75),
            wall.at(b - wide * 0.15 + lean, v0 + high * (0.8 + step)),
            wall.at(a + wide * 0.1 + lean, v0 + high * (0.75 + step)),
        ]
        canvas.area(plume, mix(style.wall, _SOOT, 1 - share), wall.depth)


def _ragged(rng: np.random.Generator, centre: Point, rx: float, ry: float) -> list[Point]:
    angles = np.sort(rng.uniform(0, 2 * np.pi, 13))
    radii = rng.uniform(0.6, 1.2, 13)
    return [
        (centre[0] + rx * r * np.cos(a), centre[1] + ry * r * np.sin(a))
        for a, r in zip(angles, radii, strict=True)
    ]


def _draw_hole(canvas: Canvas, wall: Wall, style: Style, spot: Point, size: float) -> None:
    rng = canvas.rng
    centre = wall.at(*spot)
    base, top = wall.at(spot[0], 0.0), wall.at(spot[0], 1.0)
    ry = max(canvas.unit * 1.5, abs(base[1] - top[1]) * size)
    rx = ry * rng.uniform(0.7, 1.4)
    canvas.area(
        _ragged(rng, centre, rx * 1.25, ry * 1.25), mix(style.wall, (90, 84, 78), 0.6), wall.depth
    )
    canvas.area(_ragged(rng, centre, rx, ry), vary(rng, (42, 38, 36), 8), wall.depth)
    for _ in range(int(rng.integers(1, 5))):
        x, y = centre[0] + rng.uniform(-rx, rx), centre[1] - ry * rng.uniform(0.3, 1.0)
        rod = [(x, y), (x + rng.normal(0, rx * 0.3), y + ry * rng.uniform(0.3, 1.2))]
        canvas.line(rod, _RUST, 0.25, wall.depth)


def _draw_crack(canvas: Canvas, wall: Wall, harm: Harm) -> None:
    rng = canvas.rng
    u, v = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9)
    path: list[Point] = []
    lean = rng.normal(0, 0.03)
    for _ in range(int(rng.integers(5, 12))):
        if v > harm.left_at(u) or not 0 < u < 1 or v < 0:
            break
        path.append(wall.at(u, v))
        u, v = u + lean + rng.normal(0, 0.02), v - rng.uniform(0.02, 0.06)
    if len(path) > 1:
        canvas.line(path, (58, 54, 52), 0.3, wall.depth)


def pancake(canvas: Canvas, wall: Wall, style: Style) -> None:
    """Draw a building whose storeys fell flat: tilted slabs one on another."""
    rng = canvas.rng
    left, right = sorted((wall.left_base[0], wall.right_base[0]))
    base, top = wall.at(0.5, 0.0)[1], wall.at(0.5, 1.0)[1]
    high = (base - top) * rng.uniform(0.3, 0.5)
    floors = max(3, style.storeys)
    lean = rng.normal(0, 0.16)
    for row in range(floors):
        y = base - high * row / floors
        a, b = left + (right - left) * rng.uniform(-0.05, 0.05, 2) + (0, right - left)
        tilt = (lean + rng.normal(0, 0.06)) * high
        thick = high / floors
        room = [(a, y + tilt), (b, y - tilt), (b, y - tilt - thick), (a, y + tilt - thick)]
        canvas.area(room, shade(style.wall, rng.uniform(0.25, 0.5)), wall.depth)
        slab = [
            (a, y + tilt - thick * 0.55),
            (b, y - tilt - thick * 0.55),
            (b + thick * 0.3, y - tilt - thick),
            (a - thick * 0.3, y + tilt - thick),
        ]
        canvas.area(slab, vary(rng, shade(style.wall, 0.9), 8), wall.depth)
        for x in rng.uniform(a, b, 4):
            drop = [(x, y - thick), (x + rng.normal(0, thick), y + thick * 0.4)]
            canvas.line(drop, pick(rng, (_RUST, *CLOTH[:4])), 0.35, wall.depth)
