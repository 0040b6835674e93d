"""Draw one street scene: houses, heaps and people in some light, intact or destroyed.

Everything is drawn in a box: (left, base, width, height) in pixels. Points in it are shares of
the box, counted to the right from its left edge and up from its base.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float64]
Box = tuple[float, float, float, float]

SCALE = 2  # drawn at twice the size and reduced: the edges of ImageDraw are not smooth
SIZES = ((320, 240), (336, 224), (360, 256), (240, 320), (256, 360), (288, 288), (384, 256))
# Day, overcast, dusk, night, dust, faded: share of images, sky above (RGB), sky at the horizon
# (RGB), haze, exposure, saturation. Chosen without a look at the label: colour must not tell it.
LIGHTS = (
    (0.36, 88, 146, 206, 190, 214, 228, 0.35, 1.02, 1.05),
    (0.17, 168, 174, 180, 206, 208, 208, 0.55, 0.94, 0.75),
    (0.15, 84, 92, 146, 238, 172, 116, 0.55, 0.84, 1.15),
    (0.09, 20, 28, 58, 58, 62, 92, 0.5, 0.64, 0.9),
    (0.15, 196, 176, 140, 216, 196, 160, 0.9, 0.95, 0.75),
    (0.08, 170, 170, 168, 214, 212, 208, 0.5, 1.0, 0.08),
)
WALLS = ((206, 190, 162), (170, 168, 166), (214, 206, 192), (196, 164, 130), (176, 186, 190))
CONCRETE = ((168, 164, 158), (140, 136, 130), (190, 182, 168), (112, 108, 104), (176, 152, 128))
CLOTH = ((186, 58, 54), (52, 92, 150), (62, 128, 84), (222, 176, 64), (232, 228, 220), (46, 48, 54))
SOIL = ((150, 140, 124), (118, 118, 120), (176, 158, 128), (96, 96, 100))
SKIN = ((196, 148, 112), (160, 112, 82), (214, 170, 136))
DARK, GLASS = np.array([44.0, 42.0, 44.0]), np.array([62.0, 70.0, 80.0])


class Scene:
    """A sheet to draw on, with its light; `unit` is a hundredth of the short side in pixels."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.width, self.height = (SCALE * side for side in SIZES[rng.integers(len(SIZES))])
        self.unit = min(self.width, self.height) / 100
        self.image = Image.new("RGB", (self.width, self.height))
        self.pen = ImageDraw.Draw(self.image)
        light = np.array(LIGHTS)[rng.choice(len(LIGHTS), p=[light[0] for light in LIGHTS])]
        self.sky_top, self.sky_low = light[1:4] + rng.normal(0, 12), light[4:7] + rng.normal(0, 12)
        self.haze, self.exposure, self.saturation = light[7:] * rng.uniform(0.85, 1.15, 3)

    def pick(self, colours: ArrayLike, spread: float = 12.0) -> Array:
        """Return one of the RGB colours, a little lighter or darker."""
        palette = np.asarray(colours, float)
        colour: Array = palette[self.rng.integers(len(palette))] + self.rng.normal(0, spread)
        return colour

    def fill(self, box: Box, points: ArrayLike, colour: Array, depth: float = 0.0) -> None:
        """Fill a polygon with corners (n, 2), at a depth in the haze from 0 to 1 (far)."""
        left, base, width, height = box
        corners = np.asarray(points, float) * (width, -height) + (left, base)
        seen = colour + (self.sky_low - colour) * min(0.85, depth * self.haze)
        ink = tuple(max(0, min(255, int(value))) for value in seen.tolist())
        self.pen.polygon(corners.ravel().tolist(), fill=ink)

    def finish(self) -> Image.Image:
        """Return the image at its final size, unevenly lit, tinted and with a camera's noise."""
        rng = self.rng
        pixels = np.asarray(self.image.reduce(SCALE), np.float32)
        grey = pixels.mean(axis=2, keepdims=True)
        pixels = grey + (pixels - grey) * np.float32(self.saturation)
        # Contrast turns around a middle tone, so that it alone makes no image lighter.
        pixels = 118 + (pixels - 118) * np.float32(rng.uniform(0.9, 1.15))
        patches = Image.fromarray(rng.uniform(0.9, 1.05, (4, 5)).astype(np.float32))
        light = np.asarray(patches.resize(pixels.shape[1::-1], Image.Resampling.BICUBIC))
        warm = rng.normal(0, 0.04)
        tint = np.array([1 + warm, 1, 1 - warm], np.float32) * np.float32(self.exposure)
        noise = rng.standard_normal(light.shape, np.float32) * np.float32(rng.uniform(1, 5))
        pixels = pixels * light[..., None] * tint + noise[..., None]
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw_scene(destroyed: bool, rng: np.random.Generator) -> Image.Image:
    """Draw an image of a destroyed or an intact place, 224 to 384 pixels a side."""
    scene = Scene(rng)
    shares = np.array([kind[1 + destroyed] for kind in KINDS])
    draw = KINDS[rng.choice(len(KINDS), p=shares / shares.sum())][0]
    # Most destroyed places are hit hard; one in four so slightly that it is hard to see.
    low, high = ((0.75, 1.0), (0.45, 0.75), (0.14, 0.35))[rng.choice(3, p=(0.5, 0.25, 0.25))]
    draw(scene, rng.uniform(low, high) if destroyed else 0.0)
    return scene.finish()


def rectangle(left: float, base: float, right: float, top: float) -> list[tuple[float, float]]:
    """Return the corners of a rectangle."""
    return [(left, base), (left, top), (right, top), (right, base)]


def draw_house(
    scene: Scene, box: Box, severity: float, *, depth: float = 0.0, bare: bool = False
) -> None:
    """Draw a facade; `severity` bites into it from above, opens, burns and holes rooms.

    A `bare` one is a building site: most rooms are open although nothing is broken.
    """
    rng, along, top = scene.rng, np.linspace(0, 1, 12), np.ones(12)
    colour, frame = scene.pick(CONCRETE if bare else WALLS), scene.pick(CLOTH)
    if rng.random() < 1.3 * severity - 0.15:
        bite = np.exp(-(((along - rng.uniform(0, 1)) / rng.uniform(0.15, 0.5)) ** 2))
        top = 1 - severity * rng.uniform(0.4, 0.9) * bite + rng.uniform(-0.09, 0.05, 12)
        back = [(0, 0), *zip(along, top + rng.uniform(0, 0.16, 12), strict=True), (1, 0)]
        scene.fill(box, back, colour * 0.5, depth)
    scene.fill(box, [(0, 0), *zip(along, top, strict=True), (1, 0)], colour, depth)
    left, base, width, height = box
    storeys, bays = (min(6, max(2, round(side / scene.unit / 11))) for side in (height, width))
    balconies = rng.choice([0, 0.2, 0.6])
    for v in np.arange(storeys) / storeys:
        for u in np.arange(bays) / bays:
            if v + 0.8 / storeys < np.interp(u + 0.5 / bays, along, top):
                room = (left + u * width, base - v * height, width / bays, height / storeys)
                open_share = 0.85 if bare else 0.42 * severity
                draw_room(scene, room, frame, open_share, 0.35 * severity, depth)
                if v and not severity and rng.random() < balconies:
                    scene.fill(room, rectangle(0.08, 0, 0.92, 0.36), colour * 0.75, depth)
    for _ in range(rng.poisson(2.5 * severity)):
        angles, radii = np.sort(rng.uniform(0, 2 * np.pi, 11)), rng.uniform(0.04, 0.18, (11, 1))
        centre = rng.uniform(0.15, 0.7, 2) * (1, top.min())
        hole = centre + radii * np.stack([np.cos(angles), np.sin(angles)], 1)
        scene.fill(box, hole, DARK, depth)


def draw_room(
    scene: Scene, room: Box, frame: Array, open_share: float, burnt_share: float, depth: float
) -> None:
    """Draw a room seen from outside: without its outer wall, or a window, perhaps with soot."""
    chance = scene.rng.random()
    if chance < open_share:
        back = scene.pick(CONCRETE) * scene.rng.uniform(0.3, 0.7)
        scene.fill(room, rectangle(0.04, 0, 0.96, 0.94), back * 0.5, depth)
        scene.fill(room, rectangle(0.2, 0.14, 0.8, 0.8), back, depth)
        return
    scene.fill(room, rectangle(0.2, 0.22, 0.8, 0.84), frame, depth)
    scene.fill(room, rectangle(0.25, 0.27, 0.75, 0.8), GLASS, depth)
    if chance > 1 - burnt_share:
        scene.fill(room, rectangle(0.15, 0.3, 0.85, 1.1), DARK, depth)


def draw_heap(scene: Scene, box: Box, *, goods: bool = False) -> None:
    """Draw a heap of rubble, or of `goods`: of the same shape, but colourful and tidier."""
    rng, along, summit = scene.rng, np.linspace(0, 1, 15), scene.rng.uniform(0.3, 0.7)
    rise = np.interp(along, (0, summit, 1), (0, 1, 0)) ** 0.75 * (1 + rng.normal(0, 0.15, 15))
    colours = np.array(CLOTH if goods else CONCRETE)
    scene.fill(box, np.stack([along, rise], axis=1), scene.pick(colours) * 0.6)
    left, base, width, height = box
    size = max(1.4 * scene.unit, 0.09 * height)
    count = int(min(120, 10 + width * height / (2.5 * size**2)))
    u = rng.uniform(0, 1, count)
    v = np.interp(u, along, rise) * (1 - rng.random(count) ** 0.8)
    turn, jitter, spread = (0.4, 0.1, 0.3) if goods else (np.pi, 0.3, 0.5)
    angles = np.array([0.6, np.pi - 0.6, np.pi + 0.6, -0.6]) + rng.normal(0, turn, (count, 1))
    angles += rng.normal(0, jitter, (count, 4))
    pieces = np.stack([np.cos(angles), np.sin(angles)], axis=2)
    pieces *= rng.lognormal(0, spread, (count, 1, 1)).clip(0.3, 3.5)
    for k in np.argsort(-v):
        place = (left + u[k] * width, base - v[k] * height, size, 0.85 * size)
        colour = scene.pick(colours, 18)
        scene.fill(place, pieces[k] - (0, 0.4), colour * 0.5)
        scene.fill(place, pieces[k], colour)


def draw_person(scene: Scene, x: float, base: float, tall: float) -> None:
    """Draw somebody standing; `tall` from sole to crown."""
    step = scene.rng.uniform(0.04, 0.14)
    legs = [(-0.1, 0.5), (0.1, 0.5), (step, 0), (0.02, 0.4), (-step, 0)]
    coat = [(-0.1, 0.45), (-0.13, 0.82), (0.13, 0.82), (0.1, 0.45)]
    head = [(0.07 * np.cos(a), 0.08 * np.sin(a) + 0.91) for a in np.linspace(0, 6, 12)]
    for shape, colours in ((legs, CLOTH[-1:]), (coat, CLOTH), (head, SKIN)):
        scene.fill((x, base, tall, tall), shape, scene.pick(colours))


def draw_people(scene: Scene, base: float, tall: float) -> None:
    """Draw people between `base` and the lower edge, the nearer ones larger."""
    for share in np.sort(scene.rng.random(scene.rng.poisson(4))):
        foot = base + (scene.height - base) * (0.1 + 0.9 * share)
        x = scene.rng.uniform(0, scene.width)
        draw_person(scene, x, foot, (1 + share) * tall * scene.unit)


def draw_ground(scene: Scene, horizon: float) -> None:
    """Paint the sky with its clouds down to the horizon, and the ground below it."""
    rng, area = scene.rng, (scene.width, int(horizon) + 1)
    ramp = np.linspace(0, 1, area[1])[:, None, None]
    sky = np.clip(scene.sky_top + (scene.sky_low - scene.sky_top) * ramp, 0, 255).astype(np.uint8)
    scene.image.paste(Image.fromarray(np.repeat(sky, area[0], axis=1)))
    clouds = np.clip((rng.random((6, 8)) - rng.uniform(0.4, 1)) * 400, 0, 150).astype(np.uint8)
    mask = Image.fromarray(clouds).resize(area, Image.Resampling.BICUBIC)
    scene.image.paste((225, 225, 225), (0, 0, *area), mask)
    ground = (0, scene.height, scene.width, scene.height - horizon)
    soil = scene.pick(SOIL)
    scene.fill(ground, rectangle(0, 0, 1, 1), soil)
    scene.fill(ground, rectangle(0, 0, 1, rng.uniform(0.65, 0.8)), soil * 0.5 + 46)


def draw_row(
    scene: Scene, base: float, severity: float, *, scale: float = 1.0, depth: float = 0.1
) -> None:
    """Draw houses side by side; each is hit with chance `severity`, and one for certain."""
    rng, unit = scene.rng, scene.unit * scale
    x, struck = -rng.uniform(0, 25) * unit, rng.uniform(0.25, 0.6) * scene.width
    while x < scene.width:
        wide, high = rng.uniform(26, 55) * unit, min(rng.uniform(34, 66) * unit, 0.92 * base)
        hit = severity > 0 and (x <= struck < x + wide or rng.random() < severity)
        harm = severity * rng.uniform(0.6, 1.0) if hit else 0.0
        draw_house(scene, (x, base, wide, high), harm, depth=depth)
        if harm:
            peak = high * (0.04 + 0.5 * harm * rng.uniform(0.4, 1.0))
            draw_heap(scene, (x - 0.1 * wide, base + 2 * unit, 1.2 * wide, peak))
        elif rng.random() < 0.1:
            draw_heap(scene, (x, base + 2 * unit, 0.6 * wide, 0.16 * high), goods=True)
        x += wide * rng.choice([1.0, 1.0, 1.0, 1.25])


def draw_street(scene: Scene, severity: float, *, far: float = 0.0) -> None:
    """Draw a row of houses across a street; `far` is the severity in the quarter behind it."""
    base = scene.height * scene.rng.uniform(0.66, 0.8)
    draw_ground(scene, base)
    draw_row(scene, base - 4 * scene.unit, far, scale=0.4, depth=0.8)
    draw_row(scene, base, severity, scale=0.5 if far else scene.rng.uniform(0.7, 1.2))
    if severity:  # what fell as far as the road
        peak = severity * (scene.height - base) * scene.rng.uniform(0.3, 1.2)
        draw_heap(scene, (-0.2 * scene.width, scene.height, 1.4 * scene.width, peak))
    draw_people(scene, base, 12)


def draw_close_wall(scene: Scene, severity: float, *, bare: bool = False) -> None:
    """Draw one facade that nearly fills the image; a `bare` one is a building site."""
    rng, base = scene.rng, scene.height * scene.rng.uniform(0.84, 0.99)
    draw_ground(scene, base)
    left, right = scene.width * rng.uniform((-0.1, 0.9), (0.1, 1.1))
    box = (left, base, right - left, base - scene.height * rng.uniform(-0.25, 0.2))
    draw_house(scene, box, severity, bare=bare)
    if severity or bare:
        width, peak = scene.width * rng.uniform(0.5, 1.3), scene.height * (0.07 + 0.25 * severity)
        draw_heap(scene, (-0.1 * scene.width, base + 4 * scene.unit, width, peak), goods=bare)
    draw_people(scene, base, 20)


def draw_near_heap(scene: Scene, severity: float) -> None:
    """Draw a heap in front of a street: rubble, or goods where nothing is destroyed."""
    draw_street(scene, severity)
    left, width, peak = scene.rng.uniform((-0.2, 0.7, 0.28), (0.2, 1.1, 0.5))
    box = (left * scene.width, scene.height * 1.02, width * scene.width, peak * scene.height)
    draw_heap(scene, box, goods=not severity)


# What is drawn, its weight among intact places, its weight among destroyed ones. Goods and
# building sites deceive (heaps and open rooms without damage), and so does damage far away.
KINDS: tuple[tuple[Callable[[Scene, float], None], int, int], ...] = (
    (draw_street, 54, 58),
    (draw_close_wall, 19, 17),
    (draw_near_heap, 17, 17),
    (lambda scene, severity: draw_close_wall(scene, severity, bare=True), 10, 0),
    (lambda scene, severity: draw_street(scene, 0.0, far=severity), 0, 8),
)
