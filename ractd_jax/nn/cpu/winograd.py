"""Convolutions in fewer multiplications: for four outputs of a kernel of five, eight, not twenty.

Winograd's minimal filtering (Lavin & Gray 2016, arXiv:1509.09308): with sums over neighbours before
and after, four outputs and the kernel of `width` taps meet in 4 + width - 1 multiplications,

    y = of_y ((of_kernel k) * (of_x x)).

The result is that of the plain sum but for rounding, which is three or four times as large (10^-5
of the result's spread in float32, a hundredth where the factors are of bfloat16; sums stay float32;
`tests/nn/cpu/test_winograd.py`).
"""

import functools
from collections.abc import Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ractd_jax.nn.cpu import matmul

TILE = 4  # outputs that are computed together
FEW = 4  # with so many times as many channels as rows, the gradient of x is computed transposed
POINTS = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")]  # and infinity


def supports(length: int, width: int) -> bool:
    """Return whether inputs of this length can be convolved with a kernel of this width here.

    Example:
        >>> supports(8, 5), supports(6, 5)
        (True, False)
    """
    return length % TILE == 0 and 1 < width <= len(POINTS) + 2 - TILE


def matrices(
    outputs: int, taps: int
) -> tuple[
    Float[np.ndarray, "{outputs} inputs"],
    Float[np.ndarray, "inputs inputs"],
    Float[np.ndarray, "inputs {taps}"],
]:
    """Return a, b, g with a ((g k) * (b x)) = y, y_i = sum_j k_j x_{i+j}, for all x and k.

    Polynomials are multiplied by their values at n - 1 points and infinity, n = outputs + taps - 1
    (Toom, Cook); this is the transpose of that.

    Args:
        outputs: numbers in y.
        taps: numbers in k.

    Example:
        >>> a, b, g = matrices(2, 3)
        >>> x, k = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 0.0, -1.0])
        >>> (a @ ((g @ k) * (b @ x))).round(9).tolist()
        [-2.0, -2.0]
    """
    n = outputs + taps - 1
    points = POINTS[: n - 1]

    def vanishing(roots: Sequence[Fraction]) -> np.ndarray:
        # Coefficients of the product of (p - root), the constant first.
        constant = np.array([Fraction(1)])
        return functools.reduce(lambda c, root: np.convolve(c, [-root, 1]), roots, constant)

    of_y = [[p**i for p in points] + [int(i == outputs - 1)] for i in range(outputs)]
    of_x, of_kernel = [], []
    for i, point in enumerate(points):
        rest = vanishing(points[:i] + points[i + 1 :])
        scale = sum(c * point**j for j, c in enumerate(rest))
        of_x.append([*rest, 0])
        of_kernel.append([point**j / scale for j in range(taps)])
    of_x.append(vanishing(points))
    of_kernel.append([int(j == taps - 1) for j in range(taps)])
    a, b, g = (np.array(m, float) for m in (of_y, of_x, of_kernel))
    size = abs(b).max(axis=1, keepdims=True)  # given to g, so that no sum is large
    return a, b / size, g * size


@functools.cache
def _matrices(length: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of_y, of_x and of_kernel.

    Where the input is one tile, the kernel is padded with zeros and not the input: one
    multiplication less.
    """
    if length > TILE:
        return matrices(TILE, width)
    of_y, of_kernel, of_x = matrices(TILE, TILE)
    zeros = TILE - 1 - width // 2
    return of_y[::-1], of_x, of_kernel[:, zeros : zeros + width]


def _combine(matrix: np.ndarray, arrays: Sequence[Array] | Array, axis: int = 0) -> Array:
    """Return matrix @ arrays as one array with the rows along `axis`; only sums, no product."""
    rows = [sum(float(m) * x for m, x in zip(row, arrays, strict=True) if m) for row in matrix]
    return jnp.stack(rows, axis)


def _tiles(x: Array, width: int) -> list[Array]:
    """Return input number j of every tile and example, (batch * tiles, c), for every j."""
    _, length, c = x.shape
    if length > TILE:
        x = jnp.pad(x, ((0, 0), (width // 2, width // 2), (0, 0)))
    inputs = range(TILE + width - 1 if length > TILE else TILE)
    return [x[:, j : j + length - TILE + 1 : TILE].reshape(-1, c) for j in inputs]


def _untile(inputs: Array, batch: int, width: int) -> Array:
    """Transpose `_tiles`: add up what every input number j of a tile gives to x."""
    n, c = len(inputs), inputs.shape[-1]
    inputs = inputs.reshape(n, batch, -1, c)
    tiles, before = inputs.shape[2], width // 2 if n > TILE else 0

    def moved(tile: Array, by: int) -> Array:  # tile[:, m + by], zero where there is no such tile
        tile = jnp.pad(tile, ((0, 0), (max(-by, 0), max(by, 0)), (0, 0)))
        return tile[:, max(by, 0) : max(by, 0) + tiles]

    def step(q: int) -> Array:  # x[4 m + q] is input j of tile m + (q + before - j) / 4
        js = range((q + before) % TILE, n, TILE)
        return jnp.asarray(sum(moved(inputs[j], (q + before - j) // TILE) for j in js))

    return jnp.stack([step(q) for q in range(TILE)], axis=2).reshape(batch, tiles * TILE, c)


@jax.custom_vjp
def conv1d(
    x: Float[Array, "batch length c_in"], kernel: Float[Array, "width c_in c_out"]
) -> Float[Array, "batch length c_out"]:
    """Convolve along the second axis with stride 1 and zero padding width // 2 on both sides.

    Source: Lavin & Gray 2016, one-dimensional F(4, width).

    Args:
        x: input, of a length that `supports` allows.
        kernel: weights, of odd width; what they meet is rounded to their type.

    Returns:
        The convolution, in the type of x.

    Example:
        >>> y = conv1d(jnp.ones((1, 8, 1)), jnp.ones((3, 1, 1)))
        >>> np.asarray(y).round(3).ravel().astype(int)
        array([2, 3, 3, 3, 3, 3, 3, 2])
    """
    return _forward(x, kernel)[0]


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    of_y, of_x, of_kernel = _matrices(x.shape[1], len(kernel))
    exact = functools.partial(jnp.asarray, dtype=jnp.float32)
    xs = _combine(of_x, _tiles(exact(x), len(kernel))).astype(kernel.dtype)
    ks = jnp.tensordot(exact(of_kernel), exact(kernel), 1)  # as `_combine`, but faster here
    ks = ks.astype(kernel.dtype)
    y = _combine(of_y, matmul.matmul(xs, ks), axis=1)
    return y.reshape(*x.shape[:2], -1).astype(x.dtype), (xs, ks, kernel)


def _backward(saved: tuple[Array, Array, Array], dy: Array) -> tuple[Array, Array]:
    # Every step of `_forward` transposed. Automatic differentiation would pad slices and add them.
    xs, ks, kernel = saved
    batch, length, features = dy.shape
    of_y, of_x, of_kernel = _matrices(length, len(kernel))
    dys = dy.astype(jnp.float32).reshape(-1, TILE, features).swapaxes(0, 1)
    dys = _combine(of_y.T, dys).astype(kernel.dtype)
    dkernel = _combine(of_kernel.T, matmul.matmul(xs.swapaxes(1, 2), dys))
    dx = _untile(_inputs(of_x.T, dys, ks), batch, len(kernel))
    return dx.astype(dy.dtype), dkernel.astype(kernel.dtype)


def _inputs(matrix: np.ndarray, dys: Array, ks: Array) -> Array:
    """Return matrix @ (dys ks^T), (inputs, rows, c).

    With few rows it is computed as matrix @ (ks dys^T) and transposed at the end: a product that
    reads large kernels as they are stored takes two thirds of the time.
    """
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    if FEW * dys.shape[1] > ks.shape[1]:
        return _combine(matrix, product("prk,pck->prc", dys, ks))
    keep_order = jax.lax.optimization_barrier  # XLA would move the transposition to the front
    dxs = keep_order(product("pck,prk->pcr", ks, dys))
    return keep_order(_combine(matrix, dxs)).swapaxes(1, 2)


conv1d.defvjp(_forward, _backward)
