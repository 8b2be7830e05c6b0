"""Procedural faces, first half: who is in a picture, what the face does, and how it is seen. `synthetic` draws it.

A picture is a pure function of (seed, person, shot), in steps of plain numbers that a test can read:

    person(seed, index)                           -> Person    what stays: head, features, hair, habits
    movement(person, expression, intensity, rng)  -> [A, 2]    FACS action units, left and right
    geometry(person, movement)                    -> Geometry  where brows, lids, nose and lips end up
    nuisance(rng, person)                         -> Nuisance  pose, light, camera, clothes
    shot(seed, index, number)                     -> Shot      all of it; `synthetic.draw` makes the picture

Design. Who somebody is dominates a picture and what they express is a small change on top of it: everyone has
their own resting brow, lids and mouth line, their own gain per action unit, and intensities run down to
faint. Colours of hair and skin come from narrow families and the illuminant varies per shot, so that
telling persons apart takes the shape of their features, which is also what expressions move.

Coordinates. Face units: the head's half height is about 1, u and x point right in the picture, v and y point
down, the origin lies between the eyes and the nose tip. (u, v) is the picture plane turned with the head in
the plane; (x, y) is the face's own surface, an ellipsoid that yaw and pitch rotate under the plane. Left and
right are those of the picture: index 0 is the picture's left.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np

Array = np.ndarray
RGB = tuple[float, float, float]

EXPRESSIONS = ('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')

# Row of each action unit in a movement. 1 and 2 raise the inner and outer brow, 4 lowers it; 5 raises the
# upper lid, 6 the cheek, 7 tightens the lids; 9 wrinkles the nose; 10 raises the upper lip, 12 pulls the
# mouth's corners up, 15 pulls them down; 16 lowers the lower lip; 17 raises the chin, 20 stretches the mouth,
# 23 tightens the lips; 25 parts them, 26 drops the jaw; 43 closes the eyes.
ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 23, 25, 26, 43)
AU = {unit: row for row, unit in enumerate(ACTION_UNITS)}

# Several ways to show each expression, after the prototypes of EMFACS: {action unit: strength at full
# intensity}.
PROTOTYPES: dict[str, tuple[dict[int, float], ...]] = {
    'anger': (
        {4: 1.0, 5: 0.4, 7: 0.7, 23: 0.9, 17: 0.2},
        {4: 1.0, 7: 0.7, 10: 0.5, 16: 0.5, 25: 0.6, 20: 0.2},
        {4: 0.9, 5: 0.7, 7: 0.4, 23: 0.6, 15: 0.2},
    ),
    'disgust': (
        {9: 1.0, 10: 0.5, 4: 0.3, 17: 0.4, 7: 0.5},
        {9: 0.7, 10: 1.0, 25: 0.4, 7: 0.5, 6: 0.3},
        {9: 0.8, 10: 0.6, 15: 0.6, 17: 0.5, 4: 0.2},
    ),
    'fear': (
        {1: 1.0, 2: 0.5, 4: 0.6, 5: 0.9, 20: 0.9, 25: 0.4},
        {1: 0.9, 2: 0.4, 4: 0.5, 5: 1.0, 20: 0.7, 25: 0.7, 26: 0.2, 16: 0.4},
        {1: 1.0, 2: 0.6, 4: 0.6, 5: 0.8, 20: 1.0, 25: 0.2, 15: 0.2},
    ),
    'happiness': (
        {6: 0.8, 12: 1.0},
        {6: 0.9, 12: 1.0, 25: 0.6},
        {6: 0.6, 12: 0.8, 25: 0.8, 26: 0.3},
    ),
    'neutral': ({},),
    'sadness': (
        {1: 1.0, 4: 0.5, 15: 0.9, 17: 0.3},
        {1: 0.9, 4: 0.4, 15: 0.8, 43: 0.2},
        {1: 1.0, 4: 0.6, 15: 1.0, 17: 0.7, 7: 0.3},
    ),
    'surprise': (
        {1: 1.0, 2: 1.0, 5: 0.8, 25: 0.7, 26: 0.9},
        {1: 0.9, 2: 1.0, 5: 0.6, 25: 0.6, 26: 0.5},
        {1: 1.0, 2: 0.9, 5: 0.9, 25: 0.5, 26: 0.2},
    ),
}

SKIN = ((250, 220, 198), (240, 200, 170), (222, 176, 140), (190, 138, 100), (146, 98, 68), (104, 68, 48))
HAIR = (
    (38, 30, 30),
    (64, 44, 34),
    (98, 66, 42),
    (140, 98, 58),
    (196, 158, 100),
    (150, 74, 42),
    (158, 154, 152),
)
IRIS = ((76, 50, 32), (104, 74, 42), (94, 112, 70), (92, 128, 158), (120, 136, 146))
CLOTH = (
    (60, 74, 110),
    (150, 60, 60),
    (60, 110, 90),
    (210, 200, 180),
    (70, 70, 78),
    (190, 150, 70),
    (120, 90, 140),
)
HAIR_STYLES = ('bald', 'cropped', 'short', 'side', 'fringe', 'curly', 'bob', 'long', 'bun', 'receding')
BEARDS = ('none', 'stubble', 'moustache', 'goatee', 'full')


@dataclasses.dataclass(frozen=True)
class Person:
    """What all shots of one person share. Lengths are in face units, colours RGB in 0..255."""

    # Head: half width, jaw taper (0 square .. 0.4 pointed), squareness of the outline, length of the chin,
    # cheek bulge.
    head_width: float
    jaw_taper: float
    head_square: float
    chin: float
    cheek: float
    ear: float
    skin: RGB
    # Eyes: half distance, height on the face, half width, upper and lower opening, slant (outer end up), iris
    # radius.
    eye_x: float
    eye_y: float
    eye_width: float
    lid_upper: float
    lid_lower: float
    eye_slant: float
    iris: float
    iris_colour: RGB
    crease: float
    lashes: float
    # Brows: resting heights above the eye of inner, middle and outer third, half length, half thickness,
    # colour.
    brow_inner: float
    brow_mid: float
    brow_outer: float
    brow_length: float
    brow_thick: float
    # Nose: length below the eyes, half width at the wings, bridge half width, visibility of the shading.
    nose_y: float
    nose_width: float
    bridge: float
    nose_shade: float
    # Mouth: height on the face, half width, resting line (positive: corners low), lip thicknesses, cupid's
    # bow, colour.
    mouth_y: float
    mouth_width: float
    mouth_curve: float
    lip_upper: float
    lip_lower: float
    cupid: float
    lip_colour: RGB
    teeth: float
    # Hair and the rest.
    hair_style: str
    hair_colour: RGB
    hairline: float
    hair_volume: float
    parting: float
    beard: str
    beard_density: float
    glasses: str
    glasses_size: float
    glasses_colour: RGB
    wears_glasses: float
    age: float
    freckles: float
    mole: tuple[float, float]
    # Habits: gain per action unit [A] and the texture seed of hair and freckles.
    gain: tuple[float, ...]
    texture: int


class Geometry(NamedTuple):
    """Where a movement has put the features; pairs are (picture's left, picture's right), in face units.

    Heights follow v: smaller is higher. Brow heights are relative to the eye's centre, mouth heights to the
    mouth's.
    """

    brow_inner: tuple[float, float]
    brow_mid: tuple[float, float]
    brow_outer: tuple[float, float]
    brow_pinch: float
    lid_upper: tuple[float, float]
    lid_lower: tuple[float, float]
    cheek: tuple[float, float]
    nose_lift: float
    nose_wrinkle: float
    corner: tuple[float, float]
    mouth_width: float
    mouth_shift: float
    open_upper: float
    open_lower: float
    square: float
    lip_scale: float
    lip_upper_lift: float
    jaw: float
    frown: float
    forehead: float
    fold: tuple[float, float]
    chin_boss: float


class Nuisance(NamedTuple):
    """What changes from shot to shot and says nothing about person or expression. Angles in radians."""

    roll: float
    yaw: float
    pitch: float
    shift: tuple[float, float]
    scale: float
    gaze: tuple[float, float]
    light: tuple[float, float, float]
    ambient: float
    tint: RGB
    contrast: float
    blur: float
    noise: float
    glasses_on: bool
    cloth: RGB
    occluder: tuple[float, ...]
    texture: int


class Shot(NamedTuple):
    """One picture before it is drawn: the expression it shows, its action units [A, 2], geometry and
    nuisance."""

    expression: str
    intensity: float
    movement: Array
    geometry: Geometry
    nuisance: Nuisance


def generator(*words: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def mix(colours: tuple[RGB, ...] | tuple[tuple[int, int, int], ...], at: float) -> RGB:
    """The colour at `at` in [0, len - 1] along a list of anchors."""
    index = min(int(at), len(colours) - 2)
    low, high, part = colours[index], colours[index + 1], at - index
    return (
        low[0] + part * (high[0] - low[0]),
        low[1] + part * (high[1] - low[1]),
        low[2] + part * (high[2] - low[2]),
    )


def times(colour: RGB, factor: float | RGB) -> RGB:
    red, green, blue = (factor, factor, factor) if isinstance(factor, float) else factor
    return (colour[0] * red, colour[1] * green, colour[2] * blue)


# ---------------------------------------------------------------------------------------------------- persons


@functools.lru_cache(maxsize=64)
def person(seed: int, index: int) -> Person:
    """The person number `index` of the population `seed`."""
    rng = generator(seed, 1, index)
    masculine, age, dark = rng.random(), rng.random() ** 1.5, rng.random() ** 1.3
    looks: dict[str, object] = {'age': age}
    looks.update(_sample_head(rng, masculine, dark), **_sample_eyes(rng, masculine, age))
    looks.update(_sample_nose_and_mouth(rng, masculine))
    looks.update(_sample_hair(rng, masculine, age, dark), **_sample_extras(rng, masculine))
    looks['gain'] = tuple(np.exp(0.22 * rng.standard_normal(len(ACTION_UNITS))).tolist())
    looks['texture'] = int(rng.integers(2**31))
    return Person(**looks)  # type: ignore[arg-type]


def _sample_head(rng: np.random.Generator, masculine: float, dark: float) -> dict[str, object]:
    return {
        'head_width': rng.uniform(0.66, 0.80) + 0.03 * masculine,
        'jaw_taper': rng.uniform(0.02, 0.34) - 0.08 * masculine,
        'head_square': rng.uniform(0.0, 0.35) + 0.15 * masculine,
        'chin': rng.uniform(0.92, 1.10),
        'cheek': rng.uniform(-0.02, 0.05),
        'ear': rng.uniform(0.7, 1.3),
        'skin': mix(SKIN, 4.9 * dark),
    }


def _sample_eyes(rng: np.random.Generator, masculine: float, age: float) -> dict[str, object]:
    height, tilt = rng.normal(-0.225, 0.022) + 0.025 * masculine, rng.normal(0.0, 0.022)
    return {
        'eye_x': rng.uniform(0.285, 0.375),
        'eye_y': rng.uniform(-0.14, -0.05),
        'eye_width': rng.uniform(0.15, 0.198),
        'lid_upper': rng.uniform(0.068, 0.105) - 0.012 * age,
        'lid_lower': rng.uniform(0.040, 0.064),
        'eye_slant': rng.normal(0.04, 0.10),
        'iris': rng.uniform(0.070, 0.088),
        'iris_colour': IRIS[int(rng.integers(len(IRIS)))],
        'crease': rng.uniform(0.0, 0.5),
        'lashes': rng.uniform(0.4, 1.0) - 0.35 * masculine,
        'brow_inner': height + tilt,
        'brow_mid': height - rng.uniform(0.02, 0.065),
        'brow_outer': height - tilt + rng.uniform(-0.01, 0.05),
        'brow_length': rng.uniform(0.175, 0.235),
        'brow_thick': rng.uniform(0.020, 0.036) + 0.014 * masculine,
    }


def _sample_nose_and_mouth(rng: np.random.Generator, masculine: float) -> dict[str, object]:
    nose_y = rng.uniform(0.22, 0.36)
    return {
        'nose_y': nose_y,
        'nose_width': rng.uniform(0.095, 0.165) + 0.012 * masculine,
        'bridge': rng.uniform(0.035, 0.07),
        'nose_shade': rng.uniform(0.5, 1.0),
        'mouth_y': nose_y + rng.uniform(0.235, 0.32),
        'mouth_width': rng.uniform(0.23, 0.33),
        'mouth_curve': rng.normal(0.0, 0.018),
        'lip_upper': rng.uniform(0.022, 0.055) - 0.010 * masculine,
        'lip_lower': rng.uniform(0.034, 0.074) - 0.010 * masculine,
        'cupid': rng.uniform(0.0, 0.5),
        'lip_colour': (
            rng.uniform(0.82, 0.92),
            rng.uniform(0.52, 0.70) + 0.06 * masculine,
            rng.uniform(0.56, 0.74),
        ),
        'teeth': rng.uniform(0.7, 1.2),
    }


def _sample_hair(rng: np.random.Generator, masculine: float, age: float, dark: float) -> dict[str, object]:
    #        bald cropped short side fringe curly bob  long bun  receding
    for_him = (1.2, 2.0, 2.5, 2.0, 1.2, 1.0, 0.1, 0.3, 0.1, 1.5 * age)
    for_her = (0.0, 0.3, 0.6, 1.0, 1.5, 1.4, 2.0, 2.5, 1.6, 0.0)
    weights = np.array(for_him if masculine > 0.5 else for_her)
    colour = HAIR[6] if rng.random() < age - 0.55 else mix(HAIR[:6], 5.0 * (1.0 - 0.85 * dark) * rng.random() ** 1.4)
    beards = np.array((5.0, 1.6, 1.0, 1.0, 1.6) if masculine > 0.5 else (1.0, 0.0, 0.0, 0.0, 0.0))
    return {
        'hair_style': HAIR_STYLES[int(rng.choice(len(weights), p=weights / weights.sum()))],
        'hair_colour': times(colour, rng.uniform(0.85, 1.15)),
        'hairline': rng.uniform(-0.66, -0.50),
        'hair_volume': rng.uniform(0.06, 0.20),
        'parting': rng.choice((-1.0, 1.0)) * rng.uniform(0.15, 0.5),
        'beard': BEARDS[int(rng.choice(len(beards), p=beards / beards.sum()))],
        'beard_density': rng.uniform(0.6, 0.95),
    }


def _sample_extras(rng: np.random.Generator, masculine: float) -> dict[str, object]:
    has_mole = rng.random() < 0.2
    return {
        'glasses': str(rng.choice(('none', 'round', 'square'), p=(0.80, 0.10, 0.10))),
        'glasses_size': rng.uniform(0.205, 0.265),
        'glasses_colour': ((40, 36, 40), (120, 70, 40), (130, 130, 136), (130, 40, 44))[int(rng.integers(4))],
        'wears_glasses': rng.uniform(0.6, 1.0),
        'freckles': rng.uniform(0.3, 0.8) if rng.random() < 0.18 else 0.0,
        'mole': (rng.uniform(-0.5, 0.5), rng.uniform(0.15, 0.75)) if has_mole else (9.0, 9.0),
    }


# -------------------------------------------------------------------------------- expressions as action units


def movement(who: Person, expression: str, intensity: float, rng: np.random.Generator) -> Array:
    """Action units [A, 2] (left, right; 0 at rest, about 1 at full strength) of one moment of `who`.

    One of the expression's prototypes at the given intensity, with every unit's strength varied, now and then
    missing, a little asymmetric, and scaled by the person's own gain; then what faces do anyway: slight
    tremor, speech, blinks.
    """
    units = np.zeros(len(ACTION_UNITS))
    variants = PROTOTYPES[expression]
    for unit, strength in variants[int(rng.integers(len(variants)))].items():
        missing = rng.random() < 0.08
        units[AU[unit]] = strength * intensity * math.exp(rng.normal(0.0, 0.2)) * (not missing)
    units += _stray(rng)
    units *= np.array(who.gain)
    sides = units[:, None] * (1.0 + 0.10 * rng.standard_normal((len(ACTION_UNITS), 2)))
    return np.clip(sides, 0.0, 1.4)


def _stray(rng: np.random.Generator) -> Array:
    """Movement [A] that belongs to no expression: tremor of all units, speech, a hint of some other unit, a
    blink."""
    units = 0.05 * np.abs(rng.standard_normal(len(ACTION_UNITS)))
    units[AU[43]] = 0.0
    speaks, strays, blinks = rng.random(3)
    if speaks < 0.15:
        units[AU[25]] += rng.uniform(0.1, 0.5)
        units[AU[26]] += rng.uniform(0.0, 0.25)
    if strays < 0.3:
        units[int(rng.integers(len(ACTION_UNITS) - 1))] += rng.uniform(0.1, 0.4)
    if blinks < 0.04:
        units[AU[43]] += rng.uniform(0.6, 1.1)
    return units


Sides = tuple[list[float], list[float]]  # action units of the left and of the right half of the face


def _pair(
    units: Sides, base: float, weights: dict[int, float], low: float = -9.0, high: float = 9.0
) -> tuple[float, float]:
    """base + sum of weight * unit, per side, kept within [low, high]."""
    left, right = base, base
    for unit, weight in weights.items():
        row = AU[unit]
        left, right = left + weight * units[0][row], right + weight * units[1][row]
    return clip(left, low, high), clip(right, low, high)


def _mean(units: Sides, base: float, weights: dict[int, float], low: float = -9.0, high: float = 9.0) -> float:
    left, right = _pair(units, base, weights)
    return clip(0.5 * (left + right), low, high)


def geometry(who: Person, movement: Array) -> Geometry:
    """Positions of the features of `who` under the action units `movement` [A, 2]."""
    units: Sides = (movement[:, 0].tolist(), movement[:, 1].tolist())
    pair, both = functools.partial(_pair, units), functools.partial(_mean, units)
    return Geometry(
        brow_inner=pair(who.brow_inner, {1: -0.16, 2: -0.03, 4: 0.135, 9: 0.06}, high=-0.05),
        brow_mid=pair(who.brow_mid, {1: -0.045, 2: -0.14, 4: 0.08, 9: 0.03}, high=-0.07),
        brow_outer=pair(who.brow_outer, {1: 0.03, 2: -0.13, 4: -0.01}, high=-0.05),
        brow_pinch=both(0.0, {4: 0.055, 9: 0.02}),
        lid_upper=_upper_lids(who, units),
        lid_lower=pair(who.lid_lower, {5: 0.014, 6: -0.044, 7: -0.036, 9: -0.026}, low=0.004),
        cheek=pair(0.0, {6: 0.9, 12: 0.35, 9: 0.25}),
        nose_lift=both(0.0, {9: -0.06, 10: -0.02}),
        nose_wrinkle=both(0.0, {9: 1.0}),
        corner=pair(who.mouth_curve, {12: -0.18, 15: 0.16, 20: 0.03, 6: -0.012, 17: 0.02, 10: 0.05}),
        mouth_width=both(who.mouth_width, {12: 0.085, 20: 0.095, 23: -0.055, 26: -0.06, 15: -0.015, 17: -0.015}, 0.12),
        mouth_shift=both(0.0, {17: -0.022, 9: -0.02, 10: -0.02, 26: 0.02}),
        open_upper=both(-0.01, {10: 0.035, 25: 0.03, 26: 0.02, 12: 0.004}, low=0.0),
        open_lower=both(-0.01, {25: 0.06, 26: 0.20, 16: 0.06, 12: 0.004}, low=0.0),
        square=both(0.0, {20: 0.7, 16: 0.4, 10: 0.5, 12: 0.2}, high=1.0),
        lip_scale=both(1.0, {23: -0.55, 12: -0.18, 20: -0.2, 17: 0.05}, low=0.3),
        lip_upper_lift=both(0.0, {10: 0.06, 9: 0.03}),
        jaw=both(0.0, {26: 0.13, 25: 0.012}),
        frown=both(0.0, {4: 1.0, 9: 0.4}),
        forehead=both(0.0, {1: 0.5, 2: 0.6, 4: -0.2}, low=0.0),
        fold=pair(0.0, {12: 0.75, 9: 0.7, 10: 0.7, 6: 0.2, 20: 0.2}),
        chin_boss=both(0.0, {17: 1.0, 15: 0.25}),
    )


def _upper_lids(who: Person, units: Sides) -> tuple[float, float]:
    """Upper lid heights: the opening first, then what a closing eye takes from it."""
    left, right = _pair(units, who.lid_upper, {5: 0.065, 7: -0.03, 6: -0.018, 4: -0.008, 1: 0.006}, low=0.024)
    close = _pair(units, 0.0, {43: 0.105})
    return left - close[0], right - close[1]


# --------------------------------------------------------------------------------------------------- shots


def nuisance(rng: np.random.Generator, who: Person) -> Nuisance:
    """Random pose, light, camera, clothes and now and then something in front of the face."""
    warmth, level = rng.normal(0.0, 0.055), rng.uniform(0.82, 1.08)
    side, up = rng.normal(0.0, 0.5), rng.normal(-0.35, 0.35)
    length = math.sqrt(side * side + up * up + 1.0)
    return Nuisance(
        roll=rng.normal(0.0, 0.05),
        yaw=clip(rng.normal(0.0, 0.11), -0.3, 0.3),
        pitch=clip(rng.normal(0.0, 0.06), -0.15, 0.15),
        shift=(rng.normal(0.0, 0.025), rng.normal(0.0, 0.025)),
        scale=rng.uniform(0.94, 1.06),
        gaze=(rng.normal(0.0, 0.025), rng.normal(0.0, 0.012)),
        light=(side / length, up / length, 1.0 / length),
        ambient=rng.uniform(0.45, 0.75),
        tint=(level * (1.0 + warmth), level, level * (1.0 - warmth)),
        contrast=rng.uniform(0.8, 1.15),
        blur=0.9 * rng.uniform(0.0, 1.0) ** 2,
        noise=rng.uniform(0.0, 4.0),
        glasses_on=bool(who.glasses != 'none' and rng.random() < who.wears_glasses),
        cloth=times(CLOTH[int(rng.integers(len(CLOTH)))], rng.uniform(0.7, 1.2)),
        occluder=_occluder(rng),
        texture=int(rng.integers(2**31)),
    )


def _occluder(rng: np.random.Generator) -> tuple[float, ...]:
    """A rounded bar in front of the picture: u, v, half length, half width, direction, R, G, B; () for
    none."""
    if rng.random() > 0.07:
        return ()
    along, out = rng.uniform(-1.2, 1.2), rng.uniform(0.55, 1.0)
    u, v = (along, out) if rng.random() < 0.5 else (out * float(rng.choice((-1.0, 1.0))), along)
    colour = (SKIN + CLOTH)[int(rng.integers(len(SKIN) + len(CLOTH)))]
    return (u, v, rng.uniform(0.15, 0.6), rng.uniform(0.10, 0.22), rng.uniform(0.0, math.pi), *colour)


def shot(seed: int, index: int, number: int, expression: str | None = None, who: Person | None = None) -> Shot:
    """Picture `number` of person `index`, showing `expression`, or one drawn at random where that is None."""
    who = who or person(seed, index)
    rng = generator(seed, 2, index, number)
    drawn = EXPRESSIONS[int(rng.integers(len(EXPRESSIONS)))]
    expression = drawn if expression is None else expression
    if expression not in PROTOTYPES:
        raise ValueError(f'expression must be one of {EXPRESSIONS}, got {expression!r}')
    intensity = rng.uniform(0.45, 1.1)
    units = movement(who, expression, intensity, rng)
    return Shot(expression, intensity, units, geometry(who, units), nuisance(rng, who))
