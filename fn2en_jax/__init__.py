"""FaceNet2ExpNet in JAX. `fn2en_jax.load(path)` opens a trained net; everything else is in the modules."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fn2en_jax.predictor import load

__all__ = ['load']


def __getattr__(name: str) -> Any:
    """`load`, imported when it is asked for: importing the package stays cheap."""
    if name == 'load':
        from fn2en_jax.predictor import load

        return load
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
