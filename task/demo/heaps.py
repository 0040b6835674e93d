"""Heaps and smoke: rubble, and what looks like it without being it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from archiveprobe.task.demo.building import CLOTH
from archiveprobe.task.demo.canvas import Canvas, Colour, Point, pick, shade
from archiveprobe.task.demo.damage import CONCRETE

STONES: tuple[Colour, ...] = ((150, 144, 134), (120, 118, 114), (170, 158, 140), (136, 124, 108))
SACKS: tuple[Colour, ...] = ((196, 170, 124), (214, 200, 170), (168, 140, 100), (224, 222, 214))
FRUIT: tuple[Colour, ...] = ((206, 70, 50), (226, 150, 50), (110, 150, 60), (216, 200, 80))


def _hill(
    rng: np.random.Generator, left: float, right: float, base: float, peak: float, ragged: float
) -> list[Point]:
    along = np.linspace(0, 1, 15)
    top = rng.uniform(0.3, 0.7)
    rise = np.where(along < top, along / top, (1 - along) / (1 - top)) ** 0.75
    rise = np.clip(rise * (1 + rng.normal(0, ragged, len(along))), 0, 1.2)
    return [(left + (right - left) * a, base - peak * r) for a, r in zip(along, rise, strict=True)]


def _chunks(
    rng: np.random.Generator, spots: Sequence[Point], sizes: NDArray[np.float64]
) -> list[list[Point]]:
    count = len(spots)
    angles = rng.uniform(0, np.pi, (count, 1)) + np.array([0.0, 1.2, np.pi, 4.3])
    angles += rng.normal(0, 0.25, (count, 4))
    radii = sizes[:, None] * rng.uniform(0.6, 1.2, (count, 4)) * np.array([1.3, 0.8, 1.3, 0.8])
    turned = np.stack([np.cos(angles), 0.75 * np.sin(angles)], axis=2) * radii[:, :, None]
    corners = np.asarray(spots).reshape(count, 1, 2) + turned
    return [[(x, y) for x, y in block] for block in corners.tolist()]


def _spots(rng: np.random.Generator, hill: list[Point], base: float, count: int) -> list[Point]:
    xs, tops = np.array([p[0] for p in hill]), np.array([p[1] for p in hill])
    x = rng.uniform(xs[0], xs[-1], count)
    top = np.interp(x, xs, tops)
    y = top + (base - top) * rng.random(count) ** 0.8
    order = np.argsort(y)
    return [(float(x[i]), float(y[i])) for i in order]


def rubble(
    canvas: Canvas, left: float, right: float, base: float, peak: float, depth: float = 0.0
) -> None:
    """Draw a heap of broken masonry with slabs, bent rods and scraps of household goods."""
    rng = canvas.rng
    hill = _hill(rng, left, right, base, peak, 0.2)
    body = pick(rng, CONCRETE)
    canvas.area([*hill, (right, base), (left, base)], shade(body, 0.6), depth)
    size = max(canvas.unit * 0.7, peak * 0.075)
    count = int(min(260, 12 + (right - left) * peak / (size * size * 2.2)))
    spots = _spots(rng, hill, base, count)
    sizes = size * np.clip(rng.lognormal(-0.25, 0.6, count), 0.3, 3.5)
    _blocks(canvas, spots, sizes, (body,), depth)
    for _ in range(int(rng.integers(1, 5))):
        _slab(
            canvas,
            (rng.uniform(left, right), base - peak * rng.uniform(0.1, 0.6)),
            peak * rng.uniform(0.25, 0.6),
            depth,
        )
    for x, y in _spots(rng, hill, base, int(rng.integers(4, 12))):
        bend = rng.normal(0, peak * 0.16, 3)
        rod = [(x, y), (x + bend[0], y - peak * 0.16), (x + bend[0] + bend[1], y + bend[2])]
        canvas.line(rod, (80, 62, 52), 0.25, depth)


def _blocks(
    canvas: Canvas,
    spots: Sequence[Point],
    sizes: NDArray[np.float64],
    bodies: Sequence[Colour],
    depth: float = 0.0,
) -> None:
    # Numbers for the whole heap at once: most of a picture's drawing time is spent here.
    rng, count = canvas.rng, len(spots)
    tones = np.asarray(bodies)[rng.integers(len(bodies), size=count)]
    tones = tones + rng.normal(0, 9, (count, 3)) + rng.normal(0, 18, (count, 1))
    scraps = rng.random(count) < 0.05
    tones[scraps] = np.asarray(CLOTH)[rng.integers(len(CLOTH), size=int(scraps.sum()))]
    for block, size, tone in zip(
        _chunks(rng, spots, sizes), sizes.tolist(), tones.tolist(), strict=True
    ):
        colour = (tone[0], tone[1], tone[2])
        canvas.area([(x, y + size * 0.35) for x, y in block], shade(colour, 0.5), depth)
        canvas.area(block, colour, depth)


def _slab(canvas: Canvas, spot: Point, length: float, depth: float) -> None:
    rng = canvas.rng
    turn, thick = rng.uniform(-1.0, 1.0), length * rng.uniform(0.1, 0.2)
    dx, dy = length * np.cos(turn), length * np.sin(turn)
    x, y = spot
    far = (length * 0.3, -length * 0.16)
    colour = pick(rng, CONCRETE)
    top = [(x, y), (x + dx, y + dy), (x + dx + far[0], y + dy + far[1]), (x + far[0], y + far[1])]
    canvas.area(top, shade(colour, 1.1), depth)
    edge = [(x, y), (x + dx, y + dy), (x + dx, y + dy + thick), (x, y + thick)]
    canvas.area(edge, shade(colour, 0.65), depth)


def debris(canvas: Canvas, top: float, bottom: float, amount: float) -> None:
    """Scatter bits of masonry over the ground between two heights of the sheet."""
    rng = canvas.rng
    ys = np.sort(rng.uniform(top, bottom, int(90 * amount)))
    near = (ys - top) / max(1.0, bottom - top)
    sizes = canvas.unit * (0.35 + 1.1 * near) * rng.lognormal(-0.2, 0.6, len(ys))
    xs = rng.uniform(0, canvas.width, len(ys))
    _blocks(canvas, list(zip(xs.tolist(), ys.tolist(), strict=True)), sizes, CONCRETE)


def goods(canvas: Canvas, left: float, right: float, base: float, peak: float, kind: str) -> None:
    """Draw a heap of `stones`, `sacks`, `crates`, `fruit` or `sand`: nothing is broken."""
    rng = canvas.rng
    hill = _hill(rng, left, right, base, peak, 0.02 if kind == "sand" else 0.12)
    colours = {
        "stones": STONES,
        "sacks": SACKS,
        "crates": (*CLOTH, *SACKS),
        "fruit": FRUIT,
        "sand": ((206, 184, 140), (170, 150, 120), (150, 148, 144)),
    }[kind]
    body = pick(rng, colours)
    canvas.area([*hill, (right, base), (left, base)], shade(body, 0.95 if kind == "sand" else 0.5))
    size = max(canvas.unit * 1.2, peak * (0.05 if kind == "fruit" else 0.085))
    area = (right - left) * peak / (size * size * 2.0)
    spots = _spots(rng, hill, base, int(min(240, area if kind != "sand" else 40)))
    if kind == "stones":
        _blocks(canvas, spots, size * rng.uniform(0.75, 1.3, len(spots)), STONES)
        return
    for x, y in spots:
        scale = size * rng.uniform(0.75, 1.3)
        if kind == "sand":
            canvas.oval((x, y), scale * 0.16, scale * 0.1, shade(body, rng.uniform(0.8, 1.1)))
        else:
            _item(canvas, (x, y), scale, pick(rng, colours, 12), kind)


def _item(canvas: Canvas, spot: Point, size: float, colour: Colour, kind: str) -> None:
    x, y = spot
    if kind == "crates":
        turn = canvas.rng.normal(0, 0.1) * size
        canvas.area(
            [
                (x - size, y - size * 0.7),
                (x + size, y - size * 0.7 + turn),
                (x + size, y + size * 0.7 + turn),
                (x - size, y + size * 0.7),
            ],
            colour,
        )
        canvas.line([(x - size, y), (x + size, y + turn)], shade(colour, 0.6), 0.3)
        return
    flat = 0.55 if kind == "sacks" else 1.0
    canvas.oval((x, y + size * 0.2), size, size * flat, shade(colour, 0.55))
    canvas.oval((x, y), size, size * flat, colour)
    canvas.oval(
        (x - size * 0.2, y - size * 0.2 * flat), size * 0.4, size * 0.3 * flat, shade(colour, 1.15)
    )


def smoke(canvas: Canvas, x: float, y: float, spread: float, dark: bool) -> None:
    """Draw a plume rising from a place, leaning with the wind; lengths as shares of the sheet."""
    rng = canvas.rng
    rows, cols = 40, 48
    gy, gx = np.mgrid[0:rows, 0:cols].astype(np.float32)
    gy, gx = gy / rows, gx / cols
    wind = rng.normal(0, 0.5)
    strength = np.zeros((rows, cols), dtype=np.float32)
    for step in np.linspace(0, 1, 26):
        cx = x + wind * step * y + rng.normal(0, 0.12 * spread)
        cy, size = y * (1 - step), spread * (0.12 + 0.5 * step) * rng.uniform(0.6, 1.2)
        blob = np.exp(-(((gx - cx) / size) ** 2) - ((gy - cy) / size) ** 2)
        strength = np.maximum(strength, blob * rng.uniform(0.5, 0.95) * (1 - 0.5 * step))
    grey = rng.uniform(30, 70) if dark else rng.uniform(150, 210)
    canvas.veil((grey, grey * 0.98, grey * 0.95), strength)


def clouds(canvas: Canvas, floor: float, amount: float) -> None:
    """Draw clouds down to a height given as a share of the sheet."""
    rng = canvas.rng
    rows, cols = 24, 32
    coarse = rng.random((rows // 4, cols // 8)).repeat(4, axis=0).repeat(8, axis=1)
    fine = rng.random((rows, cols))
    field = 0.6 * coarse + 0.4 * fine
    for _ in range(2):
        field = (field + np.roll(field, 1, 0) + np.roll(field, 1, 1) + np.roll(field, -1, 1)) / 4
    fade = np.clip((floor - np.arange(rows) / rows) / max(0.05, floor), 0, 1)[:, None]
    strength = np.clip((field - 0.62 + 0.2 * amount) * 6, 0, 0.9) * np.sqrt(fade)
    tone = canvas.mood.sky_low
    canvas.veil((tone[0] + 22, tone[1] + 20, tone[2] + 20), strength.astype(np.float32))
