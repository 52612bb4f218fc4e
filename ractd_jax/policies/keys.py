"""Keys of acting: the noise of a row depends on its seed and its step, not on its neighbours."""

import jax
from jaxtyping import Array, Int, Key


def row_keys(seeds: Int[Array, " batch"], step: Int[Array, ""]) -> Key[Array, " batch"]:
    """Return the key of each row's noise: of (its seed, the step) alone.

    Example:
        >>> import jax.numpy as jnp
        >>> row_keys(jnp.arange(3), jnp.asarray(0)).shape
        (3,)
    """
    base = jax.random.key(0)
    return jax.vmap(lambda seed: jax.random.fold_in(jax.random.fold_in(base, seed), step))(seeds)


def candidate_keys(keys: Key[Array, " batch"], count: int) -> Key[Array, "batch {count}"]:
    """Return `count` keys for each row."""
    return jax.vmap(lambda key: jax.random.split(key, count))(keys)
