"""A street that runs away from the viewer, in one-point perspective."""

from __future__ import annotations

import numpy as np

from archiveprobe.task.demo.building import Wall, upright
from archiveprobe.task.demo.canvas import Canvas, Point, mix, pick, shade, vary
from archiveprobe.task.demo.heaps import debris, rubble
from archiveprobe.task.demo.props import laundry, person
from archiveprobe.task.demo.streets import Fate, haze_and_smoke, house, sky, skyline
from archiveprobe.task.demo.vehicles import car_front


class _Lens:
    """A camera in the middle of a street: metres in, points on the sheet out."""

    def __init__(self, canvas: Canvas) -> None:
        rng = canvas.rng
        self.x = canvas.width * rng.uniform(0.3, 0.7)
        self.y = canvas.height * rng.uniform(0.46, 0.62)
        self.focal = canvas.unit * rng.uniform(85, 120)
        self.eye = rng.uniform(1.6, 3.2)

    def at(self, x: float, y: float, z: float) -> Point:
        """Project a point `x` m right, `y` m up, `z` m away."""
        return (self.x + self.focal * x / z, self.y + self.focal * (self.eye - y) / z)


def _far(z: float) -> float:
    return float(1.0 - np.exp(-z / 45.0))


def _street_side(canvas: Canvas, lens: _Lens, side: float, half: float, severity: float) -> None:
    rng = canvas.rng
    ends = np.cumsum(np.concatenate([[rng.uniform(3.2, 4.5)], rng.uniform(6, 12, 7)]))
    struck = int(rng.integers(0, 3))
    for i in range(len(ends) - 2, -1, -1):
        near, far, high = float(ends[i]), float(ends[i + 1]), rng.uniform(6, 17)
        fate = Fate.draw(rng, severity, i == struck)
        x = side * half
        street = Wall(
            lens.at(x, 0, near),
            lens.at(x, high, near),
            lens.at(x, 0, far),
            lens.at(x, high, far),
            _far((near + far) / 2) * 0.8,
        )
        storeys = max(2, round(high / 3.2))
        if not fate.severity or rng.random() < 0.5:
            _gable(canvas, lens, (x, near), side, high, street.depth)
        house(canvas, street, fate, storeys, max(2, round((far - near) / 2.8)))
        if fate.severity:
            _heap_at(canvas, lens, (x, (near + far) / 2), high * fate.severity, side)


def _gable(
    canvas: Canvas, lens: _Lens, foot: Point, side: float, high: float, depth: float
) -> None:
    x, z = foot
    wall = upright(
        lens.at(x, 0, z)[0],
        lens.at(x + side * 9, 0, z)[0],
        lens.at(x, high, z)[1],
        lens.at(x, 0, z)[1],
        depth,
    )
    colour = shade(pick(canvas.rng, ((180, 170, 154), (150, 146, 140), (196, 178, 156))), 0.8)
    canvas.area(wall.patch(0, 0, 1, 1), colour, depth)


def _heap_at(canvas: Canvas, lens: _Lens, foot: Point, size: float, side: float) -> None:
    rng = canvas.rng
    x, z = foot
    reach = 1.5 + size * rng.uniform(0.2, 0.4)
    a, b = sorted((lens.at(x + side, 0, z)[0], lens.at(x - side * reach, 0, z)[0]))
    base = lens.at(x, 0, max(2.5, z * 0.85))[1]
    peak = lens.focal * (0.5 + size * rng.uniform(0.15, 0.35)) / z
    rubble(canvas, a, b, base, peak, _far(z) * 0.7)


def canyon(canvas: Canvas, severity: float) -> None:
    """Draw a street that runs away from the viewer between two rows of houses."""
    rng = canvas.rng
    lens = _Lens(canvas)
    sky(canvas, lens.y)
    skyline(canvas, lens.y + canvas.unit, severity * 0.5)
    haze_and_smoke(canvas, lens.y, severity)
    half = rng.uniform(3.6, 6.0)
    _carriageway(canvas, lens, half)
    for side in (-1.0, 1.0):
        _street_side(canvas, lens, side, half, severity)
    rough = severity if severity else (rng.uniform(0.1, 0.4) if rng.random() < 0.2 else 0.0)
    debris(canvas, lens.y + canvas.unit * 6, canvas.height, rough)
    if rng.random() < 0.25:
        laundry(canvas, lens.at(-half, 5, 12), lens.at(half, 5.4, 12))
    _traffic(canvas, lens, half, severity)


def _carriageway(canvas: Canvas, lens: _Lens, half: float) -> None:
    rng, soil = canvas.rng, canvas.mood.soil
    road = mix(soil, (92, 92, 96), rng.uniform(0.2, 0.9))
    kerb = half - rng.uniform(0.9, 1.5)
    ends = [
        lens.at(-kerb, 0, 1.2),
        lens.at(-kerb, 0, 90),
        lens.at(kerb, 0, 90),
        lens.at(kerb, 0, 1.2),
    ]
    canvas.area(ends, road)
    for side in (-1, 1):
        canvas.line(
            [lens.at(side * kerb, 0, 1.2), lens.at(side * kerb, 0, 60)],
            vary(rng, shade(soil, 1.2)),
            0.5,
        )


def _traffic(canvas: Canvas, lens: _Lens, half: float, severity: float) -> None:
    rng = canvas.rng
    for z in np.sort(rng.uniform(6, 30, int(rng.poisson(4))))[::-1]:
        x, (_, base) = rng.uniform(-half, half) * 0.8, lens.at(0, 0, z)
        scale = lens.focal / float(z)
        spot = lens.at(float(x), 0, float(z))[0]
        if rng.random() < 0.3 - 0.2 * severity:
            car_front(canvas, spot, base, 1.8 * scale, _far(float(z)) * 0.7)
        else:
            person(canvas, spot, base, 1.7 * scale, _far(float(z)) * 0.7)
