"""Buildings: walls in perspective with their storeys, windows and balconies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archiveprobe.task.demo.canvas import Canvas, Colour, Point, mix, pick, shade, vary

WALLS: tuple[Colour, ...] = (
    (206, 190, 162),
    (188, 178, 164),
    (170, 168, 166),
    (214, 206, 192),
    (196, 164, 130),
    (158, 150, 142),
    (204, 176, 160),
    (176, 186, 190),
    (222, 214, 170),
    (186, 142, 118),
)
CLOTH: tuple[Colour, ...] = (
    (186, 58, 54),
    (52, 92, 150),
    (62, 128, 84),
    (222, 176, 64),
    (232, 228, 220),
    (120, 76, 130),
    (46, 48, 54),
    (206, 120, 60),
)
_LAMP: Colour = (250, 208, 120)
Cell = tuple[int, int]


@dataclass(frozen=True)
class Wall:
    """A wall seen in perspective: four corners, and `depth` for the haze."""

    left_base: Point
    left_top: Point
    right_base: Point
    right_top: Point
    depth: float = 0.0

    def at(self, u: float, v: float) -> Point:
        """Return the point `u` of the way along and `v` of the way up."""
        left = abs(self.left_base[1] - self.left_top[1]) or 1.0
        right = abs(self.right_base[1] - self.right_top[1]) or 1.0
        # Heights shrink with distance, so equal steps along the wall are not equal on paper.
        t = (u / right) / ((1.0 - u) / left + u / right) if 0.0 <= u <= 1.0 else u
        x0 = self.left_base[0] + (self.left_top[0] - self.left_base[0]) * v
        y0 = self.left_base[1] + (self.left_top[1] - self.left_base[1]) * v
        x1 = self.right_base[0] + (self.right_top[0] - self.right_base[0]) * v
        y1 = self.right_base[1] + (self.right_top[1] - self.right_base[1]) * v
        return (x0 + (x1 - x0) * t, y0 + (y1 - y0) * t)

    def patch(self, u0: float, v0: float, u1: float, v1: float) -> list[Point]:
        """Return the corners of a rectangle on the wall."""
        return [self.at(u0, v0), self.at(u0, v1), self.at(u1, v1), self.at(u1, v0)]


def upright(left: float, right: float, top: float, base: float, depth: float = 0.0) -> Wall:
    """Return a wall seen straight on."""
    return Wall((left, base), (left, top), (right, base), (right, top), depth)


@dataclass(frozen=True, kw_only=True)
class Style:
    """What one building looks like."""

    storeys: int
    bays: int
    wall: Colour
    trim: Colour
    frame: Colour
    window: tuple[float, float]
    arched: bool
    balconies: float
    shops: bool
    bands: bool


def draw_style(rng: np.random.Generator, *, storeys: int, bays: int) -> Style:
    """Draw the looks of a building with so many storeys and windows in a row."""
    wall = pick(rng, WALLS, 12)
    return Style(
        storeys=storeys,
        bays=bays,
        wall=wall,
        trim=shade(wall, rng.choice([0.8, 1.12])),
        frame=pick(rng, ((240, 238, 230), (90, 70, 56), (60, 84, 96), (120, 124, 120))),
        window=(rng.uniform(0.36, 0.62), rng.uniform(0.42, 0.66)),
        arched=bool(rng.random() < 0.18),
        balconies=float(rng.choice([0.0, 0.15, 0.5, 0.9])),
        shops=bool(rng.random() < 0.5),
        bands=bool(rng.random() < 0.5),
    )


def cell_box(style: Style, cell: Cell) -> tuple[float, float, float, float]:
    """Return u0, v0, u1, v1 of one storey's share of one row of windows."""
    row, bay = cell
    return bay / style.bays, row / style.storeys, (bay + 1) / style.bays, (row + 1) / style.storeys


def _glass(canvas: Canvas) -> Colour:
    rng = canvas.rng
    if canvas.mood.night and rng.random() < 0.4:
        return vary(rng, _LAMP, 10)
    if rng.random() < 0.25:
        return mix((70, 84, 96), canvas.mood.sky_low, rng.uniform(0.3, 0.7))
    return vary(rng, (58, 66, 74), 10)


def draw_window(canvas: Canvas, wall: Wall, style: Style, cell: Cell) -> None:
    """Draw a window with its frame, and perhaps a curtain, a shutter or a cooler."""
    rng = canvas.rng
    u0, v0, u1, v1 = cell_box(style, cell)
    wide, high = (u1 - u0) * style.window[0], (v1 - v0) * style.window[1]
    a, b = u0 + (u1 - u0 - wide) / 2, v0 + (v1 - v0) * 0.26
    rim = wide * 0.09
    top = b + high
    canvas.area(
        wall.patch(a - rim, b - high * 0.06, a + wide + rim, top + high * 0.05),
        style.frame,
        wall.depth,
    )
    canvas.area(wall.patch(a, b, a + wide, top), _glass(canvas), wall.depth)
    if style.arched:
        x, y = wall.at(a + wide / 2, top)
        half = abs(wall.at(a + wide, top)[0] - wall.at(a, top)[0]) / 2
        canvas.oval((x, y), half, half * 0.8, (64, 70, 78), wall.depth)
    extra = rng.random()
    if extra < 0.2:
        part = b + high * rng.uniform(0.3, 0.8)
        canvas.area(wall.patch(a, part, a + wide, top), shade(style.frame, 0.92), wall.depth)
    elif extra < 0.38:
        canvas.area(wall.patch(a, b, a + wide * 0.3, top), pick(rng, CLOTH), wall.depth)
    elif extra < 0.48:
        box = wall.patch(a + wide * 0.5, b - high * 0.34, a + wide, b - high * 0.1)
        canvas.area(box, (214, 214, 208), wall.depth)
    middle = a + wide / 2
    canvas.line([wall.at(middle, b), wall.at(middle, top)], style.frame, 0.25, wall.depth)


def draw_balcony(canvas: Canvas, wall: Wall, style: Style, cell: Cell) -> None:
    """Draw a balcony: slab, railing, sometimes with laundry on it."""
    rng = canvas.rng
    u0, v0, u1, v1 = cell_box(style, cell)
    inset, high = (u1 - u0) * 0.08, (v1 - v0)
    a, b, floor = u0 + inset, u1 - inset, v0 + high * 0.06
    canvas.area(wall.patch(a, floor - high * 0.08, b, floor), shade(style.wall, 0.62), wall.depth)
    canvas.area(wall.patch(a, floor, b, floor + high * 0.32), shade(style.trim, 0.9), wall.depth)
    for step in np.linspace(a, b, 6):
        post = [wall.at(step, floor), wall.at(step, floor + high * 0.32)]
        canvas.line(post, shade(style.trim, 0.6), 0.3, wall.depth)
    if rng.random() < 0.35:
        for _ in range(int(rng.integers(1, 4))):
            left = rng.uniform(a, b - inset * 2)
            cloth = wall.patch(left, floor + high * 0.02, left + inset * 2, floor + high * 0.3)
            canvas.area(cloth, pick(rng, CLOTH), wall.depth)


def draw_shop(canvas: Canvas, wall: Wall, style: Style, cell: Cell) -> None:
    """Draw a shop front: a shutter or a lit opening, a sign, perhaps an awning."""
    rng = canvas.rng
    u0, v0, u1, v1 = cell_box(style, cell)
    a, b, high = u0 + (u1 - u0) * 0.1, u1 - (u1 - u0) * 0.1, v1 - v0
    opening = pick(rng, ((60, 56, 54), (150, 152, 150), (84, 110, 126), (120, 92, 70)))
    canvas.area(wall.patch(a, v0, b, v0 + high * 0.68), opening, wall.depth)
    if opening[0] > 110:
        for step in np.linspace(v0 + high * 0.08, v0 + high * 0.62, 6):
            canvas.line([wall.at(a, step), wall.at(b, step)], shade(opening, 0.8), 0.2, wall.depth)
    canvas.area(wall.patch(a, v0 + high * 0.72, b, v0 + high * 0.92), pick(rng, CLOTH), wall.depth)
    if rng.random() < 0.3:
        awning = [
            *wall.patch(a, v0 + high * 0.55, b, v0 + high * 0.72)[1:3],
            wall.at(b + 0.02, v0 + high * 0.5),
            wall.at(a - 0.02, v0 + high * 0.5),
        ]
        canvas.area(awning, pick(rng, CLOTH), wall.depth)


def draw_door(canvas: Canvas, wall: Wall, style: Style, cell: Cell) -> None:
    """Draw a house door with a step."""
    u0, v0, u1, v1 = cell_box(style, cell)
    a, b, high = u0 + (u1 - u0) * 0.3, u1 - (u1 - u0) * 0.3, v1 - v0
    canvas.area(wall.patch(a, v0, b, v0 + high * 0.7), shade(style.frame, 0.7), wall.depth)
    canvas.area(wall.patch(a - 0.01, v0, b + 0.01, v0 + high * 0.06), style.trim, wall.depth)


def draw_cell(canvas: Canvas, wall: Wall, style: Style, cell: Cell) -> None:
    """Draw what an unharmed part of a wall holds."""
    rng = canvas.rng
    if cell[0] == 0 and style.shops:
        draw_shop(canvas, wall, style, cell)
    elif cell[0] == 0 and rng.random() < 0.35:
        draw_door(canvas, wall, style, cell)
    else:
        draw_window(canvas, wall, style, cell)
        if cell[0] > 0 and rng.random() < style.balconies:
            draw_balcony(canvas, wall, style, cell)


def draw_roof(canvas: Canvas, wall: Wall, style: Style) -> None:
    """Draw what stands on a flat roof: a parapet, water tanks, a dish, an aerial."""
    rng = canvas.rng
    cap = 0.035
    canvas.area(wall.patch(0.0, 1.0, 1.0, 1.0 + cap), style.trim, wall.depth)
    for _ in range(int(rng.integers(0, 4))):
        u, kind = rng.uniform(0.08, 0.85), rng.random()
        if kind < 0.5:
            tank = wall.patch(u, 1.0 + cap, u + 0.08, 1.12)
            canvas.area(
                tank, pick(rng, ((60, 62, 66), (224, 224, 220), (70, 104, 140))), wall.depth
            )
        elif kind < 0.75:
            x, y = wall.at(u, 1.09)
            canvas.oval((x, y), canvas.unit * 1.4, canvas.unit * 1.2, (206, 206, 206), wall.depth)
        else:
            canvas.line([wall.at(u, 1.0), wall.at(u, 1.22)], (70, 70, 72), 0.3, wall.depth)
