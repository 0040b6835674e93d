"""Cars, from the side and from the front."""

from __future__ import annotations

from archiveprobe.task.demo.canvas import Canvas, Colour, Point, pick, shade

_PAINT: tuple[Colour, ...] = (
    (224, 224, 222),
    (60, 62, 66),
    (168, 40, 40),
    (70, 96, 140),
    (222, 184, 70),
    (150, 154, 156),
)


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
    glass = [
        at(0.24, 0.92),
        at(0.32, 0.8 + 0.75 * roof),
        at(0.65, 0.8 + 0.75 * roof),
        at(0.78, 0.9),
    ]
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

    def tier(foot: float, head: float, low: float, top: float) -> list[Point]:
        return [
            (x - half * foot, base - high * low),
            (x - half * head, base - high * top),
            (x + half * head, base - high * top),
            (x + half * foot, base - high * low),
        ]

    canvas.area(tier(1, 1, 0, 0.55), paint, depth)
    canvas.area(tier(0.92, 0.66, 0.52, 1), shade(paint, 0.9), depth)
    canvas.area(tier(0.76, 0.58, 0.56, 0.92), (70, 84, 94), depth)
    lamp: Colour = (250, 240, 200) if rng.random() < 0.5 else (190, 40, 36)
    for side in (-1, 1):
        spot = (x + side * half * 0.72, base - high * 0.36)
        canvas.oval(spot, half * 0.16, half * 0.1, lamp, depth)
        outer, inner = x + side * half * 0.9, x + side * half * 0.55
        top = base + high * 0.1
        tyre = [(outer, base), (inner, base), (inner, top), (outer, top)]
        canvas.area(tyre, (28, 28, 30), depth)
    plate = [(x - half * 0.4, base - high * 0.15), (x + half * 0.4, base - high * 0.15)]
    canvas.line(plate, shade(paint, 0.5), 0.8, depth)
