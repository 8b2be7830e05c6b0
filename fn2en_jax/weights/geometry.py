"""What VGG-16 does with its kernels: how wide they are, how they step and pad, compared with what a file says of it."""

from collections.abc import Mapping, Sequence

from fn2en_jax.errors import UserError
from fn2en_jax.weights.binary import shown
from fn2en_jax.weights.canonical import CONVOLUTIONS, DENSE

KERNEL, STRIDE, PADDING, DILATION = 'kernel', 'stride', 'padding', 'dilation'
Stated = Mapping[str, Sequence[float]]  # numbers of a layer by what they say, as many as the file gives
_CONVOLUTION = {KERNEL: 3, STRIDE: 1, PADDING: 1, DILATION: 1}
_DENSE = {STRIDE: 1, PADDING: 0, DILATION: 1}  # as a convolution; the kernel is as large as the map
_POOL = {KERNEL: 2, STRIDE: 2, PADDING: 0}


def check_layer(layer: str, title: str, stated: Stated) -> None:
    """Compares what is stated of a layer with weights. Raises UserError, naming it `title`, when VGG-16 differs."""
    if layer in CONVOLUTIONS:
        _check(title, stated, _CONVOLUTION)
    elif layer in DENSE:
        _check(title, stated, _DENSE)


def check_pool(title: str, stated: Stated) -> None:
    """The same for a layer that pools."""
    _check(title, stated, _POOL)


def _check(title: str, stated: Stated, expected: Mapping[str, int]) -> None:
    for what, values in stated.items():
        other = [value for value in values if value != expected.get(what, value)]
        if other:
            raise UserError(
                f'{shown(title)} has a {what} of {other[0]:g} where VGG-16 has {expected[what]}; this is another net'
            )
