"""Convolutions along the horizon as matrix products, on a CPU many times faster than XLA's own."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax import products

BANDED = 128  # examples from which a banded matrix, larger than the kernel, is worth making


def _columns(x: Array, width: int, stride: int = 1, pad: int = 0) -> Array:
    """Lay `width` neighbours in x (batch, length, c) side by side: (batch, _, width * c).

    Rows lie one after the other in memory, so each window is one slice of a flattened example.
    """
    batch, length, c = x.shape
    if width == 1:
        return x[:, ::stride]
    flat = jnp.pad(x, ((0, 0), (pad, pad), (0, 0))).reshape(batch, -1)
    starts = range(0, length + 2 * pad - width + 1, stride)
    return jnp.stack([flat[:, i * c : (i + width) * c] for i in starts], axis=1)


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    """Convolve with stride 1 as one product, whose gradients are products over one set of columns.

    With dy's shifted copies beside each other, dx is their product with the kernel turned round and
    dK that of x with them. What automatic differentiation makes of the forward product instead,
    slices padded and added up, takes a third of an update on a CPU.
    """
    width, c_in, c_out = kernel.shape
    return products.product(_columns(x, width, pad=width // 2), kernel.reshape(width * c_in, c_out))


def _product_forward(x, kernel):
    return _product(x, kernel), (x, kernel)


def _product_backward(saved, dy):
    x, kernel = saved
    width, c_in, c_out = kernel.shape
    columns = _columns(dy, width, pad=width // 2)
    turned = kernel[::-1].swapaxes(1, 2).reshape(width * c_out, c_in)
    dk = jnp.einsum("blc,blk->ck", x, columns).reshape(c_in, width, c_out)
    return columns @ turned, dk[:, ::-1].swapaxes(0, 1)


_product.defvjp(_product_forward, _product_backward)


def _banded(kernel: Array, length: int) -> Array:
    """Return the matrix (length c_in, length c_out) by which a convolution of stride 1 multiplies.

    Block (i, o) is the tap through which output o sees input i, zero where there is none.
    """
    width, c_in, c_out = kernel.shape
    around = length - 1 - width // 2
    taps = jnp.pad(kernel[::-1], ((around, around), (0, 0), (0, 0))).swapaxes(0, 1)
    rows = [taps[:, length - 1 - i : 2 * length - 1 - i] for i in range(length)]
    return jnp.concatenate([row.reshape(c_in, length * c_out) for row in rows])


@jax.custom_vjp
def _banded_product(x: Array, kernel: Array) -> Array:
    """Convolve with stride 1 by the banded matrix; the gradient of a tap is a sum over a band."""
    batch, length, _ = x.shape
    return (x.reshape(batch, -1) @ _banded(kernel, length)).reshape(batch, length, -1)


def _banded_forward(x, kernel):
    return _banded_product(x, kernel), (x, kernel)


def _banded_backward(saved, dy):
    x, kernel = saved
    (batch, length, c_in), (width, _, c_out) = x.shape, kernel.shape
    flat = dy.reshape(batch, -1)
    dx = (flat @ _banded(kernel, length).T).reshape(x.shape)
    blocks = (x.reshape(batch, -1).T @ flat).reshape(length, c_in, length, c_out)

    def band(tap):  # what output o sees through it is input o + before
        before = tap - width // 2
        return sum(
            blocks[o + before, :, o] for o in range(max(0, -before), length - max(0, before))
        )

    return dx, jnp.stack([band(tap) for tap in range(width)])


_banded_product.defvjp(_banded_forward, _banded_backward)


def conv1d(
    x: Float[Array, "batch length c_in"],
    kernel: Float[Array, "width c_in c_out"],
    *,
    stride: int = 1,
    as_product: bool | None = None,
) -> Float[Array, "batch length_out c_out"]:
    """Convolve along the second axis with zero padding width // 2 on both sides.

    Args:
        x: input.
        kernel: weights, of odd width; their layout does not depend on how it is computed.
        stride: step between outputs.
        as_product: compute it as one matrix product, which on CPUs is many times faster than XLA's
            convolution: over the shifted copies of x or, where most of them would be padding and
            the batch is worth it, by the banded matrix. None decides by the default backend.
    """
    width, c_in, c_out = kernel.shape
    batch, length, _ = x.shape
    if as_product is None:
        as_product = jax.default_backend() == "cpu"
    if not as_product:
        pads = [(width // 2, width // 2)]
        return jax.lax.conv_general_dilated(
            x, kernel, (stride,), pads, dimension_numbers=("NWC", "WIO", "NWC")
        )
    if stride > 1:
        columns = _columns(x, width, stride, width // 2)
        return products.product(columns, kernel.reshape(width * c_in, c_out))
    if width // 2 < length < width and batch >= BANDED:
        return _banded_product(x, kernel)
    return _product(x, kernel)


def conv1d_transpose(
    x: Float[Array, "batch length c_in"],
    kernel: Float[Array, "4 c_in c_out"],
    *,
    as_product: bool | None = None,
) -> Float[Array, "batch 2*length c_out"]:
    """Double the length: transposed convolution of width 4, stride 2, padding 1.

    Output 2m sees x[m] through tap 1 and x[m-1] through tap 3; output 2m+1 sees x[m] through
    tap 2 and x[m+1] through tap 0. That is two matrix products whose results interleave.
    """
    batch, length, _ = x.shape
    _, c_in, c_out = kernel.shape
    if as_product is None:
        as_product = jax.default_backend() == "cpu"
    if as_product and products.few(2 * batch * length):
        # Reading the kernel once, as it lies, is worth multiplying by zeros.
        around = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        zero, before, after = jnp.zeros_like(x), around[:, :-2], around[:, 2:]
        even = jnp.concatenate([zero, x, zero, before], axis=-1)
        odd = jnp.concatenate([after, zero, x, zero], axis=-1)
        columns = jnp.stack([even, odd], axis=2).reshape(batch, 2 * length, -1)
        return products.product(columns, kernel.reshape(4 * c_in, c_out))
    if as_product:
        pairs = _columns(x, 2, pad=1)  # (x[m-1], x[m]), m = 0..L
        even = pairs[:, :-1] @ jnp.concatenate([kernel[3], kernel[1]])
        odd = pairs[:, 1:] @ jnp.concatenate([kernel[2], kernel[0]])
        return jnp.stack([even, odd], axis=2).reshape(batch, 2 * length, c_out)
    return jax.lax.conv_general_dilated(
        x, kernel[::-1], (1,), [(2, 2)], lhs_dilation=(2,), dimension_numbers=("NWC", "WIO", "NWC")
    )
