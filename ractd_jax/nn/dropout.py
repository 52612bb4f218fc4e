"""Dropout, with random bits that a CPU makes fast."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32


def random_bits(key: Key[Array, ""], shape: Sequence[int]) -> UInt32[Array, "..."]:
    """Return 32 random bits for each number of an array: a hash of its position and the key.

    The last step of Murmur3, twice, each time with half of the key. `jax.random.bits` takes a CPU
    as long as the matrix product before it, and dropout needs less quality than it gives.

    Args:
        key: random key.
        shape: of the array.

    Example:
        >>> random_bits(jax.random.key(0), (2, 3)).shape
        (2, 3)
    """
    seeds = jax.random.bits(key, (2,), jnp.uint32)
    position = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return _mix(_mix(position ^ seeds[0]) ^ seeds[1])


def _mix(h: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    h = (h ^ h >> 16) * jnp.uint32(0x85EBCA6B)
    h = (h ^ h >> 13) * jnp.uint32(0xC2B2AE35)
    return h ^ h >> 16


class Dropout(nn.Module):
    """Zero each number with probability `rate` (to the nearest 2^-16), scale up the others.

    Attributes:
        rate: the probability.
    """

    rate: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "*shape"], bits: UInt32[Array, "*shape"] | None
    ) -> Float[Array, "*shape"]:
        """Return x with numbers dropped.

        Args:
            x: input.
            bits: 16 random bits for each of its numbers; None drops none.
        """
        if bits is None:
            return x
        return jnp.where(bits >= round(self.rate * 2**16), x / (1 - self.rate), 0)
