"""Procedural faces, second half: draws the shots of `synthetic_persons` with signed distances, in NumPy alone.

A picture is a pure function of (seed, person, shot): `render`. Only arithmetic and square roots touch the pixels, in
float32, so pictures are the same bytes on every run. Coordinates are explained in `synthetic_persons`.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from fn2en_jax.data.synthetic_persons import (
    RGB,
    Array,
    Geometry,
    Nuisance,
    Person,
    Shot,
    clip,
    generator,
    mix,
    person,
    shot,
    times,
)


def render(
    seed: int, index: int, number: int, expression: str | None = None, *, size: int = 72, channels: int = 3
) -> Array:
    """Picture `number` of person `index` in the population `seed`: uint8 [size, size, channels], channels 1
    or 3."""
    who = person(seed, index)
    return draw(who, shot(seed, index, number, expression, who), size, channels)


def draw(who: Person, what: Shot, size: int = 72, channels: int = 3) -> Array:
    """The picture uint8 [size, size, channels] of a shot. Raises ValueError for channels other than 1 and
    3."""
    if channels not in (1, 3):
        raise ValueError(f'channels must be 1 or 3, got {channels}')
    canvas = _Canvas(what.nuisance, size)
    shade = _shade(canvas, what.nuisance)
    _background(canvas, shade)
    canvas.head = _head_distance(canvas, who, what.geometry)
    _hair_behind(canvas, who)
    _neck(canvas, who, what.nuisance)
    _ears(canvas, who)
    canvas.paint(_everywhere, canvas.cover(canvas.head), who.skin)
    for layer in (_complexion, _beard, _wrinkles, _mouth, _nose, _eyes, _brows):
        layer(canvas, who, what)
    _hair_in_front(canvas, who)
    canvas.rgb *= shade
    _glasses(canvas, who, what)
    _occlude(canvas, what.nuisance)
    return _develop(canvas, what.nuisance, size, channels)


_everywhere = (slice(None), slice(None))
Window = tuple[slice, slice]

# The ellipsoid that carries the face's surface: half width, half height. Yaw and pitch turn it under the
# picture plane.
_SPHERE = (0.98, 1.25)
_FRAME = 1.02  # half the picture's side in face units


class _Canvas:
    """Float picture [3, P, P] with its coordinate grids: (u, v) in the plane, (x, y) on the face; P = 2 *
    size."""

    def __init__(self, seen: Nuisance, size: int) -> None:
        self.pixels = 2 * size
        self.pixel = 2.0 * _FRAME / (self.pixels * seen.scale)  # side of one pixel in face units
        self.seen = seen
        self.cos, self.sin = math.cos(seen.roll), math.sin(seen.roll)
        line = ((np.arange(self.pixels, dtype=np.float32) + 0.5) * (2.0 / self.pixels) - 1.0) * _FRAME
        across, down = (line - seen.shift[0]) / seen.scale, (line[:, None] - seen.shift[1]) / seen.scale
        self.u = self.cos * across + self.sin * down
        self.v = self.cos * down - self.sin * across
        self.rgb = np.empty((3, self.pixels, self.pixels), np.float32)
        self.head = np.empty(0, np.float32)  # signed distance [P, P] to the head's outline, once it is known
        self.rng = generator(4, seen.texture)
        self.turn = (math.cos(seen.yaw), math.sin(seen.yaw), math.cos(seen.pitch), math.sin(seen.pitch))
        self._roll_out()

    def _roll_out(self) -> None:
        """Surface coordinates under every pixel: lift onto the ellipsoid, turn back by yaw and pitch."""
        p, q = self.u * (1.0 / _SPHERE[0]), self.v * (1.0 / _SPHERE[1])
        self.depth = np.sqrt(np.maximum(1.0 - p * p - q * q, 0.0))
        cos_yaw, sin_yaw, cos_pitch, sin_pitch = self.turn
        self.x = _SPHERE[0] * (cos_yaw * p - sin_yaw * self.depth)
        inward = sin_yaw * p + cos_yaw * self.depth
        self.y = _SPHERE[1] * (cos_pitch * q - sin_pitch * inward)

    def project(self, x: float, y: float) -> tuple[float, float]:
        """Row and column (pixels) where the surface point (x, y) appears; the inverse of the grids x, y."""
        cos_yaw, sin_yaw, cos_pitch, sin_pitch = self.turn
        p, q = x / _SPHERE[0], y / _SPHERE[1]
        depth = math.sqrt(max(1.0 - p * p - q * q, 0.0))
        q, inward = cos_pitch * q + sin_pitch * depth, cos_pitch * depth - sin_pitch * q
        u, v = _SPHERE[0] * (cos_yaw * p + sin_yaw * inward), _SPHERE[1] * q
        return self.locate(u, v)

    def locate(self, u: float, v: float) -> tuple[float, float]:
        """Row and column (pixels) of a point of the plane."""
        across = self.seen.scale * (self.cos * u - self.sin * v) + self.seen.shift[0]
        down = self.seen.scale * (self.cos * v + self.sin * u) + self.seen.shift[1]
        per_unit = 0.5 * self.pixels / _FRAME
        return (down + _FRAME) * per_unit, (across + _FRAME) * per_unit

    def around(self, x: float, y: float, half_width: float, half_height: float, plane: bool = False) -> Window:
        """Pixels that can show the box about (x, y) on the surface (or in the plane), with room for
        turning."""
        row, column = self.locate(x, y) if plane else self.project(x, y)
        tilt = abs(self.sin)
        high = 1.12 * (half_height + tilt * half_width) / self.pixel + 2.0
        wide = 1.12 * (half_width + tilt * half_height) / self.pixel + 2.0
        limit = self.pixels
        rows = slice(int(clip(row - high, 0, limit)), int(clip(row + high + 1.0, 0, limit)))
        columns = slice(int(clip(column - wide, 0, limit)), int(clip(column + wide + 1.0, 0, limit)))
        return rows, columns

    def cover(self, distance: Array, soft: float = 0.0) -> Array:
        """Share of a pixel inside a shape, from the signed distance (negative inside), over a rim `soft`
        wide."""
        share = distance * (-1.0 / (1.4 * self.pixel + soft))
        share += 0.5
        np.maximum(share, 0.0, out=share)
        return np.minimum(share, 1.0, out=share)

    def paint(self, window: Window, share: Array, colour: RGB) -> None:
        """Blend a colour into a window by the share [h, w] of every pixel that it covers."""
        for channel, level in zip(self.rgb, colour, strict=True):
            part = channel[window]
            part += share * (level - part)

    def multiply(self, window: Window, share: Array, factor: RGB) -> None:
        """Darken or tint what is there already: a share of 1 multiplies by `factor`."""
        for channel, level in zip(self.rgb, factor, strict=True):
            channel[window] *= 1.0 + share * (level - 1.0)

    def grids(self, window: Window) -> tuple[Array, Array]:
        """Surface coordinates x, y in a window."""
        return self.x[window], self.y[window]


@functools.lru_cache(maxsize=32)
def _between(knots: int, pixels: int) -> tuple[Array, Array]:
    """Linear interpolation from `knots` samples to `pixels`: the knot before each pixel and the share of the
    next."""
    at = np.linspace(0.0, knots - 1.0, pixels)
    before = np.minimum(at.astype(np.intp), knots - 2)
    return before, (at - before).astype(np.float32)


def _enlarge(knots: Array, pixels: int) -> Array:
    """Bilinear picture [P, P] through a small grid of knots.

    Not a matrix product, although it is one: BLAS would start its threads, and its rounding differs between
    machines.
    """
    before, share = _between(knots.shape[1], pixels)
    wide = np.take(knots, before, 1)
    wide += share * (np.take(knots, before + 1, 1) - wide)
    before, share = _between(knots.shape[0], pixels)
    tall = np.take(wide, before, 0)
    tall += share[:, None] * (np.take(wide, before + 1, 0) - tall)
    return tall


@functools.lru_cache(maxsize=8)
def _texture(pixels: int, rows: int, columns: int, word: int) -> Array:
    """Smooth random picture [P, P] in -1..1 with `rows` by `columns` knots; remembered, for a person's next
    shot."""
    return _enlarge(generator(3, word).uniform(-1.0, 1.0, (rows, columns)).astype(np.float32), pixels)


def _shade(canvas: _Canvas, seen: Nuisance) -> Array:
    """Light [P, P]: ambient plus Lambert on a smooth head."""
    p, q = canvas.u * (1.0 / 0.95), canvas.v * (1.0 / 1.35)
    normal = np.sqrt(np.maximum(1.0 - 0.8 * (p * p + q * q), 0.05))
    lambert = np.maximum(seen.light[0] * p + seen.light[1] * q + seen.light[2] * normal, 0.0)
    return seen.ambient + (1.12 - seen.ambient) * lambert


def _background(canvas: _Canvas, shade: Array) -> None:
    """A smooth random scene behind the head, divided by the light that will be multiplied on later."""
    rng = canvas.rng
    base, spread = rng.uniform(50.0, 215.0), rng.uniform(3.0, 28.0)
    knots = int(rng.integers(2, 7))
    for channel in canvas.rgb:
        level = base + rng.normal(0.0, 14.0)
        channel[:] = _enlarge(level + spread * rng.uniform(-1.0, 1.0, (knots, knots)).astype(np.float32), canvas.pixels)
    if rng.random() < 0.5:  # an edge of a door, a shelf or a window
        edge = (canvas.cos * canvas.u - canvas.sin * canvas.v) * float(rng.choice((-1.0, 1.0))) + rng.uniform(0.2, 1.1)
        canvas.multiply(_everywhere, canvas.cover(edge), (rng.uniform(0.5, 1.4),) * 3)
    canvas.rgb /= shade


def _head_distance(canvas: _Canvas, who: Person, face: Geometry) -> Array:
    """Signed distance [P, P] to the head's outline; the chin follows the jaw."""
    low = np.maximum(canvas.v, 0.0)
    lower = low * (1.0 / (who.chin + face.jaw))
    upper = np.minimum(canvas.v, 0.0) * (1.0 / 1.02)
    taper = who.jaw_taper * lower * lower
    bulge = who.cheek * np.maximum(1.0 - 6.0 * (lower - 0.42) * (lower - 0.42), 0.0)
    puff = 0.02 * (face.cheek[0] + face.cheek[1]) * np.maximum(1.0 - 9.0 * (lower - 0.4) * (lower - 0.4), 0.0)
    across = canvas.u / (who.head_width * (1.0 - taper) + bulge + puff)
    along = upper + lower
    p, q = across * across, along * along
    square = who.head_square
    return (np.sqrt((1.0 - square) * (p + q) + square * (p * p + q * q)) - 1.0) * (
        who.head_width * (1.0 - 0.3 * square)
    )


def _ellipse(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    """Distance to an ellipse about the origin, exact on its rim's zero and roughly scaled elsewhere."""
    p, q = x * (1.0 / half_width), y * (1.0 / half_height)
    return (np.sqrt(p * p + q * q) - 1.0) * min(half_width, half_height)


def _dab(
    canvas: _Canvas, x: float, y: float, half_width: float, half_height: float, soft: float
) -> tuple[Window, Array]:
    """A soft elliptic spot on the face: its window and share."""
    window = canvas.around(x, y, half_width + soft, half_height + soft)
    across, down = canvas.grids(window)
    return window, canvas.cover(_ellipse(across - x, down - y, half_width, half_height), soft)


def _hair_behind(canvas: _Canvas, who: Person) -> None:
    """What shows of the hair behind head and neck."""
    style, volume = who.hair_style, who.hair_volume
    colour = times(who.hair_colour, 0.72)
    if style in ('long', 'bob'):
        length = 1.6 if style == 'long' else 0.72 + volume
        width = who.head_width + 0.06 + volume
        top = np.maximum(-(canvas.v + 0.15), 0.0) * (1.0 / (0.93 + volume))
        round_top = (np.sqrt((canvas.u / width) ** 2 + top * top) - 1.0) * width
        canvas.paint(_everywhere, canvas.cover(np.maximum(round_top, canvas.v - length), 0.02), colour)
    if style == 'bun':
        window = canvas.around(0.0, -1.16, 0.3, 0.3, plane=True)
        canvas.paint(window, canvas.cover(_ellipse(canvas.u[window], canvas.v[window] + 1.14, 0.28, 0.26)), colour)


def _neck(canvas: _Canvas, who: Person, seen: Nuisance) -> None:
    half = 0.62 * who.head_width
    window = canvas.around(0.0, 1.1, 2.2, 0.9, plane=True)
    u, v = canvas.u[window], canvas.v[window]
    canvas.paint(window, canvas.cover(np.maximum(np.abs(u) - half, 0.4 - v), 0.02), times(who.skin, 0.78))
    shoulder = _ellipse(u, v - 1.75, 1.35, 0.56)
    canvas.paint(window, canvas.cover(np.maximum(shoulder, -_ellipse(u, v - 1.08, half, 0.24))), seen.cloth)


def _ears(canvas: _Canvas, who: Person) -> None:
    for side in (-1.0, 1.0):
        # The ear on the far side of a turned head disappears behind it.
        u = side * (who.head_width + 0.015) - 0.16 * canvas.turn[1]
        window = canvas.around(u, 0.06, 0.16, 0.26, plane=True)
        x, y = canvas.u[window] - u, canvas.v[window] - 0.06
        size = 0.10 * who.ear
        canvas.paint(window, canvas.cover(_ellipse(x, y, size, 1.9 * size)), times(who.skin, 0.92))
        canvas.multiply(window, canvas.cover(_ellipse(x, y, 0.5 * size, 1.2 * size), 0.04), (0.86, 0.80, 0.78))


def _complexion(canvas: _Canvas, who: Person, what: Shot) -> None:
    """Cheeks' blush and volume, eye sockets, freckles and a mole."""
    for side, sign in enumerate((-1.0, 1.0)):
        raised = what.geometry.cheek[side]
        window, share = _dab(canvas, sign * 0.44, 0.27 - 0.05 * raised, 0.10, 0.07, 0.22)
        canvas.multiply(window, share * (0.35 + 0.5 * raised), (1.05, 0.93, 0.92))
        window, share = _dab(canvas, sign * who.eye_x, who.eye_y - 0.03, 0.15, 0.07, 0.18)
        canvas.multiply(window, share * 0.5, (0.90, 0.86, 0.84))
        window, share = _dab(canvas, sign * (who.eye_x - 0.02), who.eye_y + 0.12, 0.11, 0.012, 0.05)
        canvas.multiply(window, share * (0.2 + 0.6 * who.age), (0.90, 0.86, 0.86))
    if who.freckles > 0.0:
        window = canvas.around(0.0, 0.2, 0.5, 0.2)
        x, y = canvas.grids(window)
        spots = np.maximum(_texture(canvas.pixels, 44, 44, who.texture)[window] - 0.25, 0.0) * (2.0 * who.freckles)
        canvas.multiply(window, spots * canvas.cover(_ellipse(x, y - 0.2, 0.4, 0.1), 0.2), (0.72, 0.60, 0.52))
    window, share = _dab(canvas, *who.mole, 0.022, 0.022, 0.0)
    canvas.multiply(window, share, (0.45, 0.36, 0.34))


def _beard(canvas: _Canvas, who: Person, what: Shot) -> None:
    """Stubble, moustache, goatee or full beard; it moves with the mouth."""
    if who.beard == 'none':
        return
    face, mouth = what.geometry, who.mouth_y + what.geometry.mouth_shift
    window = canvas.around(0.0, mouth, 1.0, 0.75)
    x, y = canvas.grids(window)
    above = y - (mouth - 0.125 - face.lip_upper_lift) - 0.12 * x * x / who.mouth_width
    side = np.abs(x) * (1.0 / (who.mouth_width + 0.05))
    lip = np.maximum(np.maximum(-above, above - 0.10 - 0.12 * side), np.abs(x) - who.mouth_width - 0.04)
    shape = {
        'moustache': lip,
        'goatee': np.minimum(lip, _ellipse(x, y - (mouth + 0.28 + face.jaw), 0.21, 0.24)),
    }.get(who.beard)
    if shape is None:  # stubble and full beard: everything below a line from ear to lip
        shape = np.minimum(lip, mouth - 0.02 + face.open_lower * 0.3 - 0.55 * np.maximum(np.abs(x) - 0.22, 0.0) - y)
    inside = canvas.cover(canvas.head[window])
    strength, soft = (0.38, 0.22) if who.beard == 'stubble' else (1.0, 0.06)
    strength *= who.beard_density
    grain = 1.0 + 0.18 * _texture(canvas.pixels, 60, 60, who.texture)[window]
    canvas.paint(
        window,
        inside * canvas.cover(shape, soft) * (strength * grain).clip(0.0, 1.0),
        times(who.hair_colour, 0.9),
    )


def _ribbon(canvas: _Canvas, along: Array, off: Array, half: float, taper: float = 1.0) -> Array:
    """Share of a stroke: `along` runs -1..1 from end to end, `off` is the distance from its middle line."""
    width = half * (1.0 - taper * along * along)
    return canvas.cover(np.abs(off) - width) * (np.abs(along) < 1.0)


def _wrinkles(canvas: _Canvas, who: Person, what: Shot) -> None:
    """Lines that movement (and age) draws: forehead, frown, nose root, crow's feet, nasolabial folds,
    chin."""
    face, dark = what.geometry, (0.80, 0.70, 0.66)
    level = clip(0.75 * face.forehead + 0.12 * who.age, 0.0, 1.0)
    for line in (-0.46, -0.36):
        window = canvas.around(0.0, line, 0.42, 0.08)
        x, y = canvas.grids(window)
        canvas.multiply(window, level * _ribbon(canvas, x / 0.40, y - line - 0.03 * x * x, 0.013), dark)
    for sign in (-1.0, 1.0):
        middle, top = sign * 0.045, who.eye_y - 0.20
        window = canvas.around(middle, top, 0.06, 0.10)
        x, y = canvas.grids(window)
        frown = clip(0.85 * face.frown + 0.08 * who.age, 0.0, 1.0)
        canvas.multiply(window, frown * _ribbon(canvas, (y - top) / 0.09, x - middle, 0.012), dark)
    _nose_root(canvas, who, face)
    _folds(canvas, who, face)
    window, share = _dab(canvas, 0.0, who.mouth_y + 0.185 + face.jaw, 0.10, 0.012, 0.04)
    canvas.multiply(window, share * clip(0.35 + 0.6 * face.chin_boss, 0.0, 1.0), dark)


def _nose_root(canvas: _Canvas, who: Person, face: Geometry) -> None:
    if face.nose_wrinkle < 0.08:
        return
    for line in (0.02, 0.07, 0.12):
        height = who.eye_y + line
        window = canvas.around(0.0, height, 0.12, 0.05)
        x, y = canvas.grids(window)
        share = _ribbon(canvas, x / 0.11, y - height - 1.6 * x * x, 0.011)
        canvas.multiply(window, min(face.nose_wrinkle, 1.0) * share, (0.74, 0.64, 0.60))


def _folds(canvas: _Canvas, who: Person, face: Geometry) -> None:
    """Nasolabial folds and crow's feet."""
    for side, sign in enumerate((-1.0, 1.0)):
        top, bottom = who.nose_y - 0.03 + face.nose_lift, who.mouth_y + face.corner[side] + 0.05
        start, end = who.nose_width + 0.045, face.mouth_width + 0.075
        middle, half = 0.5 * (top + bottom), max(0.5 * (bottom - top), 0.05)
        window = canvas.around(sign * 0.5 * (start + end), middle, 0.5 * abs(end - start) + 0.09, half)
        x, y = canvas.grids(window)
        along = (y - middle) * (1.0 / half)
        line = 0.5 * (start + end) + 0.5 * (end - start) * along + 0.035 * (1.0 - along * along)
        level = clip(0.9 * face.fold[side] + 0.25 * who.age, 0.0, 1.0)
        canvas.multiply(window, level * _ribbon(canvas, along, sign * x - line, 0.017), (0.78, 0.67, 0.64))
        level = clip(0.8 * face.cheek[side] + 0.15 * who.age - 0.1, 0.0, 1.0)
        outer = who.eye_x + who.eye_width + 0.06
        window = canvas.around(sign * outer, who.eye_y, 0.09, 0.07)
        x, y = canvas.grids(window)
        for slope in (-0.45, 0.35):
            share = _ribbon(canvas, (sign * x - outer) / 0.06, y - who.eye_y - slope * (sign * x - outer + 0.06), 0.009)
            canvas.multiply(window, level * share, (0.82, 0.73, 0.70))


def _mouth(canvas: _Canvas, who: Person, what: Shot) -> None:
    """Lips, and where they part teeth, tongue and dark."""
    face = what.geometry
    half, centre = face.mouth_width, who.mouth_y + face.mouth_shift
    window = canvas.around(0.0, centre + 0.05, 1.25 * half + 0.05, 0.32)
    x, y = canvas.grids(window)
    t = x * (1.0 / half)
    t2 = t * t
    inside = np.maximum(1.0 - t2, 0.0)
    shape = inside * (1.0 + face.square * t2)
    left, right = face.corner
    line = centre + (0.5 * (left + right) + 0.5 * (right - left) * t) * t2
    upper, lower = line - face.open_upper * shape, line + face.open_lower * shape
    bow = 1.0 - who.cupid * np.maximum(1.0 - 14.0 * t2, 0.0)
    lip_top = upper - (who.lip_upper * face.lip_scale * bow + 0.4 * face.lip_upper_lift * (1.0 - 0.5 * t2)) * inside
    lip_bottom = lower + who.lip_lower * face.lip_scale * inside * (1.0 + 0.4 * t2)
    within = np.abs(t) < 1.0
    lips = times(who.skin, who.lip_colour)
    canvas.paint(window, canvas.cover(np.maximum(lip_top - y, y - lip_bottom)) * within, lips)
    shadow = canvas.cover(np.abs(y - lip_bottom - 0.028) - 0.006, 0.03) * np.maximum(1.0 - 2.5 * t2, 0.0)
    canvas.multiply(window, shadow * 0.5, (0.78, 0.70, 0.68))
    if face.open_upper + face.open_lower > 0.008:
        hole = canvas.cover(np.maximum(upper - y, y - lower)) * within
        _mouth_inside(canvas, who, what, window, (y, t2, upper, lower, hole))
    crease = 0.011 - 0.002 * np.minimum(t2, 1.0)
    seam = canvas.cover(np.abs(y - upper) - crease) * (np.abs(t) < 1.04)
    canvas.paint(window, seam * 0.85, times(who.skin, (0.42, 0.24, 0.24)))
    for side, sign in enumerate((-1.0, 1.0)):
        spot, share = _dab(canvas, sign * 1.05 * half, centre + face.corner[side], 0.018, 0.022, 0.035)
        canvas.multiply(spot, share * clip(0.35 + 0.6 * face.fold[side], 0.0, 1.0), (0.70, 0.58, 0.55))


def _mouth_inside(
    canvas: _Canvas, who: Person, what: Shot, window: Window, lines: tuple[Array, Array, Array, Array, Array]
) -> None:
    y, t2, upper, lower, hole = lines
    face = what.geometry
    canvas.paint(window, hole, (70.0, 24.0, 28.0))
    opening = face.open_upper + face.open_lower
    tongue = canvas.cover(lower - 0.35 * opening * (1.0 - 1.3 * t2) - y, 0.02)
    canvas.paint(window, hole * tongue, (170.0, 74.0, 78.0))
    teeth = min(0.065 * who.teeth, 0.75 * opening) * (0.55 + 0.45 * min(1.0, face.fold[0] + face.fold[1]))
    row = canvas.cover(y - (upper + teeth * (1.0 - 0.5 * t2)))
    canvas.paint(window, hole * row, (238.0, 232.0, 222.0))
    if face.square > 0.3:  # stretched or lowered lips bare the lower teeth as well
        row = canvas.cover((lower - 0.4 * teeth) - y) * min(1.0, 1.5 * face.square - 0.4)
        canvas.paint(window, hole * row, (228.0, 220.0, 208.0))


def _nose(canvas: _Canvas, who: Person, what: Shot) -> None:
    """Bridge, tip, wings and nostrils, as shading."""
    face = what.geometry
    tip = who.nose_y + face.nose_lift
    width = who.nose_width * (1.0 + 0.10 * min(face.nose_wrinkle, 1.0))
    sign = -1.0 if what.nuisance.light[0] > 0.0 else 1.0  # the side away from the light
    top, half = who.eye_y + 0.02, 0.5 * (tip - who.eye_y - 0.06)
    window = canvas.around(sign * who.bridge, top + half, 0.10, half)
    x, y = canvas.grids(window)
    along = (y - top - half) * (1.0 / half)
    share = canvas.cover(np.abs(sign * x - who.bridge - 0.02 * along) - 0.014, 0.05) * np.maximum(
        1.0 - along * along, 0.0
    )
    canvas.multiply(window, share * who.nose_shade, (0.80, 0.72, 0.68))
    window, share = _dab(canvas, 0.0, tip + 0.005, width * 0.95, 0.055, 0.05)
    canvas.multiply(window, share * 0.35 * who.nose_shade, (0.90, 0.80, 0.78))
    window, share = _dab(canvas, -sign * 0.015, tip - 0.045, 0.03, 0.035, 0.06)
    canvas.multiply(window, share * 0.8, (1.08, 1.09, 1.10))
    for side in (-1.0, 1.0):
        window, share = _dab(canvas, side * 0.5 * width, tip + 0.035, 0.27 * width, 0.017, 0.012)
        canvas.paint(window, share * 0.75, times(who.skin, (0.46, 0.32, 0.30)))
        wing = canvas.around(side * width, tip, 0.05, 0.07)
        x, y = canvas.grids(wing)
        along = (y - tip) * (1.0 / 0.065)
        share = _ribbon(canvas, along, side * x - width - 0.018 * (1.0 - along * along), 0.013)
        canvas.multiply(wing, share * (0.55 + 0.3 * min(face.nose_wrinkle, 1.0)), (0.72, 0.60, 0.56))


def _eyes(canvas: _Canvas, who: Person, what: Shot) -> None:
    for side in (0, 1):
        _eye(canvas, who, what, side)


def _eye(canvas: _Canvas, who: Person, what: Shot, side: int) -> None:
    sign = (-1.0, 1.0)[side]
    window = canvas.around(sign * who.eye_x, who.eye_y, who.eye_width * 1.3, 0.17)
    x, y = canvas.grids(window)
    across = sign * x - who.eye_x  # positive towards the ear
    down = y - who.eye_y + who.eye_slant * across
    t = across * (1.0 / who.eye_width)
    arch = np.maximum(1.0 - t * t, 0.0)
    high, low = what.geometry.lid_upper[side], what.geometry.lid_lower[side]
    shut = high <= 0.004 - low
    upper = np.minimum(-high * arch * (1.0 - 0.12 * t), low * arch)
    lower = low * arch
    within = np.abs(t) < 1.0
    if not shut:
        hole = canvas.cover(np.maximum(upper - down, down - lower)) * within
        _eyeball(canvas, who, what, window, (sign * across, down, upper, hole))
    lid = np.where(t > 0.0, 1.10, 1.0)
    share = canvas.cover(np.abs(down - upper) - (0.007 + 0.012 * max(who.lashes, 0.1) * (0.5 + 0.5 * np.abs(t)))) * (
        np.abs(t) < lid
    )
    canvas.paint(window, share * 0.9, (44.0, 30.0, 28.0))
    canvas.multiply(window, canvas.cover(np.abs(down - lower) - 0.006) * within, (0.70, 0.60, 0.58))
    fold = canvas.cover(np.abs(down - upper + 0.042) - 0.006) * arch
    canvas.multiply(window, fold * (0.35 + who.crease), (0.74, 0.64, 0.60))
    pouch = canvas.cover(np.abs(down - lower - 0.035) - 0.006, 0.015) * arch
    tight = clip(14.0 * (who.lid_lower - low), 0.0, 0.8)
    canvas.multiply(window, pouch * tight, (0.78, 0.68, 0.66))


def _eyeball(
    canvas: _Canvas, who: Person, what: Shot, window: Window, lines: tuple[Array, Array, Array, Array]
) -> None:
    """White, iris, pupil, the lid's shadow and a glint, inside the share `hole` of the opening."""
    x, y, upper, hole = lines
    canvas.paint(window, hole, (240.0, 236.0, 232.0))
    x, middle = x - what.nuisance.gaze[0], y - what.nuisance.gaze[1]
    from_centre = np.sqrt(x * x + middle * middle)
    canvas.paint(window, hole * canvas.cover(from_centre - who.iris), times(who.iris_colour, 0.65))
    canvas.paint(window, hole * canvas.cover(from_centre - 0.8 * who.iris), who.iris_colour)
    canvas.paint(window, hole * canvas.cover(from_centre - 0.45 * who.iris), (16.0, 12.0, 12.0))
    canvas.multiply(window, hole * canvas.cover(y - upper - 0.015, 0.04), (0.70, 0.68, 0.68))
    glint = np.sqrt((x + 0.025) ** 2 + (middle + 0.025) ** 2)
    canvas.paint(window, hole * canvas.cover(glint - 0.017), (255.0, 255.0, 255.0))


def _brows(canvas: _Canvas, who: Person, what: Shot) -> None:
    face = what.geometry
    colour = times(mix((who.hair_colour, (58, 44, 38)), 0.45), 0.8)
    for side, sign in enumerate((-1.0, 1.0)):
        centre = who.eye_x + 0.01 - 0.5 * face.brow_pinch
        half = who.brow_length + 0.25 * face.brow_pinch
        inner, mid, outer = face.brow_inner[side], face.brow_mid[side], face.brow_outer[side]
        window = canvas.around(sign * centre, who.eye_y + mid, half, 0.17)
        x, y = canvas.grids(window)
        t = (sign * x - centre) * (1.0 / half)  # -1 at the nose, 1 at the temple
        t2 = t * t
        line = mid + 0.5 * (outer - inner) * t + (0.5 * (outer + inner) - mid) * t2
        thick = who.brow_thick * (1.0 - 0.35 * t) * np.maximum(1.0 - t2 * t2 * t2, 0.0)
        share = canvas.cover(np.abs(y - who.eye_y - line) - thick, 0.012) * (np.abs(t) < 1.0)
        canvas.paint(window, share * 0.9, colour)


def _hair_in_front(canvas: _Canvas, who: Person) -> None:
    """The cap of hair above the hairline, from the style's line and volume."""
    style = who.hair_style
    if style == 'bald':
        return
    volume = {'cropped': 0.02, 'receding': 0.03, 'bun': 0.04, 'curly': who.hair_volume + 0.10}.get(
        style, who.hair_volume
    )
    rise = canvas.cover(canvas.v + 0.18, 0.7)  # thick on top, flush with the head at the ears
    cap = canvas.head - volume * rise
    line = _hairline(canvas, who)
    if style == 'curly':
        curls = _texture(canvas.pixels, 22, 22, who.texture)
        cap, line = cap - 0.06 * curls, line + 0.05 * curls
    share = canvas.cover(np.maximum(cap, canvas.y - line), 0.01)
    strands = 1.0 + 0.13 * _texture(canvas.pixels, 9 if style == 'curly' else 4, 48, who.texture + 1)
    for channel, level in zip(canvas.rgb, who.hair_colour, strict=True):
        channel += share * (level * strands - channel)


def _hairline(canvas: _Canvas, who: Person) -> Array:
    """Lower border [P, P] of the hair as a height on the face, by style; temples reach down to the ears."""
    x, line = canvas.x, who.hairline
    # Temples by the face's surface and, where the head turns away, by the nearness of its outline.
    edge = np.minimum(canvas.head, 0.0) * (1.0 / who.head_width) + 0.99 - np.maximum(canvas.v, 0.0)
    side = np.minimum(np.maximum(np.abs(x) * (1.0 / who.head_width), edge), 1.05)
    temple = np.maximum(side - 0.80, 0.0)
    style = who.hair_style
    if style == 'receding':
        return line - 0.22 + 0.18 * np.maximum(1.0 - 4.0 * side, 0.0) - 0.15 * np.minimum(side, 0.6) + 4.5 * temple
    if style == 'fringe':
        return line + 0.14 - 0.05 * x + 3.2 * temple
    if style == 'side':
        away = np.maximum(math.copysign(1.0, who.parting) * (who.parting - x), 0.0)
        return line + 0.22 * away + 3.6 * temple
    if style in ('long', 'bob'):
        curtain = np.abs(x - 0.4 * who.parting)
        return line - 0.06 + 0.9 * curtain * curtain + 12.0 * temple
    if style == 'bun':
        return line - 0.04 + 0.25 * side * side + 2.2 * temple
    return line + 0.06 * side + 3.4 * temple


def _glasses(canvas: _Canvas, who: Person, what: Shot) -> None:
    if not what.nuisance.glasses_on:
        return
    size, frame = who.glasses_size, 0.016
    for sign in (-1.0, 1.0):
        window = canvas.around(sign * who.eye_x, who.eye_y + 0.03, size + 0.03, size + 0.03)
        x, y = canvas.grids(window)
        x, y = x - sign * (who.eye_x + 0.015), y - who.eye_y - 0.02
        if who.glasses == 'round':
            rim = np.sqrt(x * x + y * y) - 0.92 * size
        else:
            p, q = np.maximum(np.abs(x) - size + 0.07, 0.0), np.maximum(np.abs(y) - 0.72 * size + 0.07, 0.0)
            rim = np.sqrt(p * p + q * q) - 0.07
        canvas.multiply(window, canvas.cover(rim), (0.95, 0.97, 0.99))
        canvas.paint(window, canvas.cover(np.abs(rim) - frame), who.glasses_colour)
        arm = canvas.around(sign * (who.eye_x + size + 0.15), who.eye_y, 0.2, 0.05)
        x, y = canvas.grids(arm)
        bar = np.maximum(np.abs(y - who.eye_y) - 0.016, who.eye_x + size - sign * x)
        head = canvas.cover(np.abs(canvas.u[arm]) - who.head_width)
        canvas.paint(arm, canvas.cover(bar) * head, who.glasses_colour)
    gap = max(who.eye_x - size + 0.02, 0.01)
    bridge = canvas.around(0.0, who.eye_y, gap + 0.05, 0.06)
    x, y = canvas.grids(bridge)
    canvas.paint(bridge, _ribbon(canvas, x / (gap + 0.02), y - who.eye_y - 0.3 * x * x, 0.014, 0.0), who.glasses_colour)


def _occlude(canvas: _Canvas, seen: Nuisance) -> None:
    if not seen.occluder:
        return
    u, v, half, width, direction, red, green, blue = seen.occluder
    cos, sin = math.cos(direction), math.sin(direction)
    x, y = canvas.u - u, canvas.v - v
    along = np.maximum(np.abs(cos * x + sin * y) - half, 0.0)
    off = cos * y - sin * x
    canvas.paint(
        _everywhere,
        canvas.cover(np.sqrt(along * along + off * off) - width),
        (0.85 * red, 0.85 * green, 0.85 * blue),
    )


def _develop(canvas: _Canvas, seen: Nuisance, size: int, channels: int) -> Array:
    """Average 2 x 2 pixels, blur, contrast, noise, then bytes [size, size, channels]."""
    tall = canvas.rgb[:, 0::2] + canvas.rgb[:, 1::2]
    picture = 0.25 * (tall[:, :, 0::2] + tall[:, :, 1::2])
    picture *= np.array(seen.tint, np.float32)[:, None, None]
    edge = 0.33 * min(seen.blur, 1.0)
    picture = _smooth(_smooth(picture, edge).swapaxes(1, 2), edge).swapaxes(1, 2)
    picture = (picture - 120.0) * seen.contrast + 120.5
    picture += seen.noise * canvas.rng.standard_normal((3, size, size), dtype=np.float32)
    if channels == 1:
        picture = (0.299 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2])[None]
    return np.ascontiguousarray(np.clip(picture, 0.0, 255.0).astype(np.uint8).transpose(1, 2, 0))


def _smooth(picture: Array, edge: float) -> Array:
    """Three-tap blur (edge, 1 - 2 edge, edge) along the rows; the border repeats."""
    blurred = (1.0 - 2.0 * edge) * picture
    blurred[:, 1:] += edge * picture[:, :-1]
    blurred[:, :-1] += edge * picture[:, 1:]
    blurred[:, 0] += edge * picture[:, 0]
    blurred[:, -1] += edge * picture[:, -1]
    return blurred
