"""Convolutions along the horizon, on a CPU as matrix products.

XLA's own convolutions are many times slower there. Which computation serves depends on the shapes:
one product over neighbours side by side (`conv1d_matmul`), or Winograd's fewer multiplications
(`winograd`). The results are the same but for rounding.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax.nn.cpu import cpuinfo, matmul, winograd
from ractd_jax.nn.cpu.conv1d_matmul import columns, conv1d_matmul, conv1d_short

# Rows of a product (examples times their tiles of four steps) from which `winograd` pays for
# transforming the kernel: in training, where one transformed kernel serves several products, and in
# inference, where it serves one.
WINOGRAD_ROWS_TRAINING, WINOGRAD_ROWS_INFERENCE = 64, 256

_xla: contextvars.ContextVar[bool] = contextvars.ContextVar("xla", default=False)


@contextlib.contextmanager
def xla_convolutions() -> Iterator[None]:
    """Let what is traced in this context use XLA's convolutions, whose operations can be counted.

    Example:
        >>> x, kernel = jnp.ones((1, 4, 2)), jnp.ones((3, 2, 5))
        >>> with xla_convolutions():
        ...     program = jax.make_jaxpr(lambda x: conv1d(x, kernel))(x)
        >>> "conv_general_dilated" in str(program)
        True
    """
    token = _xla.set(True)
    try:
        yield
    finally:
        _xla.reset(token)


def conv1d(
    x: Float[Array, "batch length c_in"],
    kernel: Float[Array, "width c_in c_out"],
    *,
    stride: int = 1,
    as_matmul: bool | None = None,
) -> Float[Array, "batch length_out c_out"]:
    """Convolve along the second axis with zero padding width // 2 on both sides.

    Args:
        x: input.
        kernel: weights, of odd width; their layout does not depend on how they are used.
        stride: step between outputs.
        as_matmul: compute it as matrix products, not by XLA's convolution; None: on a CPU.

    Returns:
        The convolution, in the type of x.

    Example:
        >>> conv1d(jnp.ones((1, 4, 1)), jnp.ones((3, 1, 1)))[0, :, 0].tolist()
        [2.0, 3.0, 3.0, 2.0]
    """
    width, c_in, c_out = kernel.shape
    batch, length, _ = x.shape
    if as_matmul is None:
        as_matmul = _as_matmul()
    if not as_matmul:
        return _xla_convolution(x, kernel, (stride,), [(width // 2, width // 2)])
    if stride > 1 or width == 1:
        neighbours = columns(x, width, stride, width // 2)
        return matmul.linear(neighbours, kernel.reshape(width * c_in, c_out))
    if _winograd_pays(batch * length, kernel.dtype) and winograd.supports(length, width):
        return winograd.conv1d(x, kernel)
    # `conv1d_short` takes slices of the kernel, which are copies where it is stored transposed.
    short = width // 2 < length < width
    if kernel.dtype != jnp.float32 and short and not matmul.in_inference():
        return conv1d_short(x, kernel)
    return conv1d_matmul(x, kernel)


def conv1d_transpose(
    x: Float[Array, "batch length c_in"],
    kernel: Float[Array, "4 c_in c_out"],
    *,
    as_matmul: bool | None = None,
) -> Float[Array, "batch 2*length c_out"]:
    """Double the length: transposed convolution of width 4, stride 2, padding 1.

    Output 2m sees x[m] through tap 1 and x[m-1] through tap 3; output 2m+1 sees x[m] through
    tap 2 and x[m+1] through tap 0. That is two matrix products whose results interleave.

    Args:
        x: input.
        kernel: weights.
        as_matmul: see `conv1d`.

    Example:
        >>> conv1d_transpose(jnp.ones((1, 2, 1)), jnp.ones((4, 1, 1)))[0, :, 0].tolist()
        [1.0, 2.0, 2.0, 1.0]
    """
    batch, length, _ = x.shape
    _, c_in, c_out = kernel.shape
    if as_matmul is None:
        as_matmul = _as_matmul()
    if not as_matmul:
        return _xla_convolution(x, kernel[::-1], (1,), [(2, 2)], lhs_dilation=(2,))
    if matmul.reads_transposed(2 * batch * length, kernel):
        # One product with the whole kernel multiplies by zeros, but reads the kernel once, as it
        # is stored.
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        zero, before, after = jnp.zeros_like(x), padded[:, :-2], padded[:, 2:]
        even = jnp.concatenate([zero, x, zero, before], axis=-1)
        odd = jnp.concatenate([after, zero, x, zero], axis=-1)
        neighbours = jnp.stack([even, odd], axis=2).reshape(batch, 2 * length, -1)
        return matmul.linear(neighbours, kernel.reshape(4 * c_in, c_out))
    pairs = columns(x, 2, pad=1)  # (x[m-1], x[m]), m = 0..L
    even = matmul.linear_of_many_rows(pairs[:, :-1], jnp.concatenate([kernel[3], kernel[1]]))
    odd = matmul.linear_of_many_rows(pairs[:, 1:], jnp.concatenate([kernel[2], kernel[0]]))
    return jnp.stack([even, odd], axis=2).reshape(batch, 2 * length, c_out)


def _as_matmul() -> bool:
    return jax.default_backend() == "cpu" and not _xla.get()


def _winograd_pays(steps: int, dtype: jnp.dtype) -> bool:
    """Return whether fewer multiplications are worth the sums before and after them.

    They are where rows are many. In bfloat16 only in training, and not on processors whose
    products take next to no time.
    """
    inference = matmul.in_inference()
    if steps // winograd.TILE < (WINOGRAD_ROWS_INFERENCE if inference else WINOGRAD_ROWS_TRAINING):
        return False
    return dtype == jnp.float32 or not (inference or cpuinfo.multiplies_bfloat16_in_tiles())


def _xla_convolution(
    x: Array,
    kernel: Array,
    stride: tuple[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: tuple[int] | None = None,
) -> Array:
    """Convolve as XLA does, x rounded to the kernel's type."""
    y = jax.lax.conv_general_dilated(
        x.astype(kernel.dtype),
        kernel,
        stride,
        padding,
        lhs_dilation=lhs_dilation,
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return y.astype(x.dtype)
