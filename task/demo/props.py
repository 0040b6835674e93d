"""What stands and moves in a street: people, cars, trees, poles, stalls, laundry."""

from __future__ import annotations

import numpy as np

from task.demo.building import CLOTH
from task.demo.canvas import Canvas, Colour, Point, pick, shade, vary

SKIN: tuple[Colour, ...] = ((196, 148, 112), (160, 112, 82), (214, 170, 136))
_PAINT: tuple[Colour, ...] = (
    (224, 224, 222),
    (60, 62, 66),
    (168, 40, 40),
    (70, 96, 140),
    (222, 184, 70),
    (150, 154, 156),
)
_LEAF: tuple[Colour, ...] = ((70, 104, 58), (94, 118, 66), (58, 84, 54), (112, 120, 72))


def person(canvas: Canvas, x: float, base: float, tall: float, depth: float = 0.0) -> None:
    """Draw someone standing or walking; `tall` from sole to crown."""
    rng = canvas.rng
    coat, legs = pick(rng, CLOTH), pick(rng, ((48, 52, 62), (70, 62, 56), (40, 40, 44)))
    step, wide = rng.uniform(0.02, 0.14) * tall, tall * 0.13
    hip, neck = base - tall * 0.46, base - tall * 0.82
    thick = tall * 0.075 / canvas.unit
    if rng.random() < 0.3:
        canvas.area([(x - wide * 0.7, hip), (x + wide * 0.7, hip), (x + wide * 1.2, base),
                     (x - wide * 1.2, base)], coat, depth)
    else:
        for side in (-1, 1):
            canvas.line([(x + side * wide * 0.4, hip), (x + side * step, base)], legs, thick, depth)
    canvas.area([(x - wide, neck + tall * 0.05), (x - wide * 0.4, neck),
                 (x + wide * 0.4, neck), (x + wide, neck + tall * 0.05),
                 (x + wide * 0.75, hip + tall * 0.03), (x - wide * 0.75, hip + tall * 0.03)],
                coat, depth)
    for side in (-1, 1):
        hand = (x + side * wide * rng.uniform(0.9, 1.9), hip + tall * rng.uniform(-0.15, 0.06))
        canvas.line([(x + side * wide * 0.9, neck + tall * 0.06), hand], shade(coat, 0.85),
                    thick * 0.7, depth)
    head = base - tall * 0.91
    skin = pick(rng, SKIN)
    canvas.oval((x, head), tall * 0.062, tall * 0.078, skin, depth)
    hair = pick(rng, ((34, 28, 26), (60, 46, 38), (226, 224, 220), (110, 70, 90)))
    canvas.pen.pieslice((x - tall * 0.068, head - tall * 0.088, x + tall * 0.068,
                         head + tall * 0.06), 180, 360, fill=canvas.ink(hair, depth))


def car(canvas: Canvas, x: float, base: float, length: float, depth: float = 0.0) -> None:
    """Draw a car from the side."""
    rng = canvas.rng
    paint, high, way = pick(rng, _PAINT), length * 0.2, float(rng.choice([-1.0, 1.0]))
    van = rng.random() < 0.25
    roof = 1.5 if van else 1.0

    def at(u: float, v: float) -> Point:
        return (x + way * (u - 0.5) * length, base - high * (0.35 + v))

    canvas.oval((x, base), length * 0.52, high * 0.22, shade(canvas.mood.soil, 0.5), depth)
    cabin = [at(0.18, 0.9), at(0.28, 0.9 + 0.8 * roof), at(0.68, 0.9 + 0.8 * roof), at(0.86, 0.85)]
    canvas.area(cabin, shade(paint, 0.95), depth)
    glass = [at(0.24, 0.92), at(0.32, 0.8 + 0.75 * roof), at(0.65, 0.8 + 0.75 * roof),
             at(0.78, 0.9)]
    canvas.area(glass, (74, 88, 98), depth)
    canvas.line([at(0.48, 0.9), at(0.48, 0.9 + 0.75 * roof)], paint, 0.5, depth)
    body = [at(0, 0), at(0.0, 0.75), at(0.06, 0.95), at(0.86, 0.95), at(0.98, 0.65), at(1, 0)]
    canvas.area(body, paint, depth)
    canvas.line([at(0.02, 0.45), at(0.98, 0.42)], shade(paint, 0.75), 0.3, depth)
    for u in (0.22, 0.78):
        cx, cy = at(u, 0.02)
        canvas.oval((cx, cy), high * 0.42, high * 0.42, (30, 30, 32), depth)
        canvas.oval((cx, cy), high * 0.2, high * 0.2, (150, 150, 150), depth)
    cx, cy = at(0.97, 0.6)
    canvas.oval((cx, cy), high * 0.1, high * 0.1, (250, 236, 180), depth)


def car_front(canvas: Canvas, x: float, base: float, wide: float, depth: float = 0.0) -> None:
    """Draw a car coming or going."""
    rng = canvas.rng
    paint = pick(rng, _PAINT)
    half, high = wide / 2, wide * 0.8
    canvas.area([(x - half, base), (x - half, base - high * 0.55), (x + half, base - high * 0.55),
                 (x + half, base)], paint, depth)
    canvas.area([(x - half * 0.92, base - high * 0.52), (x - half * 0.66, base - high),
                 (x + half * 0.66, base - high), (x + half * 0.92, base - high * 0.52)],
                shade(paint, 0.9), depth)
    canvas.area([(x - half * 0.76, base - high * 0.56), (x - half * 0.58, base - high * 0.92),
                 (x + half * 0.58, base - high * 0.92), (x + half * 0.76, base - high * 0.56)],
                (70, 84, 94), depth)
    lamp: Colour = (250, 240, 200) if rng.random() < 0.5 else (190, 40, 36)
    for side in (-1, 1):
        canvas.oval((x + side * half * 0.72, base - high * 0.36), half * 0.16, half * 0.1, lamp,
                    depth)
        canvas.area([(x + side * half * 0.9, base), (x + side * half * 0.55, base),
                     (x + side * half * 0.55, base + high * 0.1),
                     (x + side * half * 0.9, base + high * 0.1)], (28, 28, 30), depth)
    canvas.line([(x - half * 0.4, base - high * 0.15), (x + half * 0.4, base - high * 0.15)],
                shade(paint, 0.5), 0.8, depth)


def tree(canvas: Canvas, x: float, base: float, tall: float, depth: float = 0.0) -> None:
    """Draw a leafy tree or a palm."""
    rng = canvas.rng
    leaf = pick(rng, _LEAF)
    top = base - tall * 0.6
    bend = rng.normal(0, tall * 0.04)
    canvas.line([(x, base), (x + bend, base - tall * 0.3), (x + bend, top)], (92, 72, 54),
                tall * 0.05 / canvas.unit, depth)
    if rng.random() < 0.4:
        for angle in np.linspace(-0.3, np.pi + 0.3, 11) + rng.normal(0, 0.1, 11):
            reach = tall * rng.uniform(0.24, 0.36)
            tip = (x + bend + reach * np.cos(angle), top - reach * np.sin(angle) * 0.6 + reach * 0.3)
            knee = (x + bend + reach * 0.6 * np.cos(angle), top - reach * np.sin(angle) * 0.7)
            canvas.line([(x + bend, top), knee, tip], vary(rng, leaf), tall * 0.025 / canvas.unit,
                        depth)
        return
    for share in np.linspace(0, 1, 22):
        spot = (x + bend + rng.normal(0, tall * 0.13), top + tall * 0.06 + rng.normal(0, tall * 0.1))
        size = tall * rng.uniform(0.06, 0.13)
        canvas.oval(spot, size, size * 0.85, shade(vary(rng, leaf, 6), 0.7 + 0.45 * share), depth)


def poles(canvas: Canvas, base: float, tall: float) -> None:
    """Draw lamp posts with sagging wires between them."""
    rng = canvas.rng
    xs = np.sort(rng.uniform(-0.1, 1.1, int(rng.integers(2, 4)))) * canvas.width
    for x in xs:
        canvas.line([(x, base), (x, base - tall)], (72, 68, 64), 0.7)
        canvas.line([(x - tall * 0.08, base - tall * 0.94), (x + tall * 0.08, base - tall * 0.94)],
                    (72, 68, 64), 0.5)
    for a, b in zip(xs[:-1], xs[1:], strict=True):
        for lift in (0.94, 0.88):
            t = np.linspace(0, 1, 9)
            sag = tall * 0.12 * 4 * t * (1 - t)
            wire = [(float(a + (b - a) * s), float(base - tall * lift + d))
                    for s, d in zip(t, sag, strict=True)]
            canvas.line(wire, (50, 50, 52), 0.18)


def laundry(canvas: Canvas, left: Point, right: Point) -> None:
    """Draw a washing line between two points."""
    rng = canvas.rng
    canvas.line([left, right], (60, 58, 56), 0.2)
    for t in np.linspace(0.08, 0.9, int(rng.integers(4, 9))):
        x, y = left[0] + (right[0] - left[0]) * t, left[1] + (right[1] - left[1]) * t
        wide, high = canvas.unit * rng.uniform(2, 4), canvas.unit * rng.uniform(3, 7)
        canvas.area([(x, y), (x + wide, y), (x + wide * 1.05, y + high), (x, y + high * 0.95)],
                    pick(rng, CLOTH))


def stall(canvas: Canvas, x: float, base: float, wide: float) -> None:
    """Draw a market stall: striped awning, table, goods."""
    rng = canvas.rng
    high, half = wide * 0.85, wide / 2
    for side in (-0.9, 0.9):
        canvas.line([(x + side * half, base), (x + side * half, base - high)], (90, 76, 62), 0.5)
    canvas.area([(x - half, base), (x - half, base - high * 0.4), (x + half, base - high * 0.4),
                 (x + half, base)], pick(rng, ((120, 92, 66), (150, 130, 104), (86, 100, 110))))
    for t in np.linspace(-0.9, 0.9, 9):
        size = wide * rng.uniform(0.04, 0.065)
        colour = pick(rng, ((206, 70, 50), (226, 150, 50), (110, 150, 60), (216, 200, 80)))
        for _ in range(4):
            spot = (x + (t + rng.normal(0, 0.05)) * half, base - high * rng.uniform(0.4, 0.5))
            canvas.oval(spot, size, size, vary(rng, colour))
    first, second = pick(rng, CLOTH), pick(rng, CLOTH)
    edges = np.linspace(-1.08, 1.08, 9)
    for i, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        canvas.area([(x + a * half * 0.85, base - high * 1.18), (x + b * half * 0.85,
                     base - high * 1.18), (x + b * half, base - high * 0.9),
                     (x + a * half, base - high * 0.9)], first if i % 2 else second)
