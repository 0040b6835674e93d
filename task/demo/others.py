"""Pictures that are not of a street: rooms, people, posters, open land."""

from __future__ import annotations

import numpy as np

from archiveprobe.task.demo.building import CLOTH, draw_style, upright
from archiveprobe.task.demo.canvas import Canvas, Colour, Point, mix, pick, shade, vary
from archiveprobe.task.demo.canyon import canyon
from archiveprobe.task.demo.heaps import clouds, rubble
from archiveprobe.task.demo.lettering import scribble
from archiveprobe.task.demo.props import SKIN, person, poles, tree
from archiveprobe.task.demo.streets import front, sky


def room(canvas: Canvas, severity: float) -> None:
    """Draw a living room; with `severity` its wall is open and rubble lies on the floor."""
    rng = canvas.rng
    w, h = canvas.width, canvas.height
    wall, floor = h * rng.uniform(0.58, 0.7), pick(rng, ((150, 120, 90), (170, 164, 156)))
    paint = pick(rng, ((214, 206, 190), (180, 196, 186), (206, 184, 170), (176, 184, 200)))
    canvas.pen.rectangle((0, 0, w, wall), fill=canvas.ink(paint))
    canvas.pen.rectangle((0, wall, w, h), fill=canvas.ink(floor))
    house = upright(w * 0.1, w * 0.9, h * 0.05, wall)
    if severity:
        edge = [house.at(u, rng.uniform(0.75, 1.05)) for u in np.linspace(0.1, 0.75, 9)]
        low = [house.at(u, rng.uniform(0.0, 0.25)) for u in np.linspace(0.8, 0.05, 9)]
        canvas.area([*edge, *low], mix(canvas.mood.sky_low, (150, 146, 140), 0.2))
    style = draw_style(rng, storeys=1, bays=2)
    canvas.area(house.patch(0.62, 0.35, 0.92, 0.85), style.frame)
    canvas.area(house.patch(0.64, 0.38, 0.9, 0.82), canvas.mood.sky_low)
    sofa = pick(rng, CLOTH)
    canvas.area(house.patch(0.05, -0.16, 0.6, 0.2), shade(sofa, 0.8))
    canvas.area(house.patch(0.02, -0.2, 0.63, 0.04), sofa)
    canvas.area(
        [(w * 0.2, h * 0.97), (w * 0.3, wall * 1.22), (w * 0.8, wall * 1.22), (w * 0.9, h * 0.97)],
        pick(rng, CLOTH),
    )
    if severity:
        rubble(canvas, w * 0.05, w * 1.1, h, h * (0.15 + 0.25 * severity))
    if rng.random() < 0.5:
        person(canvas, w * rng.uniform(0.2, 0.8), h * 0.96, h * 0.62)


def portrait(canvas: Canvas, severity: float) -> None:
    """Draw someone facing the camera before a street."""
    rng = canvas.rng
    (front if rng.random() < 0.6 else canyon)(canvas, severity)
    x, size = canvas.width * rng.uniform(0.3, 0.7), canvas.unit * rng.uniform(14, 20)
    y = canvas.height * rng.uniform(0.48, 0.6)
    coat, skin = pick(rng, CLOTH), pick(rng, SKIN)
    canvas.oval((x, y + size * 3.3), size * 2.2, size * 2.2, coat)
    canvas.area(
        [
            (x - size * 0.35, y),
            (x + size * 0.35, y),
            (x + size * 0.5, y + size * 1.5),
            (x - size * 0.5, y + size * 1.5),
        ],
        shade(skin, 0.85),
    )
    hair = pick(rng, ((36, 30, 28), (60, 44, 36), (210, 206, 200), *CLOTH[:2]))
    canvas.oval((x, y - size * 0.25), size * 0.98, size * 1.15, hair)
    canvas.oval((x, y), size * 0.8, size * 1.02, skin)
    _face(canvas, (x, y), size, skin, hair)


def _face(canvas: Canvas, spot: Point, size: float, skin: Colour, hair: Colour) -> None:
    x, y = spot
    for side in (-1, 1):
        canvas.oval(
            (x + side * size * 0.32, y - size * 0.1), size * 0.11, size * 0.08, (40, 32, 30)
        )
        brow = [(x + side * size * 0.15, y - size * 0.3), (x + side * size * 0.5, y - size * 0.3)]
        canvas.line(brow, hair, 0.6)
    canvas.line(
        [(x, y), (x - size * 0.08, y + size * 0.25), (x + size * 0.06, y + size * 0.28)],
        shade(skin, 0.75),
        0.4,
    )
    mouth = [
        (x - size * 0.25, y + size * 0.52),
        (x, y + size * canvas.rng.uniform(0.5, 0.62)),
        (x + size * 0.25, y + size * 0.52),
    ]
    canvas.line(mouth, (140, 70, 66), 0.7)


def poster(canvas: Canvas, severity: float) -> None:
    """Draw a notice: a flat ground with lines of writing."""
    rng = canvas.rng
    ground = pick(rng, (*CLOTH, (226, 220, 206), (206, 214, 220)), 14)
    canvas.pen.rectangle((0, 0, *canvas.size), fill=canvas.ink(ground))
    ink: Colour = (244, 240, 230) if sum(ground) < 330 + severity else (36, 34, 40)
    w, h = canvas.width, canvas.height
    if rng.random() < 0.6:
        canvas.oval((w / 2, h * 0.2), h * 0.11, h * 0.11, pick(rng, CLOTH))
    lines = int(rng.integers(3, 7))
    for line in range(lines):
        y = h * (0.38 + 0.56 * line / lines)
        inset = w * rng.uniform(0.08, 0.22)
        scribble(canvas.pen, (inset, y, w - inset, y + h * 0.36 / lines), canvas.ink(ink), rng)


def open_land(canvas: Canvas, severity: float) -> None:
    """Draw clouds over hills, fields or the sea."""
    rng = canvas.rng
    horizon = canvas.height * rng.uniform(0.45, 0.85)
    sky(canvas, horizon)
    clouds(canvas, horizon / canvas.height, rng.uniform(0.5, 1.3))
    ground = pick(rng, ((98, 118, 72), (60, 104, 132), (186, 162, 112)), 14)
    for step in (0.0, 0.35, 0.7):
        y = horizon + (canvas.height - horizon) * step
        ridge = [(x, y - canvas.unit * 5 * rng.random()) for x in np.linspace(0, canvas.width, 9)]
        canvas.area(
            [*ridge, (canvas.width, canvas.height), (0, canvas.height)],
            shade(vary(rng, ground), 1 - 0.15 * step),
            0.5 - 0.5 * step + severity,
        )
    for share in np.sort(rng.random(int(rng.integers(2, 9)))):
        y = horizon + (canvas.height - horizon) * float(share)
        tree(canvas, rng.uniform(0, canvas.width), y, canvas.unit * (8 + 18 * share))
    if rng.random() < 0.3:
        poles(canvas, canvas.height * 0.95, canvas.unit * 40)
