"""Small made-up sets of images for tests."""

import numpy as np

from fn2en_jax.data.examples import Examples


class OnDemand:
    """Images that are handed out on request, and count the requests."""

    def __init__(self, images: np.ndarray):
        self._images = images
        self.shape = images.shape
        self.requests = 0

    def __len__(self) -> int:
        return len(self._images)

    def gather(self, ids: np.ndarray) -> np.ndarray:
        self.requests += 1
        return self._images[ids]


def make(count: int, *, size: int = 36, classes: int = 3, channels: int = 3, on_demand: bool = False) -> Examples:
    """Noise whose brightness and tint depend on the label; the first pixel of image i is i."""
    draw = np.random.default_rng(7)
    labels = np.arange(count, dtype=np.int32) % classes
    images = draw.integers(0, 120, (count, size, size, channels)).astype(np.uint8)
    images += (labels * (120 // classes)).astype(np.uint8)[:, None, None, None]
    images[:, 0, 0, 0] = np.arange(count) % 256
    return Examples(
        images=OnDemand(images) if on_demand else images,
        labels=labels,
        class_names=tuple(f'class{k}' for k in range(classes)),
        subjects=tuple(f'person{i // classes}' for i in range(count)),
        files=tuple(f'{i:04}.png' for i in range(count)),
    )
