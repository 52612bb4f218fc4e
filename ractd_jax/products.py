"""Products of few rows, which take as long as reading the kernel.

An action for one observation is a product of few rows with every kernel of the network. On a CPU
XLA reads a kernel (fan_in, features) at half the speed of the memory, and one that lies as
(features, fan_in), in kernel @ x^T, at all of it. So policies keep their kernels that way (`turn`).
"""

import contextlib
import contextvars
import math
from collections.abc import Callable

import flax.linen as nn
import jax
from jaxtyping import Array, Float

FEW = 32  # rows

_turned: contextvars.ContextVar[bool] = contextvars.ContextVar("turned", default=False)


def turn(params):
    """Return the weights, on a CPU with every kernel (*fan_in, features) as (features, fan_in)."""
    if jax.default_backend() != "cpu":
        return params
    return jax.tree.map(lambda a: a.reshape(-1, a.shape[-1]).T if a.ndim > 1 else a, params)


@contextlib.contextmanager
def turned():
    """Let networks that are called meanwhile take their weights as `turn` gave them."""
    token = _turned.set(jax.default_backend() == "cpu")
    try:
        yield
    finally:
        _turned.reset(token)


def kernel(module: nn.Module, init: Callable, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Return the kernel of a layer, in its own shape however it lies."""
    if not acting():
        return module.param("kernel", init, shape)
    # Turned back here, by the layer: turned back before a loop it would be copied.
    lies = (shape[-1], math.prod(shape[:-1]))
    return module.param("kernel", init, lies).T.reshape(shape)


def acting() -> bool:
    """Return whether this is within `turned`, on a CPU."""
    return _turned.get()


def few(rows: int) -> bool:
    """Return whether a product of so many rows is bound by reading a kernel that lies turned."""
    return rows <= FEW and acting()


def product(
    x: Float[Array, "*rows fan_in"], kernel: Float[Array, "fan_in features"]
) -> Float[Array, "*rows features"]:
    """Return x @ kernel; of few rows with a kernel that lies turned, (kernel^T @ x^T)^T."""
    rows = math.prod(x.shape[:-1])
    if not few(rows):
        return x @ kernel
    # The barrier stops XLA from turning the product round again.
    columns = jax.lax.optimization_barrier(kernel.T @ x.reshape(rows, -1).T)
    return columns.T.reshape(*x.shape[:-1], -1)
