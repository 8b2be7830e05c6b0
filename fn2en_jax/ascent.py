"""The input that excites a neuron most, by regularised gradient ascent (Simonyan et al. 2014, Yosinski et al. 2015)."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from fn2en_jax.types import Array, Key, PyTree


@dataclasses.dataclass(frozen=True)
class Ascent:
    """How the ascent goes. Without regularisation it ends in noise that excites the neuron and shows nothing.

    Lengths are parts of the image's side, so that one setting serves images of all sizes. What has a first and a last
    value goes from one to the other linearly.

    Attributes:
        steps: how many.
        step_size, last_step_size: root mean square of the change of a step, in grey levels: gradients are scaled to it,
            image by image.
        copies: moved copies of an image over which the gradient of a step is averaged.
        jitter: how far a copy is rolled either way at most.
        mirror: every second copy is the mirror image of the one before it.
        blur, last_blur: standard deviation of the Gaussian that is applied after a step.
        decay: part of the distance to the starting colour that is lost in every step.
        chroma: what part of the difference between the colours of a gradient is followed. In photographs the colours
            of a pixel go together; nets left to themselves paint in green and magenta.
        noise: standard deviation of the noise that it starts from, in grey levels.
    """

    steps: int
    step_size: float
    last_step_size: float
    copies: int
    jitter: float
    mirror: bool
    blur: float
    last_blur: float
    decay: float
    chroma: float
    noise: float


Scores = Callable[[PyTree, Array], Array]


def start(spec: Ascent, key: Key, colour: Array, count: int, side: int) -> Array:
    """Noise around a colour [C], `count` times the same: float32 [count,side,side,C] in 0..255."""
    shape = (side, side, len(colour))
    noise = spec.noise * jax.random.normal(key, shape)
    image = jnp.clip(noise + jnp.reshape(colour, (1, 1, -1)), 0.0, 255.0)
    return jnp.broadcast_to(image, (count, *shape))


@functools.partial(jax.jit, static_argnums=(0, 1))
def maximise(spec: Ascent, scores: Scores, variables: PyTree, images: Array, colour: Array, key: Key) -> Array:
    """Climbs all neurons at once, one image each, in one compiled loop.

    Args:
        spec: how.
        scores: (variables, images [K,H,W,C] in 0..255) -> [K], what the k-th image is to maximise; hashable.
        variables: of the net.
        images: where to start, [K,H,W,C].
        colour: [C], what `decay` pulls towards.
        key: of the jitter; all images of a step are moved alike.

    Returns:
        The images, [K,H,W,C] in 0..255.
    """
    side = images.shape[1]
    reach = round(spec.jitter * side)
    rest = jnp.reshape(colour, (1, 1, 1, -1)).astype(jnp.float32)

    def total(images: Array, key: Key) -> Array:
        return jnp.sum(jax.vmap(lambda copy: scores(variables, copy))(_copies(spec, images, reach, key)))

    def step(index: Array, images: Array) -> Array:
        slope = _scaled(_paler(jax.grad(total)(images, jax.random.fold_in(key, index)), spec.chroma))
        done = index / max(1, spec.steps - 1)
        images = images + _between(spec.step_size, spec.last_step_size, done) * slope
        images = rest + (1.0 - spec.decay) * (images - rest)
        images = blurred(images, side * _between(spec.blur, spec.last_blur, done))
        return jnp.clip(images, 0.0, 255.0)

    return jax.lax.fori_loop(0, spec.steps, step, images.astype(jnp.float32))


def _copies(spec: Ascent, images: Array, reach: int, key: Key) -> Array:
    """The images [K,H,W,C] rolled at random, every second time mirrored before: [copies,K,H,W,C]."""
    shifts = jax.random.randint(key, (spec.copies, 2), -reach, reach + 1)

    def copy(index: Array, shift: Array) -> Array:
        turned = jnp.where(spec.mirror & (index % 2 == 1), images[:, :, ::-1], images)
        return jnp.roll(turned, shift, (1, 2))

    return jax.vmap(copy)(jnp.arange(spec.copies), shifts)


def _between(first: float, last: float, done: Array) -> Array:
    return first + done * (last - first)


def blurred(images: Array, deviation: Array | float) -> Array:
    """Images [B,H,W,C] under a Gaussian of this standard deviation in pixels; at the border over what there is.

    A deviation near 0 leaves them as they are.
    """
    rows, columns = (_gaussian(side, deviation) for side in images.shape[1:3])
    return jnp.einsum('bhwc,ih,jw->bijc', images, rows, columns, precision='highest')


def _gaussian(side: int, deviation: Array | float) -> Array:
    """[side,side]: row i holds the weights of the pixels around i, which add up to 1."""
    distance = (jnp.arange(side)[:, None] - jnp.arange(side)[None, :]).astype(jnp.float32)
    weights = jnp.exp(-0.5 * (distance / jnp.maximum(deviation, 1e-3)) ** 2)
    return weights / weights.sum(1, keepdims=True)


def _paler(gradient: Array, chroma: float) -> Array:
    grey = gradient.mean(3, keepdims=True)
    return grey + chroma * (gradient - grey)


def _scaled(gradient: Array) -> Array:
    """Every image's gradient with a root mean square of 1; one that is zero stays so."""
    size = jnp.sqrt(jnp.mean(gradient**2, axis=(1, 2, 3), keepdims=True))
    return gradient / jnp.maximum(size, 1e-20)
