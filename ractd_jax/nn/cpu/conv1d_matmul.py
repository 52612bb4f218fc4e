"""Convolutions with stride 1 as matrix products, with gradients that are matrix products too."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from ractd_jax.nn.cpu import matmul

NARROW = 64  # channels up to which two steps share a row of a product in bfloat16


def columns(
    x: Shaped[Array, "batch length c"], width: int, stride: int = 1, pad: int = 0
) -> Shaped[Array, "batch length_out _"]:
    """Put `width` neighbours in x side by side: (batch, length_out, width * c).

    Args:
        x: input; its steps are stored one after the other, so each window is one slice.
        width: steps of a window.
        stride: steps between windows.
        pad: zeros on both sides.

    Example:
        >>> columns(jnp.arange(4.0).reshape(1, 4, 1), 3)[0].tolist()
        [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    """
    batch, length, c = x.shape
    if width == 1:
        return x[:, ::stride]
    flat = jnp.pad(x, ((0, 0), (pad, pad), (0, 0))).reshape(batch, -1)
    starts = range(0, length + 2 * pad - width + 1, stride)
    return jnp.stack([flat[:, i * c : (i + width) * c] for i in starts], axis=1)


# ---- one product over all neighbours -------------------------------------------------------------


@jax.custom_vjp
def conv1d_matmul(
    x: Float[Array, "batch length c_in"], kernel: Float[Array, "width c_in c_out"]
) -> Float[Array, "batch length c_out"]:
    """Convolve with stride 1 as one product, whose gradients are products over one set of columns.

    With the shifted copies of dy side by side, dx is their product with the kernel's taps, and the
    kernel's gradient that of x with them. Automatic differentiation of the forward product pads
    slices and adds them up instead, which takes a third of an update on a CPU.

    A second derivative would be zero in bfloat16.
    """
    return _matmul_forward(x, kernel)[0]


def _matmul_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    rounded, (width, _, c_out) = x.astype(kernel.dtype), kernel.shape
    transposed = matmul.reads_transposed(math.prod(x.shape[:2]), kernel)
    tile = _tile(x.shape[1], c_out, kernel.dtype)
    multiply = matmul.matmul_stored_transposed if transposed else matmul.matmul
    taps = _banded(kernel, tile, axis=2).reshape(-1, tile * c_out)
    y = multiply(_padded_columns(rounded, width, tile), taps)
    return y.reshape(*x.shape[:2], c_out).astype(x.dtype), (rounded, kernel)


def _matmul_backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    width, c_in, c_out = kernel.shape
    tile = _tile(x.shape[1], c_in, x.dtype)
    # From the last step to the first, so that dy's shifted copies are in the order of the taps.
    shifted = _padded_columns(dy[:, ::-1].astype(x.dtype), width, tile)
    taps = _banded(kernel, tile, axis=1).swapaxes(0, 1).reshape(tile * c_in, -1)
    dx = matmul.matmul_transposed(shifted, taps)
    dk = matmul.matmul(x[:, ::-1].reshape(-1, tile * c_in).T, shifted)
    dk = dk.reshape(tile, c_in, -1, c_out)
    dk = jnp.asarray(sum(dk[q, :, q : q + width] for q in range(tile)))
    dx = dx.reshape(x.shape)[:, ::-1].astype(dy.dtype)
    return dx, dk.swapaxes(0, 1).astype(kernel.dtype)


conv1d_matmul.defvjp(_matmul_forward, _matmul_backward)


def _padded_columns(x: Array, width: int, tile: int) -> Array:
    """Return the columns of x, zeros on both sides, for `tile` outputs a row; no derivative."""
    inputs = tile + width - 1
    bits = x if x.dtype == jnp.float32 else jax.lax.bitcast_convert_type(x, jnp.uint16)
    rows = columns(bits, inputs, tile, width // 2).reshape(-1, inputs * x.shape[-1])
    # XLA would move bfloat16 as float32.
    return rows if bits is x else jax.lax.bitcast_convert_type(rows, x.dtype)


def _tile(length: int, c_out: int, dtype: jnp.dtype) -> int:
    """Return how many steps' outputs share a row of the product.

    In bfloat16 a narrow product is slow, and two steps together need six neighbours, not ten. In
    inference the wider kernel would have to be transposed back.
    """
    narrow = dtype != jnp.float32 and c_out <= NARROW and length % 2 == 0
    return 2 if narrow and not matmul.in_inference() else 1


def _banded(kernel: Array, tile: int, axis: int) -> Array:
    """Return the kernel once for each output of a tile, with zeros where it sees no input."""
    shifted = [jnp.pad(kernel, ((q, tile - 1 - q), (0, 0), (0, 0))) for q in range(tile)]
    return jnp.concatenate(shifted, axis)


# ---- inputs shorter than the kernel --------------------------------------------------------------


@jax.custom_vjp
def conv1d_short(
    x: Float[Array, "batch length c_in"], kernel: Float[Array, "width c_in c_out"]
) -> Float[Array, "batch length c_out"]:
    """Convolve an input shorter than the kernel with stride 1, by one product for each output.

    An output sees one slice of the example, so that nothing is multiplied by the zeros around it:
    14 of the 20 products of a step and a tap remain, where the length is 4 and the width 5. For the
    kernel's gradient all inputs meet all outputs in one product, and pairs at the same distance are
    added up.
    """
    return _short_forward(x, kernel)[0]


def _short_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    rounded = x.astype(kernel.dtype)
    return _short_outputs(rounded, kernel).astype(x.dtype), (rounded, kernel)


def _short_outputs(x: Array, kernel: Array) -> Array:
    """Return the convolution of x with the kernel, in float32."""
    (batch, length, _), (width, _, c_out) = x.shape, kernel.shape

    def output(i: int) -> Array:
        first = i - width // 2  # input that the first tap sees
        inputs = x[:, max(first, 0) : first + width]
        taps = kernel[max(-first, 0) : length - first]
        return matmul.matmul(inputs.reshape(batch, -1), taps.reshape(-1, c_out))

    return jnp.stack([output(i) for i in range(length)], axis=1)


def _short_backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (batch, length, c_in), (width, _, c_out) = x.shape, kernel.shape
    rounded = dy.astype(x.dtype)
    dx = _short_outputs(rounded, kernel[::-1].swapaxes(1, 2))
    pairs = matmul.matmul(x.reshape(batch, -1).T, rounded.reshape(batch, -1))
    pairs = pairs.reshape(length, c_in, length, c_out)

    def tap(shift: int) -> Array:
        outputs = range(max(-shift, 0), length - max(shift, 0))
        return jnp.asarray(sum(pairs[i + shift, :, i] for i in outputs))

    dk = [tap(q - width // 2) for q in range(width)]
    return dx.astype(dy.dtype), jnp.stack(dk).astype(kernel.dtype)


conv1d_short.defvjp(_short_forward, _short_backward)
