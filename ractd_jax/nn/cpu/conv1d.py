"""Convolutions along the horizon as matrix products, on a CPU many times faster than XLA's own."""

import contextlib
import contextvars
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax.nn.cpu import cpuinfo, matmul, winograd

# Rows of a product (examples times their tiles of four steps) from which Winograd's are worth
# working out the kernel's part for them: in training, where that serves several calls; in acting.
ROWS = 64, 256
NARROW = 64  # outputs of a step, up to which two steps share a row of a product in bfloat16

_plain: contextvars.ContextVar[bool] = contextvars.ContextVar("plain", default=False)


@contextlib.contextmanager
def plain():
    """Let what is traced meanwhile convolve as XLA does, whose operations are easily counted."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def _as_product() -> bool:
    return jax.default_backend() == "cpu" and not _plain.get()


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


def _columns_around(x: Array, width: int, tile: int) -> Array:
    """Return `_columns` for `tile` outputs a row, of zeros on both sides; it has no derivative."""
    inputs = tile + width - 1
    bits = x if x.dtype == jnp.float32 else jax.lax.bitcast_convert_type(x, jnp.uint16)
    columns = _columns(bits, inputs, tile, width // 2).reshape(-1, inputs * x.shape[-1])
    # XLA would move bfloat16 as float32.
    return columns if bits is x else jax.lax.bitcast_convert_type(columns, x.dtype)


def _tile(length: int, c_out: int, dtype: jnp.dtype) -> int:
    """Return how many steps' outputs share a row of the product.

    In bfloat16 a narrow product is slow, and two steps together need six neighbours, not ten. In
    acting kernels lie turned, so that more of them than there is would be turned back.
    """
    narrow = dtype != jnp.float32 and c_out <= NARROW and length % 2 == 0
    return 2 if narrow and not matmul.acting() else 1


def _band(kernel: Array, tile: int, axis: int) -> Array:
    """Return the kernel once for each output of a tile, among zeros where that sees no input."""
    shifted = [jnp.pad(kernel, ((q, tile - 1 - q), (0, 0), (0, 0))) for q in range(tile)]
    return jnp.concatenate(shifted, axis)


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    """Convolve with stride 1 as one product, whose gradients are products over one set of columns.

    With dy's shifted copies beside each other, dx is their product with the kernel's taps and dK
    that of x with them. What automatic differentiation makes of the forward product instead,
    slices padded and added up, takes a third of an update on a CPU. A second derivative would be
    zero in bfloat16.
    """
    return _product_forward(x, kernel)[0]


def _product_forward(x, kernel):
    near, (width, _, c_out) = x.astype(kernel.dtype), kernel.shape
    few = matmul.few(math.prod(x.shape[:2]), kernel)
    tile = _tile(x.shape[1], c_out, kernel.dtype)
    multiply = matmul.matmul_turned if few else matmul.matmul
    taps = _band(kernel, tile, axis=2).reshape(-1, tile * c_out)
    y = multiply(_columns_around(near, width, tile), taps)
    return y.reshape(*x.shape[:2], c_out).astype(x.dtype), (near, kernel)


def _product_backward(saved, dy):
    x, kernel = saved
    width, c_in, c_out = kernel.shape
    tile = _tile(x.shape[1], c_in, x.dtype)
    # From the last step to the first: so dy's shifted copies lie in the order of the kernel's taps.
    columns = _columns_around(dy[:, ::-1].astype(x.dtype), width, tile)
    taps = _band(kernel, tile, axis=1).swapaxes(0, 1).reshape(tile * c_in, -1)
    dx = matmul.matmul_transposed(columns, taps)
    dk = matmul.matmul(x[:, ::-1].reshape(-1, tile * c_in).T, columns)
    dk = dk.reshape(tile, c_in, -1, c_out)
    dk = sum(dk[q, :, q : q + width] for q in range(tile))
    dx = dx.reshape(x.shape)[:, ::-1].astype(dy.dtype)
    return dx, dk.swapaxes(0, 1).astype(kernel.dtype)


_product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def _short(x: Array, kernel: Array) -> Array:
    """Convolve an input shorter than the kernel with stride 1, by one product for each output.

    What an output sees is a slice of the example, without columns or zeros around it: 14 of 20
    products of a step and a tap, where the length is 4 and the width 5. For the kernel's gradient
    all inputs meet all outputs in one product, and those at the same distance are added up.
    """
    return _short_forward(x, kernel)[0]


def _short_forward(x, kernel):
    near = x.astype(kernel.dtype)
    return _outputs(near, kernel).astype(x.dtype), (near, kernel)


def _outputs(x: Array, kernel: Array) -> Array:
    """Return the convolution of x with the kernel, in float32."""
    (batch, length, _), (width, _, c_out) = x.shape, kernel.shape

    def output(i):
        first = i - width // 2  # input that the first tap sees
        inputs = x[:, max(first, 0) : first + width]
        taps = kernel[max(-first, 0) : length - first]
        return matmul.matmul(inputs.reshape(batch, -1), taps.reshape(-1, c_out))

    return jnp.stack([output(i) for i in range(length)], axis=1)


def _short_backward(saved, dy):
    x, kernel = saved
    (batch, length, c_in), (width, _, c_out) = x.shape, kernel.shape
    near = dy.astype(x.dtype)
    dx = _outputs(near, kernel[::-1].swapaxes(1, 2))
    pairs = matmul.matmul(x.reshape(batch, -1).T, near.reshape(batch, -1))
    pairs = pairs.reshape(length, c_in, length, c_out)
    shifts = [tap - width // 2 for tap in range(width)]
    dk = [sum(pairs[i + s, :, i] for i in range(max(-s, 0), length - max(s, 0))) for s in shifts]
    return dx.astype(dy.dtype), jnp.stack(dk).astype(kernel.dtype)


_short.defvjp(_short_forward, _short_backward)


def _convolution(x: Array, kernel: Array, *args, **kwargs) -> Array:
    """Convolve as XLA does, numbers rounded to the kernel's type."""
    near, names = x.astype(kernel.dtype), ("NWC", "WIO", "NWC")
    y = jax.lax.conv_general_dilated(near, kernel, *args, dimension_numbers=names, **kwargs)
    return y.astype(x.dtype)


def _fewer_pay(dtype: jnp.dtype) -> bool:
    """Return whether fewer products are worth the sums around them.

    In bfloat16 they are in training, unless the processor does its products in next to no time.
    """
    if dtype == jnp.float32:
        return True
    return not (matmul.acting() or cpuinfo.multiplies_bfloat16_in_tiles())


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
            convolution: over the shifted copies of x or, where there are many rows, in the fewer
            products of `winograd`. None decides by the default backend.
    """
    width, c_in, c_out = kernel.shape
    batch, length, _ = x.shape
    if as_product is None:
        as_product = _as_product()
    if not as_product:
        pads = [(width // 2, width // 2)]
        return _convolution(x, kernel, (stride,), pads)
    if stride > 1 or width == 1:
        columns = _columns(x, width, stride, width // 2)
        return matmul.product(columns, kernel.reshape(width * c_in, c_out))
    enough = batch * length // winograd.TILE >= ROWS[matmul.acting()]
    if enough and _fewer_pay(kernel.dtype) and winograd.serves(length, width):
        return winograd.conv1d(x, kernel)
    lies_turned = matmul.acting()  # so that its slices would be copies
    if kernel.dtype != jnp.float32 and width // 2 < length < width and not lies_turned:
        return _short(x, kernel)
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
        as_product = _as_product()
    if as_product and matmul.few(2 * batch * length, kernel):
        # Reading the kernel once, as it lies, is worth multiplying by zeros.
        around = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        zero, before, after = jnp.zeros_like(x), around[:, :-2], around[:, 2:]
        even = jnp.concatenate([zero, x, zero, before], axis=-1)
        odd = jnp.concatenate([after, zero, x, zero], axis=-1)
        columns = jnp.stack([even, odd], axis=2).reshape(batch, 2 * length, -1)
        return matmul.product(columns, kernel.reshape(4 * c_in, c_out))
    if as_product:
        pairs = _columns(x, 2, pad=1)  # (x[m-1], x[m]), m = 0..L
        even = matmul.product_of_many(pairs[:, :-1], jnp.concatenate([kernel[3], kernel[1]]))
        odd = matmul.product_of_many(pairs[:, 1:], jnp.concatenate([kernel[2], kernel[0]]))
        return jnp.stack([even, odd], axis=2).reshape(batch, 2 * length, c_out)
    return _convolution(x, kernel[::-1], (1,), [(2, 2)], lhs_dilation=(2,))
