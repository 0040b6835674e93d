"""What stands and moves in a street: people, trees, poles, stalls, laundry."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from archiveprobe.task.demo.building import CLOTH
from archiveprobe.task.demo.canvas import Canvas, Colour, Point, pick, shade, vary

SKIN: tuple[Colour, ...] = ((196, 148, 112), (160, 112, 82), (214, 170, 136))
_LEAF: tuple[Colour, ...] = ((70, 104, 58), (94, 118, 66), (58, 84, 54), (112, 120, 72))


def person(canvas: Canvas, x: float, base: float, tall: float, depth: float = 0.0) -> None:
    """Draw someone standing or walking; `tall` from sole to crown."""
    rng = canvas.rng
    coat, legs = pick(rng, CLOTH), pick(rng, ((48, 52, 62), (70, 62, 56), (40, 40, 44)))
    step, wide = rng.uniform(0.02, 0.14) * tall, tall * 0.13
    hip, neck = base - tall * 0.46, base - tall * 0.82
    thick = tall * 0.075 / canvas.unit
    if rng.random() < 0.3:
        top, hem = wide * 0.7, wide * 1.2
        robe = [(x - top, hip), (x + top, hip), (x + hem, base), (x - hem, base)]
        canvas.area(robe, coat, depth)
    else:
        for side in (-1, 1):
            canvas.line([(x + side * wide * 0.4, hip), (x + side * step, base)], legs, thick, depth)
    half = [(wide, tall * 0.05 + neck), (wide * 0.4, neck)]
    waist = [(wide * 0.75, hip + tall * 0.03)]
    left = [(x - across, y) for across, y in waist + half]
    right = [(x + across, y) for across, y in half[::-1] + waist]
    canvas.area(left + right, coat, depth)
    for side in (-1, 1):
        hand = (x + side * wide * rng.uniform(0.9, 1.9), hip + tall * rng.uniform(-0.15, 0.06))
        arm = [(x + side * wide * 0.9, neck + tall * 0.06), hand]
        canvas.line(arm, shade(coat, 0.85), thick * 0.7, depth)
    _head(canvas, x, base - tall * 0.91, tall, depth)


def _head(canvas: Canvas, x: float, y: float, tall: float, depth: float) -> None:
    canvas.oval((x, y), tall * 0.062, tall * 0.078, pick(canvas.rng, SKIN), depth)
    hair = pick(canvas.rng, ((34, 28, 26), (60, 46, 38), (226, 224, 220), (110, 70, 90)))
    box = (x - tall * 0.068, y - tall * 0.088, x + tall * 0.068, y + tall * 0.06)
    canvas.pen.pieslice(box, 180, 360, fill=canvas.ink(hair, depth))


def tree(canvas: Canvas, x: float, base: float, tall: float, depth: float = 0.0) -> None:
    """Draw a leafy tree or a palm."""
    rng = canvas.rng
    leaf = pick(rng, _LEAF)
    top = base - tall * 0.6
    bend = rng.normal(0, tall * 0.04)
    canvas.line(
        [(x, base), (x + bend, base - tall * 0.3), (x + bend, top)],
        (92, 72, 54),
        tall * 0.05 / canvas.unit,
        depth,
    )
    if rng.random() < 0.4:
        for angle in np.linspace(-0.3, np.pi + 0.3, 11) + rng.normal(0, 0.1, 11):
            reach = tall * rng.uniform(0.24, 0.36)
            tip = (
                x + bend + reach * np.cos(angle),
                top - reach * np.sin(angle) * 0.6 + reach * 0.3,
            )
            knee = (x + bend + reach * 0.6 * np.cos(angle), top - reach * np.sin(angle) * 0.7)
            canvas.line(
                [(x + bend, top), knee, tip], vary(rng, leaf), tall * 0.025 / canvas.unit, depth
            )
        return
    for share in np.linspace(0, 1, 22):
        spot = (
            x + bend + rng.normal(0, tall * 0.13),
            top + tall * 0.06 + rng.normal(0, tall * 0.1),
        )
        size = tall * rng.uniform(0.06, 0.13)
        canvas.oval(spot, size, size * 0.85, shade(vary(rng, leaf, 6), 0.7 + 0.45 * share), depth)


def poles(canvas: Canvas, base: float, tall: float) -> None:
    """Draw lamp posts with sagging wires between them."""
    rng = canvas.rng
    xs = np.sort(rng.uniform(-0.1, 1.1, int(rng.integers(2, 4)))) * canvas.width
    for x in xs:
        canvas.line([(x, base), (x, base - tall)], (72, 68, 64), 0.7)
        canvas.line(
            [(x - tall * 0.08, base - tall * 0.94), (x + tall * 0.08, base - tall * 0.94)],
            (72, 68, 64),
            0.5,
        )
    for a, b in pairwise(xs.tolist()):
        for lift in (0.94, 0.88):
            t = np.linspace(0, 1, 9)
            sag = tall * 0.12 * 4 * t * (1 - t)
            wire = [
                (a + (b - a) * s, float(base - tall * lift + d))
                for s, d in zip(t, sag, strict=True)
            ]
            canvas.line(wire, (50, 50, 52), 0.18)


def laundry(canvas: Canvas, left: Point, right: Point) -> None:
    """Draw a washing line between two points."""
    rng = canvas.rng
    canvas.line([left, right], (60, 58, 56), 0.2)
    for t in np.linspace(0.08, 0.9, int(rng.integers(4, 9))):
        x, y = left[0] + (right[0] - left[0]) * t, left[1] + (right[1] - left[1]) * t
        wide, high = canvas.unit * rng.uniform(2, 4), canvas.unit * rng.uniform(3, 7)
        canvas.area(
            [(x, y), (x + wide, y), (x + wide * 1.05, y + high), (x, y + high * 0.95)],
            pick(rng, CLOTH),
        )


def stall(canvas: Canvas, x: float, base: float, wide: float) -> None:
    """Draw a market stall: striped awning, table, goods."""
    rng = canvas.rng
    high, half = wide * 0.85, wide / 2
    for side in (-0.9, 0.9):
        canvas.line([(x + side * half, base), (x + side * half, base - high)], (90, 76, 62), 0.5)
    canvas.area(
        [
            (x - half, base),
            (x - half, base - high * 0.4),
            (x + half, base - high * 0.4),
            (x + half, base),
        ],
        pick(rng, ((120, 92, 66), (150, 130, 104), (86, 100, 110))),
    )
    for t in np.linspace(-0.9, 0.9, 9):
        size = wide * rng.uniform(0.04, 0.065)
        colour = pick(rng, ((206, 70, 50), (226, 150, 50), (110, 150, 60), (216, 200, 80)))
        for _ in range(4):
            spot = (x + (t + rng.normal(0, 0.05)) * half, base - high * rng.uniform(0.4, 0.5))
            canvas.oval(spot, size, size, vary(rng, colour))
    first, second = pick(rng, CLOTH), pick(rng, CLOTH)
    edges = np.linspace(-1.08, 1.08, 9)
    for i, (a, b) in enumerate(pairwise(edges.tolist())):
        canvas.area(
            [
                (x + a * half * 0.85, base - high * 1.18),
                (x + b * half * 0.85, base - high * 1.18),
                (x + b * half, base - high * 0.9),
                (x + a * half, base - high * 0.9),
            ],
            first if i % 2 else second,
        )
