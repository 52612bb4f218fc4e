"""What a computation cannot be faster than: bytes to be read, products to be worked out.

    floor = network calls * bytes of weights / bandwidth      at small batches
          | operations / rate of matrix products              at large ones, whichever is longer

Bandwidth and rate are measured here and now, on the same threads. Bandwidth is measured by reading
an array of the size of the weights over and over, so small networks are held to the speed of the
cache they fit in.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval
from jaxtyping import Float

from ractd_jax.nn.cpu import matmul
from ractd_jax.types import Params

SIDE = 1024, 8192  # of the matrices whose product is timed: on a CPU, on an accelerator


def timed(
    call: Callable[[], object], seconds: float, least: int = 5, most: int = 2000
) -> Float[np.ndarray, " repeats"]:
    """Call again and again for about `seconds`; return how long each call took, in seconds.

    `call` must wait for its result.
    """
    times, begun = [], time.perf_counter()
    while len(times) < least or (len(times) < most and time.perf_counter() - begun < seconds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return np.asarray(times)


def _per_round(
    body: Callable[..., Any], start: Any, rounds: int, seconds: float, *arrays: Any
) -> float:
    """Return the shortest time of one round of `body(carry, *arrays)` in a compiled loop."""

    def loop(start, *arrays):
        return jax.lax.fori_loop(0, rounds, lambda _, carry: body(carry, *arrays), start)

    run = jax.jit(loop)
    run(start, *arrays).block_until_ready()
    return timed(lambda: run(start, *arrays).block_until_ready(), seconds).min() / rounds


def bandwidth(size: int, seconds: float = 0.5) -> float:
    """Return the bytes per second at which `size` bytes of float32 are read, at best.

    The better of a matrix-vector product (the work of a network at batch 1) and a plain sum.
    """
    columns = 512
    rows = max(size // 4 // columns, 1)
    x = jnp.ones((rows, columns))
    rounds = max(1, min(1000, 2**28 // x.nbytes))

    def product(vector, x):  # each round needs the one before, so that none can be left out
        return vector + 1e-30 * jnp.max(x @ vector)

    def total(carry, x):
        return carry + 1e-30 * jnp.sum(x + carry)

    best = min(
        _per_round(product, jnp.ones(columns), rounds, seconds / 2, x),
        _per_round(total, jnp.float32(1), rounds, seconds / 2, x),
    )
    return x.nbytes / best


def product_rate(seconds: float = 1.0, side: int = 0, dtype: str = "float32") -> float:
    """Return the operations per second of matrix products; one multiply-add is two.

    Args:
        seconds: of measuring.
        side: of the matrices; 0 chooses by the device.
        dtype: of their numbers.
    """
    side = side or SIDE[jax.default_backend() != "cpu"]
    x = jnp.eye(side, dtype=dtype)
    # As networks multiply: on a CPU bfloat16 has a form of its own.
    multiply = matmul.matmul if jax.default_backend() == "cpu" else jnp.matmul
    best = _per_round(lambda carry, x: multiply(carry, x).astype(dtype), x, 4, seconds, x)
    return 2 * side**3 / best


def size(params: Params) -> int:
    """Return the bytes of a pytree of arrays."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def operations(f: Callable[..., Any], *args: Any) -> int:
    """Return the operations of all matrix products and convolutions in `f(*args)`.

    Counted in the traced program, without what its results do not need: a scan counts as often as
    it runs, the longer branch of a condition counts, a while loop counts once. Everything
    elementwise is left out.
    """
    # A function of its own: JAX keeps what was traced before, perhaps under `xla_convolutions`.
    program = jax.make_jaxpr(lambda *args: f(*args))(*args).jaxpr
    needed, _ = partial_eval.dce_jaxpr(program, [True] * len(program.outvars), instantiate=True)
    return _count(needed)


def _count(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            shape = eqn.invars[0].aval.shape
            terms = int(np.prod([shape[axis] for axis in contracted]))
            total += 2 * eqn.outvars[0].aval.size * terms
        elif eqn.primitive.name == "conv_general_dilated":
            kernel = eqn.invars[1].aval
            features = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
            zeros = int(np.prod(eqn.params["lhs_dilation"]))  # between inputs, not multiplied by
            total += 2 * eqn.outvars[0].aval.size * (kernel.size // features) // zeros
        else:
            inner = [_count(sub) for sub in _inside(eqn.params.values())]
            if eqn.primitive.name == "cond":
                total += max(inner)
            else:
                total += sum(inner) * eqn.params.get("length", 1)
    return total


def _inside(values: Iterable[Any]) -> Iterator[Any]:
    """Yield the programs among the parameters of an operation."""
    for value in values:
        if isinstance(value, tuple | list):
            yield from _inside(value)
        elif hasattr(value, "eqns"):
            yield value
        elif hasattr(getattr(value, "jaxpr", None), "eqns"):
            yield value.jaxpr
