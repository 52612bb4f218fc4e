"""Matrix products on a CPU: of few rows, and in bfloat16.

Few rows. An action for one observation multiplies few rows with every kernel of the network, which
takes as long as reading the kernels. XLA reads a kernel stored as (fan_in, features) at half the
speed of the memory, and one stored as (features, fan_in), in kernel @ x^T, at full speed. So
policies store their kernels transposed: `transpose_kernels` once, and `transposed_kernels` around
every call of the network.

bfloat16. XLA multiplies bfloat16 on a CPU only where both factors are stored by rows and the result
is float32; anywhere else it converts them to float32 first. Everything but a product is as fast in
float32. So on a CPU a kernel of bfloat16 meets numbers of float32, which are rounded for the
product alone.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

Params = Any  # a pytree of arrays

FEW_ROWS = 32

_transposed: contextvars.ContextVar[bool] = contextvars.ContextVar("transposed", default=False)


# ---- transposed kernels --------------------------------------------------------------------------


def transpose_kernels(params: Params) -> Params:
    """Return weights with every kernel stored as `transposed_kernels` reads it.

    Args:
        params: weights of a network.

    Returns:
        On a CPU the same weights, every kernel (*fan_in, features) as (features, fan_in);
        elsewhere the weights as they are.
    """
    if jax.default_backend() != "cpu":
        return params
    return jax.tree.map(lambda a: a.reshape(-1, a.shape[-1]).T if a.ndim > 1 else a, params)


@contextlib.contextmanager
def transposed_kernels() -> Iterator[None]:
    """Let networks that are called in this context read weights from `transpose_kernels`.

    Example:
        >>> with transposed_kernels():
        ...     in_inference() == (jax.default_backend() == "cpu")
        True
        >>> in_inference()
        False
    """
    token = _transposed.set(jax.default_backend() == "cpu")
    try:
        yield
    finally:
        _transposed.reset(token)


def in_inference() -> bool:
    """Return whether kernels are stored transposed: within `transposed_kernels`, on a CPU."""
    return _transposed.get()


def kernel(
    module: nn.Module, init: Callable[..., Any], shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """Return the kernel of a layer, in its own shape however it is stored.

    Args:
        module: the layer, within `nn.compact`.
        init: `(key, shape) -> kernel`.
        shape: (*fan_in, features).
    """
    if not in_inference():
        return module.param("kernel", init, shape)
    # The layer transposes it back here: done before a loop, that would be a copy.
    stored = (shape[-1], math.prod(shape[:-1]))
    return module.param("kernel", init, stored).T.reshape(shape)


def reads_transposed(rows: int, kernel: Float[Array, "..."]) -> bool:
    """Return whether a product of so many rows reads its kernel as it is stored, transposed.

    With more rows the kernel is transposed back. In bfloat16 that is a copy, and so is transposing
    the rows: the smaller of the two is copied.
    """
    return in_inference() and rows <= (
        FEW_ROWS if kernel.dtype == jnp.float32 else kernel.shape[-1]
    )


# ---- what layers multiply with -------------------------------------------------------------------


def linear(
    x: Float[Array, "*rows fan_in"], kernel: Float[Array, "fan_in features"]
) -> Float[Array, "*rows features"]:
    """Return x @ kernel, in the type of x; in inference few rows read the kernel as it is stored.

    Args:
        x: rows; rounded to the kernel's type.
        kernel: as `kernel` gives it.

    Example:
        >>> linear(jnp.ones((2, 3)), jnp.ones((3, 4))).shape
        (2, 4)
    """
    rows = math.prod(x.shape[:-1])
    if not reads_transposed(rows, kernel):
        return linear_of_many_rows(x, kernel)
    y = matmul_stored_transposed(x.reshape(rows, -1).astype(kernel.dtype), kernel)
    return y.astype(x.dtype).reshape(*x.shape[:-1], -1)


def linear_of_many_rows(
    x: Float[Array, "*rows fan_in"], kernel: Float[Array, "fan_in features"]
) -> Float[Array, "*rows features"]:
    """Return x @ kernel, in the type of x, x rounded to the type of the kernel."""
    if x.dtype == kernel.dtype != jnp.float32:  # an accelerator's bfloat16
        return x @ kernel
    return _linear(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def _linear(x: Array, kernel: Array) -> Array:
    """Return x @ kernel; the kernel's gradient is x^T @ dy.

    Automatic differentiation's is (dy^T @ x)^T. To transpose x in memory XLA computes dy a second
    time, number by number in the order of dy^T: on a CPU a sixth of an update.
    """
    return _linear_forward(x, kernel)[0]


def _linear_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    rounded = x.astype(kernel.dtype)
    return matmul(rounded, kernel).astype(x.dtype), (rounded, kernel)


def _linear_backward(saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    rounded = dy.astype(x.dtype)
    dk = matmul(x.T, rounded).astype(x.dtype)
    return matmul_transposed(rounded, kernel).astype(dy.dtype), dk


_linear.defvjp(_linear_forward, _linear_backward)


# ---- matrix products -----------------------------------------------------------------------------


def matmul(a: Float[Array, "*batch n m"], b: Float[Array, "*batch m k"]) -> Float[Array, "..."]:
    """Return a @ b in float32.

    Args:
        a: left factor.
        b: right factor, of the same type.

    Returns:
        (*batch, n, k)

    Example:
        >>> matmul(jnp.ones((2, 3), "bfloat16"), jnp.ones((3, 1), "bfloat16")).tolist()
        [[3.0], [3.0]]
    """
    if a.dtype == jnp.float32:
        return a @ b
    n, k = a.shape[-2], b.shape[-1]  # vectors would be multiplied in float32
    a, b = jnp.repeat(a, 2, axis=-2) if n == 1 else a, jnp.repeat(b, 2, axis=-1) if k == 1 else b
    y = jnp.matmul(_by_rows(a), _by_rows(b), preferred_element_type=jnp.float32)
    return _by_rows(y)[..., :n, :k]


def matmul_stored_transposed(a: Float[Array, "n m"], b: Float[Array, "m k"]) -> Float[Array, "n k"]:
    """Return a @ b as `matmul` does, computed as (b^T @ a^T)^T, for a b stored as b^T."""
    # Without the barrier XLA would move the transposition back to b.
    return jax.lax.optimization_barrier(matmul(b.T, a.T)).T


def matmul_transposed(a: Float[Array, "n m"], b: Float[Array, "k m"]) -> Float[Array, "n k"]:
    """Return a @ b^T as `matmul` does; of a and b the one with fewer rows is copied for it."""
    if a.dtype == jnp.float32 or len(b) <= len(a):
        return matmul(a, b.T)
    return matmul(b, a.T).T


def _by_rows(a: Float[Array, "*batch n m"]) -> Float[Array, "*batch n m"]:
    """Return a, its rows stored one after the other."""
    return with_layout_constraint(a, Layout(major_to_minor=tuple(range(a.ndim))))
