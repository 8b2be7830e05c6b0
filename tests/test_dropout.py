import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fn2en_jax import rng
from fn2en_jax.models.dropout import dropout

KEYS = rng.per_example(rng.stream(0, 'dropout'), jnp.arange(8))


def test_dropout_keeps_the_mean_and_zeroes_the_named_share():
    found = dropout(jnp.ones((8, 4000)), KEYS, 0.25)
    np.testing.assert_allclose(np.unique(found), [0.0, 1 / 0.75], rtol=1e-6)
    assert abs(float(jnp.mean(found == 0)) - 0.25) < 0.01
    assert abs(float(jnp.mean(found)) - 1.0) < 0.02


def test_no_keys_or_rate_zero_is_the_identity():
    x = jax.random.normal(KEYS[0], (8, 5))
    np.testing.assert_array_equal(dropout(x, None, 0.5), x)
    np.testing.assert_array_equal(dropout(x, KEYS, 0.0), x)


def test_an_example_does_not_depend_on_its_batch():
    x = jax.random.normal(KEYS[0], (8, 50))
    whole = dropout(x, KEYS, 0.5)
    np.testing.assert_array_equal(
        jnp.concatenate([dropout(x[:3], KEYS[:3], 0.5), dropout(x[3:], KEYS[3:], 0.5)]), whole
    )
    assert len(np.unique(np.asarray(whole == 0), axis=0)) == 8


def test_layers_draw_differently():
    x = jnp.ones((8, 50))
    assert (dropout(x, KEYS, 0.5, layer=0) != dropout(x, KEYS, 0.5, layer=1)).any()


def test_the_dtype_stays_and_dropped_infinities_are_zero():
    x = jnp.full((8, 50), jnp.inf, jnp.bfloat16)
    found = dropout(x, KEYS, 0.5)
    assert found.dtype == jnp.bfloat16
    assert set(np.unique(np.asarray(found, np.float32))) == {0.0, np.inf}


@pytest.mark.parametrize('rate', [1.0, -0.1, 1.5])
def test_a_rate_that_cannot_be_is_an_error(rate):
    with pytest.raises(ValueError, match='dropout rate'):
        dropout(jnp.ones((8, 2)), KEYS, rate)
