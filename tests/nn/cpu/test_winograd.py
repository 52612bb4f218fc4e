"""Convolutions in fewer multiplications: the same result, and only where they are worth it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ractd_jax.bench import floor
from ractd_jax.nn.cpu import conv1d, cpuinfo, matmul, winograd


@pytest.mark.parametrize(("outputs", "taps"), [(4, 5), (4, 4), (4, 3), (2, 3)])
def test_matrices_give_the_correlation(outputs, taps):
    a, b, g = winograd.matrices(outputs, taps)
    rng = np.random.default_rng(0)
    x, k = rng.normal(size=outputs + taps - 1), rng.normal(size=taps)
    np.testing.assert_allclose(a @ ((g @ k) * (b @ x)), np.correlate(x, k), atol=1e-12)


@pytest.mark.parametrize("batch", [16, 2])  # few rows are multiplied the other way round
@pytest.mark.parametrize("width", [3, 5])
@pytest.mark.parametrize("length", [4, 8, 12])
def test_winograd_equals_the_convolution_in_value_and_gradients(key, length, width, batch):
    key_x, key_kernel, key_y = jax.random.split(key, 3)
    x = jax.random.normal(key_x, (batch, length, 32))
    kernel = jax.random.normal(key_kernel, (width, 32, 24))
    cotangent = jax.random.normal(key_y, (batch, length, 24))
    plain = functools.partial(conv1d.conv1d, as_matmul=False)

    def all_of(f):
        y, pullback = jax.vjp(f, x, kernel)
        return y, *pullback(cotangent)

    for fewer, exact in zip(all_of(winograd.conv1d), all_of(plain), strict=True):
        np.testing.assert_allclose(fewer, exact, atol=3e-5 * float(exact.std()))

    def rounded(x, kernel):
        return winograd.conv1d(x, kernel.astype("bfloat16"))

    for fewer, exact in zip(all_of(rounded), all_of(plain), strict=True):
        assert fewer.dtype == exact.dtype
        error = float(jnp.std(fewer - exact) / exact.std())
        assert 2e-3 < error < 0.02  # 0.0024 of the factors' rounding, some four times as large


@pytest.mark.parametrize(("length", "products_of_20"), [(16, 8), (8, 8), (4, 7)])
def test_four_outputs_of_five_taps_take_eight_products_of_one_tile_seven(length, products_of_20):
    x, kernel = jnp.zeros((64, length, 8)), jnp.zeros((5, 8, 16))
    exact = 2 * x.size * 5 * 16
    loss = lambda x, kernel: jnp.sum(winograd.conv1d(x, kernel) ** 2)  # noqa: E731
    share = products_of_20 / 20  # and a little for the kernel's part, once
    assert share <= floor.operations(winograd.conv1d, x, kernel) / exact < 1.1 * share
    # Gradients as many for x and as many for the kernel.
    done = floor.operations(jax.grad(loss, (0, 1)), x, kernel)
    assert share <= done / (3 * exact) < 1.1 * share


def uses_fewer(batch, length, width, dtype="float32"):
    x, kernel = jnp.zeros((batch, length, 8), dtype), jnp.zeros((width, 8, 8), dtype)
    f = functools.partial(conv1d.conv1d, as_matmul=True)
    return floor.operations(f, x, kernel) < 2 * x.size * width * 8


def test_winograd_is_used_where_rows_are_many():
    assert uses_fewer(64, 4, 5)
    assert uses_fewer(16, 16, 5)
    assert not uses_fewer(63, 4, 5)
    with matmul.transposed_kernels():  # inference: the kernel's part serves one call
        assert uses_fewer(256, 4, 5)
        assert not uses_fewer(255, 4, 5)


def test_other_lengths_and_widths_are_convolved_plainly():
    assert not uses_fewer(128, 6, 5)  # no whole tiles
    assert not uses_fewer(128, 8, 1)
    assert not uses_fewer(128, 8, 7)  # ten points: rounding would show


def test_bfloat16_has_fewer_products_in_training_where_they_take_long(monkeypatch):
    for tiles in (False, True):
        monkeypatch.setattr(cpuinfo, "multiplies_bfloat16_in_tiles", lambda tiles=tiles: tiles)
        assert uses_fewer(128, 8, 5, "bfloat16") == (not tiles)
        with matmul.transposed_kernels():
            assert not uses_fewer(256, 8, 5, "bfloat16")


def test_what_is_traced_with_xla_convolutions_convolves_every_tap():
    x, kernel = jnp.zeros((64, 8, 8)), jnp.zeros((5, 8, 16))
    loss = lambda x, kernel: jnp.sum(conv1d.conv1d(x, kernel) ** 2)  # noqa: E731
    gradients = jax.grad(loss, (0, 1))
    fewer = floor.operations(gradients, x, kernel)
    with conv1d.xla_convolutions():
        exact = floor.operations(gradients, x, kernel)
    assert exact == 3 * 2 * x.size * 5 * 16
    assert fewer < 0.5 * exact if jax.default_backend() == "cpu" else fewer == exact
