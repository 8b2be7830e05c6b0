"""The baseline "VGG fine-tune": the face net goes on training on expressions; afterwards it is FN2EN's teacher."""

from collections.abc import Mapping

from fn2en_jax import trees
from fn2en_jax.types import PyTree

# The classifier of identities is not carried over: expressions get a new one, trained at a higher rate.
NEW_LAYERS = r'fc8/.*'
DENSE_LAYERS = r'fc[67](_bn)?/.*'


def from_face_net(
    variables: Mapping[str, PyTree], face: Mapping[str, PyTree], *, convolutions_only: bool = False
) -> dict[str, PyTree]:
    """Takes everything but the classifier from a face net.

    Args:
        variables: `VGGFace.init(...)` for the expression classes.
        face: variables of a face net of the same width; its classifier may have any number of identities, and is
            dropped.
        convolutions_only: `face` has no fc6 and fc7; those of `variables` stay.

    Returns:
        Variables to fine-tune.

    Raises:
        UserError: naming what is missing, surplus or of another shape.
    """
    skip = (NEW_LAYERS,)
    absent = (*skip, DENSE_LAYERS) if convolutions_only else skip
    return {
        collection: trees.strict_merge(own, face.get(collection, {}), allow_missing=absent, allow_surplus=skip)
        for collection, own in variables.items()
    }
