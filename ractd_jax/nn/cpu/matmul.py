"""Products on a CPU: of few rows, which take as long as reading the kernel, and in bfloat16.

An action for one observation is a product of few rows with every kernel of the network. On a CPU
XLA reads a kernel (fan_in, features) at half the speed of the memory, and one that lies as
(features, fan_in), in kernel @ x^T, at all of it. So policies keep their kernels that way (`turn`).

XLA has CPUs multiply bfloat16 where both factors lie by rows and the result is float32; anywhere
else it makes float32 of them first, and what is no product at all is as fast in float32. So there
a kernel of bfloat16 meets numbers of float32, which are rounded for the product alone.
"""

import contextlib
import contextvars
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
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


def few(rows: int, kernel: Float[Array, "..."]) -> bool:
    """Return whether, in acting, a product of so many rows takes its kernel turned, as it lies.

    With more rows the kernel is turned back; in bfloat16 that is a copy, as turning the rows is.
    """
    return acting() and rows <= (FEW if kernel.dtype == jnp.float32 else kernel.shape[-1])


def product(
    x: Float[Array, "*rows fan_in"], kernel: Float[Array, "fan_in features"]
) -> Float[Array, "*rows features"]:
    """Return x @ kernel, in the type of x; of few rows in acting with the kernel as it lies."""
    rows = math.prod(x.shape[:-1])
    if not few(rows, kernel):
        return product_of_many(x, kernel)
    y = matmul_turned(x.reshape(rows, -1).astype(kernel.dtype), kernel)
    return y.astype(x.dtype).reshape(*x.shape[:-1], -1)


def product_of_many(
    x: Float[Array, "*rows fan_in"], kernel: Float[Array, "fan_in features"]
) -> Float[Array, "*rows features"]:
    """Return x @ kernel, in the type of x, of numbers rounded to the type of the kernel."""
    if x.dtype == kernel.dtype != jnp.float32:  # an accelerator's bfloat16
        return x @ kernel
    return _product(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    """Return x @ kernel; the kernel's gradient is x^T @ dy.

    Automatic differentiation's is (dy^T @ x)^T, and while x lies in memory to be turned, XLA works
    dy out anew for that, number by number in the order of dy^T: on a CPU a sixth of an update.
    """
    return _product_forward(x, kernel)[0]


def _product_forward(x, kernel):
    near = x.astype(kernel.dtype)
    return matmul(near, kernel).astype(x.dtype), (near, kernel)


def _product_backward(saved, dy):
    x, kernel = saved
    near = dy.astype(x.dtype)
    dk = matmul(x.T, near).astype(x.dtype)
    return matmul_transposed(near, kernel).astype(dy.dtype), dk


_product.defvjp(_product_forward, _product_backward)


def matmul(a: Float[Array, "*batch n m"], b: Float[Array, "*batch m k"]) -> Float[Array, "..."]:
    """Return a @ b, (*batch, n, k), in float32, of factors of one type."""
    if a.dtype == jnp.float32:
        return a @ b
    n, k = a.shape[-2], b.shape[-1]  # vectors would be multiplied in float32
    a, b = jnp.repeat(a, 2, axis=-2) if n == 1 else a, jnp.repeat(b, 2, axis=-1) if k == 1 else b
    y = jnp.matmul(_by_rows(a), _by_rows(b), preferred_element_type=jnp.float32)
    return _by_rows(y)[..., :n, :k]


def matmul_turned(a: Float[Array, "n m"], b: Float[Array, "m k"]) -> Float[Array, "n k"]:
    """Return a @ b as `matmul` does, as (b^T @ a^T)^T for a b that lies turned."""
    return jax.lax.optimization_barrier(matmul(b.T, a.T)).T  # XLA would turn it round again


def matmul_transposed(a: Float[Array, "n m"], b: Float[Array, "k m"]) -> Float[Array, "n k"]:
    """Return a @ b^T as `matmul` does; whichever has fewer rows is copied to turn it."""
    if a.dtype == jnp.float32 or len(b) <= len(a):
        return matmul(a, b.T)
    return matmul(b, a.T).T


def _by_rows(a: Float[Array, "*batch n m"]) -> Float[Array, "*batch n m"]:
    """Return a, with its rows one after the other in memory."""
    return with_layout_constraint(a, Layout(major_to_minor=tuple(range(a.ndim))))
