"""Names for the values that travel between layers.

Shape letters, used in every docstring: B examples in a batch, H W C height, width and channels of an image,
F features, K classes, N examples in a set, S side of a stored square image, D devices.
"""

from collections.abc import Mapping
from typing import Any

import jax

Array = jax.Array
Key = jax.Array  # raw uint32 [2], as made by jax.random.PRNGKey
PyTree = Any

# 'image' float32 [B,H,W,C] in 0..255; 'label' int32 [B]; 'mask' bool [B], False for padding;
# 'position' int32 [B], the index of the example within the global batch (the same on any number of devices).
Batch = Mapping[str, Array]
