"""Embeddings of scalars, such as noise levels, as sines and cosines."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FREQUENCIES_SEED = 0  # of the frequencies of `fourier`, which are not trained


def sinusoidal(x: Float[Array, "..."], dim: int) -> Float[Array, "... {dim}"]:
    """Embed a scalar as sines, then cosines, of dim / 2 frequencies from 1 down to 1/10000.

    Source: Vaswani et al. 2017, arXiv:1706.03762, as the published code has it.

    Args:
        x: scalars.
        dim: numbers of an embedding; even, and at least 4.

    Example:
        >>> sinusoidal(jnp.zeros(1), 4).tolist()
        [[0.0, 0.0, 1.0, 1.0]]
    """
    frequencies = jnp.exp(-jnp.arange(dim // 2) * (jnp.log(10_000.0) / (dim // 2 - 1)))
    angles = jnp.multiply.outer(x, frequencies)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def fourier(t: Float[Array, "..."], features: int, scale: float) -> Float[Array, "... {features}"]:
    """Embed a scalar as sines, then cosines, of fixed frequencies drawn from N(0, scale^2).

    The frequencies are the same in every run and model, so that a student that starts from its
    teacher's weights reads the noise level as the teacher does.

    Source: Tancik et al. 2020, arXiv:2006.10739.

    Args:
        t: scalars.
        features: numbers of an embedding; even.
        scale: standard deviation of the frequencies.

    Example:
        >>> fourier(jnp.zeros(1), 4, scale=16.0).tolist()
        [[0.0, 0.0, 1.0, 1.0]]
    """
    draw = jax.random.normal(jax.random.key(FREQUENCIES_SEED), (features // 2,))
    angles = jnp.multiply.outer(t, 2 * jnp.pi * scale * draw)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
