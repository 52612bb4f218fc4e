"""Maps to the scale of models go there and back, on numpy and on JAX arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ractd_jax import config, errors
from ractd_jax.data import normalization


@given(st.integers(1, 50), st.integers(1, 4), st.floats(0.01, 100.0), st.floats(-100.0, 100.0))
def test_normalizer_spans_the_unit_box_and_goes_back(n, dim, size, shift):
    x = (size * np.random.default_rng(n).normal(size=(n, dim)) + shift).astype(np.float32)
    affine = normalization.minmax(x)
    y = normalization.normalize(x, affine)
    precision = 1e-6 * (1 + (np.abs(x) * affine.scale).max())  # of float32 far from the origin
    np.testing.assert_allclose(normalization.unnormalize(y, affine), x, rtol=1e-3, atol=1e-3)
    if n > 1:
        np.testing.assert_allclose(y.min(axis=0), -1.0, atol=precision)
        np.testing.assert_allclose(y.max(axis=0), 1.0, atol=precision)


def test_a_constant_dimension_is_only_shifted():
    x = np.array([[5.0, 0.0], [5.0, 2.0]], np.float32)
    affine = normalization.minmax(x)
    assert affine.scale.tolist() == [1.0, 1.0]
    assert normalization.normalize(x, affine).tolist() == [[0.0, -1.0], [0.0, 1.0]]


def test_normalizer_agrees_on_jax_and_numpy_of_any_rank():
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    affine = normalization.minmax(x)
    with jax.numpy_rank_promotion("raise"):
        y = jax.jit(normalization.normalize)(jnp.asarray(x).reshape(2, 3, 3), affine)
        z = normalization.normalize(jnp.asarray(x[0]), affine)
        scalar = normalization.normalize(jnp.asarray(x[:, 0]), normalization.minmax(x[:, 0]))
    np.testing.assert_allclose(y.reshape(6, 3), normalization.normalize(x, affine), atol=1e-6)
    np.testing.assert_allclose(z, y[0, 0], atol=1e-6)
    np.testing.assert_allclose(scalar, y.reshape(6, 3)[:, 0], atol=1e-6)


def test_there_is_a_map_for_every_word_of_the_configuration():
    x = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    for word in config.NORMALIZATIONS:
        normalizer = normalization.fit(word, x, x)
        assert normalizer.returns.scale == 1
        assert normalizer.returns.offset == 0
    with pytest.raises(errors.FieldError, match="Did you mean 'standard'"):
        normalization.fit("standart", x, x)


def test_a_gap_is_the_largest_difference_in_the_box():
    a = normalization.Affine(np.float32([1.0, 2.0]), np.float32([0.0, 0.5]))
    assert normalization.gap(a, a) == 0
    shifted = a._replace(offset=np.float32([0.0, 0.75]))
    assert normalization.gap(a, shifted) == pytest.approx(0.25)
    wider = a._replace(scale=np.float32([1.5, 2.0]))
    assert normalization.gap(a, wider) == pytest.approx(0.5)
