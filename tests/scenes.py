"""Rendered faces in larger pictures, with the places of their eyes."""

import math

import numpy as np

from fn2en_jax.data import synthetic, synthetic_persons

SEEN = (3, 4, 5, 6, 8, 9)  # persons whom the cascades, made from photographs, take for faces at every angle


def face(
    index: int, size: int, *, degrees: float = 0.0, expression: str = 'neutral', channels: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """A frontal face uint8 [size, size, channels] that leans clockwise, and its eyes [2, 2] in pixels."""
    who = synthetic_persons.person(0, index)
    what = synthetic_persons.shot(0, index, 0, expression, who)
    plain = what.nuisance._replace(
        roll=math.radians(degrees), yaw=0.0, pitch=0.0, glasses_on=False, occluder=(), shift=(0.0, 0.0), scale=0.8
    )
    canvas = synthetic._Canvas(plain, size)
    eyes = [canvas.project(side * who.eye_x, who.eye_y) for side in (-1, 1)]
    image = synthetic.draw(who, what._replace(nuisance=plain), size, channels)
    return image, np.array([(column / 2, row / 2) for row, column in eyes])


def scene(
    *parts: tuple[tuple[np.ndarray, np.ndarray], tuple[int, int]], shape: tuple[int, int] = (240, 320)
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Faces pasted with their upper left corners (x, y) on a smooth background, and the eyes of each."""
    channels = parts[0][0][0].shape[2]
    shade = np.linspace(70, 160, shape[1], dtype=np.float32)[None, :, None]
    picture = np.broadcast_to(shade, (*shape, channels)).astype(np.uint8)
    for (image, _), (x, y) in parts:
        picture[y : y + image.shape[0], x : x + image.shape[1]] = image
    return picture, [eyes + corner for (_, eyes), corner in parts]
