"""Places that are not a plain street: close walls, roofs, heaps, markets, building sites."""

from __future__ import annotations

import numpy as np

from archiveprobe.task.demo.building import CLOTH, Cell, Wall, draw_style, upright
from archiveprobe.task.demo.canvas import Canvas, Colour, Point, pick, shade, vary
from archiveprobe.task.demo.damage import WHOLE, draw_building, draw_harm, draw_open_cell
from archiveprobe.task.demo.heaps import debris, goods, rubble
from archiveprobe.task.demo.props import laundry, person, stall, tree
from archiveprobe.task.demo.streets import front, haze_and_smoke, sky, skyline


def close_wall(canvas: Canvas, severity: float) -> None:
    """Draw one facade that fills the picture."""
    rng = canvas.rng
    base = canvas.height * rng.uniform(0.84, 1.1)
    sky(canvas, base)
    tops = canvas.height * rng.uniform(-0.25, 0.16, 2)
    wall = Wall(
        (-0.05 * canvas.width, base),
        (-0.05 * canvas.width, tops[0]),
        (1.05 * canvas.width, base + canvas.unit * rng.normal(0, 3)),
        (1.05 * canvas.width, tops[1]),
    )
    bays = int(rng.integers(3, 5)) + int(canvas.width > canvas.height)
    style = draw_style(rng, storeys=int(rng.integers(3, 5)), bays=bays)
    draw_building(canvas, wall, style, draw_harm(rng, style, severity) if severity else WHOLE)
    if severity:
        rubble(
            canvas,
            -canvas.width * 0.1,
            canvas.width * rng.uniform(0.5, 1.2),
            base + canvas.unit * 4,
            canvas.height * (0.05 + 0.25 * severity),
        )
    elif rng.random() < 0.25:
        tree(canvas, rng.uniform(0, canvas.width), base + canvas.unit * 5, canvas.height * 0.6)
    if rng.random() < 0.4:
        laundry(canvas, (0, canvas.height * 0.3), (canvas.width, canvas.height * 0.36))
    for x in rng.uniform(0.1, 0.9, int(rng.integers(0, 3))) * canvas.width:
        person(canvas, float(x), min(base + canvas.unit * 5, canvas.height), canvas.unit * 32)


def roofs(canvas: Canvas, severity: float) -> None:
    """Draw a quarter seen from above: blocks with flat roofs."""
    rng = canvas.rng
    canvas.pen.rectangle((0, 0, *canvas.size), fill=canvas.ink(canvas.mood.soil))
    step = canvas.unit * rng.uniform(17, 26)
    skew = rng.uniform(0.2, 0.6)
    rows, cols = int(canvas.height / (step * 0.7)) + 4, int(canvas.width / step) + 5
    for row in range(rows):
        for col in range(-2, cols):
            x, y = (col + skew * (row % 3)) * step * 1.12, (row + 0.5) * step * 0.72
            depth = 0.5 * (1 - row / rows)
            if rng.random() < 0.1:
                tree(canvas, x + step / 2, y, step * 0.6, depth)
            elif severity and rng.random() < 0.12 + 0.55 * severity:
                _hit_block(canvas, x, y, step, depth)
            else:
                _block(canvas, x, y, step, depth)


def _block(canvas: Canvas, x: float, y: float, step: float, depth: float) -> None:
    rng = canvas.rng
    wide, high = step * rng.uniform(0.75, 0.98), step * rng.uniform(0.35, 1.0)
    style = draw_style(rng, storeys=max(1, int(high / step * 4)), bays=3)
    deep = step * rng.uniform(0.4, 0.6)
    lean, top = deep * 0.4, y - high
    far_left, far_right = (x + lean, top - deep), (x + wide + lean, top - deep)
    roof = [(x, top), far_left, far_right, (x + wide, top)]
    canvas.area(roof, vary(rng, shade(style.wall, 1.08)), depth)
    _roof_boxes(canvas, (x, top), (wide, deep), step * 0.1, depth)
    side = [(x + wide, y), (x + wide, top), far_right, (x + wide + lean, y - deep)]
    canvas.area(side, shade(style.wall, 0.6), depth)
    wall = upright(x, x + wide, top, y, depth)
    canvas.area(wall.patch(0, 0, 1, 1), style.wall, depth)
    for v in np.linspace(0.2, 0.75, style.storeys):
        for u in (0.16, 0.44, 0.72):
            canvas.area(wall.patch(u, v, u + 0.15, v + 0.4 / style.storeys), (66, 72, 80), depth)


def _roof_boxes(canvas: Canvas, corner: Point, reach: Point, size: float, depth: float) -> None:
    rng = canvas.rng
    for _ in range(int(rng.integers(0, 4))):
        x = corner[0] + rng.uniform(0.2, 0.9) * reach[0]
        y = corner[1] - rng.uniform(0.2, 0.8) * reach[1]
        box = [(x, y), (x + size, y), (x + size, y - size), (x, y - size)]
        canvas.area(box, pick(rng, (*CLOTH, (230, 230, 228))), depth)


def _hit_block(canvas: Canvas, x: float, y: float, step: float, depth: float) -> None:
    rng = canvas.rng
    if rng.random() < 0.5:
        wall = upright(x, x + step * 0.9, y - step * rng.uniform(0.5, 0.9), y, depth)
        style = draw_style(rng, storeys=3, bays=3)
        draw_building(canvas, wall, style, draw_harm(rng, style, 0.95))
    rubble(canvas, x - step * 0.1, x + step, y, step * rng.uniform(0.25, 0.5), depth)


def ruins(canvas: Canvas, severity: float) -> None:
    """Draw a heap of rubble from near, with people searching."""
    rng = canvas.rng
    horizon = canvas.height * rng.uniform(0.35, 0.6)
    sky(canvas, horizon)
    skyline(canvas, horizon, severity * 0.5)
    haze_and_smoke(canvas, horizon, severity)
    for x in rng.uniform(0.05, 0.9, int(rng.integers(1, 5))) * canvas.width:
        person(canvas, float(x), horizon + canvas.unit * rng.uniform(4, 12), canvas.unit * 18)
    rubble(
        canvas,
        -canvas.width * 0.3,
        canvas.width * 1.2,
        canvas.height * 1.02,
        canvas.height * rng.uniform(0.45, 0.6),
    )
    debris(canvas, canvas.height * 0.85, canvas.height, 0.5)


def yard(canvas: Canvas, severity: float) -> None:
    """Draw a big heap of goods, stones or sacks in front of houses."""
    rng = canvas.rng
    front(canvas, severity)
    kind = str(rng.choice(["stones", "sacks", "crates", "fruit", "sand"]))
    left = canvas.width * rng.uniform(-0.2, 0.2)
    goods(
        canvas,
        left,
        left + canvas.width * rng.uniform(0.7, 1.1),
        canvas.height * 1.01,
        canvas.height * rng.uniform(0.28, 0.5),
        kind,
    )
    if rng.random() < 0.6:
        person(canvas, rng.uniform(0.1, 0.9) * canvas.width, canvas.height, canvas.unit * 42)


def market(canvas: Canvas, severity: float) -> None:
    """Draw a crowded market."""
    rng = canvas.rng
    front(canvas, severity)
    base = canvas.height * 0.86
    for x in np.arange(rng.uniform(0, 0.15), 1.1, rng.uniform(0.26, 0.4)):
        stall(canvas, float(x) * canvas.width, base, canvas.unit * rng.uniform(26, 34))
    for share in np.sort(rng.random(int(rng.integers(4, 10)))):
        person(
            canvas,
            rng.uniform(0, canvas.width),
            base + canvas.height * 0.15 * float(share),
            canvas.unit * (20 + 12 * float(share)),
        )


def site(canvas: Canvas, severity: float) -> None:
    """Draw a building site: bare frame, open storeys, starter bars, sand, a crane."""
    rng = canvas.rng
    base = canvas.height * rng.uniform(0.74, 0.86)
    sky(canvas, base)
    skyline(canvas, base - canvas.unit * 3, severity)
    left = canvas.width * rng.uniform(0.05, 0.3)
    wall = upright(
        left,
        left + canvas.width * rng.uniform(0.45, 0.65),
        canvas.height * rng.uniform(0.1, 0.3),
        base,
        0.05,
    )
    _bare_frame(canvas, wall)
    if rng.random() < 0.6:
        _crane(canvas, base)
    goods(
        canvas,
        0,
        canvas.width * rng.uniform(0.3, 0.6),
        base + canvas.unit * 4,
        canvas.height * 0.14,
        str(rng.choice(["sand", "stones", "sacks"])),
    )
    person(canvas, rng.uniform(0.4, 0.9) * canvas.width, base + canvas.unit * 6, canvas.unit * 18)


def _bare_frame(canvas: Canvas, wall: Wall) -> None:
    rng = canvas.rng
    storeys, bays = int(rng.integers(3, 7)), int(rng.integers(3, 6))
    style = draw_style(rng, storeys=storeys, bays=bays)
    canvas.area(wall.patch(0, 0, 1, 1), (150, 148, 144))
    done = int(rng.integers(0, storeys))
    for row in range(storeys):
        for bay in range(bays):
            cell: Cell = (row, bay)
            if row >= done or rng.random() < 0.3:
                draw_open_cell(canvas, wall, style, cell)
    for u in np.linspace(0.0, 1.0, bays + 1):
        canvas.area(wall.patch(u - 0.012, 0, u + 0.012, 1.0), (172, 168, 160))
        for shift in (-0.012, 0.0, 0.012):
            canvas.line([wall.at(u + shift, 1.0), wall.at(u + shift, 1.08)], (96, 72, 58), 0.25)


def _crane(canvas: Canvas, base: float) -> None:
    rng = canvas.rng
    x, top = canvas.width * rng.uniform(0.7, 0.95), canvas.height * rng.uniform(0.02, 0.12)
    yellow: Colour = (226, 176, 52)
    canvas.line([(x, base), (x, top)], yellow, 1.0, 0.2)
    canvas.line([(x - canvas.width * 0.5, top), (x + canvas.width * 0.15, top)], yellow, 0.8, 0.2)
    hook = x - canvas.width * rng.uniform(0.1, 0.45)
    canvas.line([(hook, top), (hook, top + canvas.height * 0.2)], (60, 60, 60), 0.25)
