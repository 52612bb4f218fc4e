"""Convolutions in fewer products: for four outputs of a kernel of five, eight in place of twenty.

Winograd's minimal filtering (Lavin & Gray 2016, arXiv:1509.09308): with sums over neighbours before
and after, four outputs and the kernel of `width` taps meet in 4 + width - 1 products,

    y = of_y ((of_kernel k) * (of_x x)).

The result is that of the plain sum but for rounding, some three or four times as large (10^-5 of
the result's spread in float32, a hundredth where the factors are of bfloat16; sums stay float32;
`tests/test_winograd.py`).
"""

import functools
from collections.abc import Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ractd_jax.nn.cpu import matmul

TILE = 4
FEW = 4  # times as many channels as rows of a product, from which it is turned
POINTS = [Fraction(p) for p in ("0", "1", "-1", "2", "-2", "1/2", "-1/2")]  # and infinity


def serves(length: int, width: int) -> bool:
    """Return whether there is such a program for an input of this length and a kernel this wide."""
    return length % TILE == 0 and 1 < width <= len(POINTS) + 2 - TILE


def matrices(outputs: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a, b, g with a ((g k) * (b x)) = y, y_i = sum_j k_j x_{i+j}, for all x and k.

    Polynomials are multiplied by their values at n - 1 points and infinity, n = outputs + taps - 1
    (Toom, Cook); this is the transpose of that.
    """
    n = outputs + taps - 1
    points = POINTS[: n - 1]

    def vanishing(roots):  # coefficients of the product of (p - root), the constant first
        return functools.reduce(lambda c, root: np.convolve(c, [-root, 1]), roots, [Fraction(1)])

    a = [[p**i for p in points] + [int(i == outputs - 1)] for i in range(outputs)]
    b, g = [], []
    for i, point in enumerate(points):
        others = vanishing(points[:i] + points[i + 1 :])
        scale = sum(c * point**j for j, c in enumerate(others))
        b.append([*others, 0])
        g.append([point**j / scale for j in range(taps)])
    b.append(vanishing(points))
    g.append([int(j == taps - 1) for j in range(taps)])
    a, b, g = (np.array(m, float) for m in (a, b, g))
    size = abs(b).max(axis=1, keepdims=True)  # given to g, so that no sum is large
    return a, b / size, g * size


@functools.cache
def _matrices(length: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of_y, of_x and of_kernel.

    An input of one tile is the shorter factor, with zeros around the kernel in place of around the
    input: one product less.
    """
    if length > TILE:
        return matrices(TILE, width)
    of_y, of_kernel, of_x = matrices(TILE, TILE)
    zeros = TILE - 1 - width // 2
    return of_y[::-1], of_x, of_kernel[:, zeros : zeros + width]


def _combine(matrix: np.ndarray, arrays: Sequence[Array] | Array, axis: int = 0) -> Array:
    """Return matrix @ arrays, written out, as one array with the rows along `axis`."""
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

    def moved(e, by):  # e[:, m + by], zero where there is no such tile
        e = jnp.pad(e, ((0, 0), (max(-by, 0), max(by, 0)), (0, 0)))
        return e[:, max(by, 0) : max(by, 0) + tiles]

    def place(q):  # x[4 m + q] is input j of tile m + (q + before - j) / 4
        js = range((q + before) % TILE, n, TILE)
        return sum(moved(inputs[j], (q + before - j) // TILE) for j in js)

    return jnp.stack([place(q) for q in range(TILE)], axis=2).reshape(batch, tiles * TILE, c)


@jax.custom_vjp
def conv1d(
    x: Float[Array, "batch length c_in"], kernel: Float[Array, "width c_in c_out"]
) -> Float[Array, "batch length c_out"]:
    """Convolve along the second axis with stride 1 and zero padding width // 2 on both sides.

    Args:
        x: input; see `serves`.
        kernel: weights, of odd width; what they meet is rounded to their type.
    """
    return _forward(x, kernel)[0]


def _forward(x, kernel):
    of_y, of_x, of_kernel = _matrices(x.shape[1], len(kernel))
    exact = functools.partial(jnp.asarray, dtype=jnp.float32)
    xs = _combine(of_x, _tiles(exact(x), len(kernel))).astype(kernel.dtype)
    ks = jnp.tensordot(exact(of_kernel), exact(kernel), 1)  # `_combine`, but faster
    ks = ks.astype(kernel.dtype)
    y = _combine(of_y, matmul.matmul(xs, ks), axis=1)
    return y.reshape(*x.shape[:2], -1).astype(x.dtype), (xs, ks, kernel)


def _backward(saved, dy):
    # Every step of `_forward` transposed: differentiating its slices would pad and add up.
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

    Of few rows as matrix @ (ks dys^T), turned at last: a product that reads large kernels as they
    lie takes two thirds of the time.
    """
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    if FEW * dys.shape[1] > ks.shape[1]:
        return _combine(matrix, product("prk,pck->prc", dys, ks))
    hold = jax.lax.optimization_barrier  # XLA would turn products and sums round again
    dxs = hold(product("pck,prk->pcr", ks, dys))
    return hold(_combine(matrix, dxs)).swapaxes(1, 2)


conv1d.defvjp(_forward, _backward)
