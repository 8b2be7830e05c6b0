"""Four virtual CPU devices, strict shapes, and a way to start `launch.py` as a user does."""

import gc
import os

# Compiling is most of what the tests do: here it is kept cheap. Tests that start launch.py drop these flags.
FLAGS = '--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0'
os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {FLAGS}'.strip()
os.environ['JAX_PLATFORMS'] = 'cpu'

import jax  # noqa: E402
import pytest  # noqa: E402
from absl import flags  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')

# A user's process imports one tool, a test process several, and each defines its --workdir: the last one counts.
_set_flag = flags.FlagValues.__setitem__


def _set_or_replace(values: flags.FlagValues, name: str, flag: flags.Flag) -> None:
    flag.allow_override = True
    _set_flag(values, name, flag)


flags.FlagValues.__setitem__ = _set_or_replace


@pytest.fixture(scope='session', autouse=True)
def _four_devices():
    assert jax.local_device_count() == 4, 'jax was started before tests/conftest.py could ask for four devices'


@pytest.fixture
def _orbax_leftovers():
    """Reading a damaged checkpoint fails in several of orbax's threads, and one error is collected: the others must
    not surface as warnings in whatever test runs when they are cleaned up."""
    yield
    gc.collect()
