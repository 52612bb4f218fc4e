"""Consistency models: one network call from noise to data. What both ways to train them share.

Song et al. 2023 (CM); Song and Dhariwal 2024 (iCT); the details of both are those of CleanDiffuser,
whose Consistency-IDQL acts with such a model and lets IQL choose among its samples.

    f(x, t) = c_skip(t) x + c_out(t) F(c_in(t) x, c_noise(t), cond)             `consistency_map`

With the "boundary" scalings f(x, sigma_min) = x, and f is to be the same all along a path of the
probability-flow ODE. The levels t_0 < ... < t_N are EDM's, N intervals in all   `level`, `interval`

`consistency_distillation` learns f from a teacher, `consistency_training` from data alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num

from ractd_jax import diffusion, edm, networks
from ractd_jax.nn import denoising_mlp
from ractd_jax.types import Cond, Levels, Network, Params, Trajectory

Map = Callable[[Trajectory, Levels], Trajectory]  # f: (x, t) -> x_0
NETWORKS = {
    "fourier": denoising_mlp.FourierMLP,
    "mlp": networks.ResidualMLP,
    "unet": networks.ConditionalUnet1D,
}


# ---- levels --------------------------------------------------------------------------------------


def level(
    noise: diffusion.Noise, i: Num[Array, "*batch"], n: Num[Array, ""] | int
) -> Float[Array, "*batch"]:
    """Return t_i of a grid of n intervals, from t_0 = sigma_min to t_n = sigma_max (EDM Eq. 5).

    Example:
        >>> levels = level(diffusion.Noise(sigma_min=0.002), jnp.arange(3), 2)
        >>> [round(t, 3) for t in levels.tolist()]
        [0.002, 2.515, 80.0]
    """
    return diffusion.sigmas(noise, (1 - i / n) * (noise.bins - 1))


def interval(noise: diffusion.Noise, t: Levels, n: Num[Array, ""] | int) -> Int[Array, " batch"]:
    """Return the i with t_i <= t < t_{i+1}: the inverse of `level`.

    Example:
        >>> interval(diffusion.Noise(sigma_min=0.002), jnp.array([0.1, 10.0]), 2).tolist()
        [0, 1]
    """
    low, high = noise.sigma_min ** (1 / noise.rho), noise.sigma_max ** (1 / noise.rho)
    i = jnp.floor(n * (t ** (1 / noise.rho) - low) / (high - low)).astype(jnp.int32)
    return jnp.clip(i, 0, n - 1)


# ---- the map -------------------------------------------------------------------------------------


def boundary(noise: diffusion.Noise) -> diffusion.Noise:
    """Return the same noise with the scalings that make f(x, sigma_min) = x.

    Example:
        >>> boundary(diffusion.Noise(scaling="edm")).scaling
        'boundary'
    """
    return dataclasses.replace(noise, scaling="boundary")


def consistency_map(
    net: Network,
    params: Params,
    noise: diffusion.Noise,
    cond: Cond,
    *,
    clip: bool = False,
    **kwargs: Any,
) -> Map:
    """Return f of some weights for some conditions (CM, Eq. 5).

    Args:
        net: a network of `networks`.
        params: its weights.
        noise: with the scalings of `boundary`.
        cond: conditions.
        clip: clip f to [-1, 1].
        **kwargs: `train` and `rngs` for the network's dropout.
    """

    def f(x: Trajectory, t: Levels) -> Trajectory:
        x_0 = edm.denoise(net, params, noise, x, t, cond, **kwargs)
        return jnp.clip(x_0, -1, 1) if clip else x_0

    return f


def sample(
    model: Map,
    noise: diffusion.Noise,
    nfe: int,
    keys: Key[Array, " batch"],
    shape: tuple[int, int],
) -> Trajectory:
    """Draw one trajectory a key with `nfe` network calls (CM, Algorithm 1).

    The first call is at sigma_max, the others at the inner levels of a grid of `nfe` intervals.

    Args:
        model: f.
        noise: levels, and whether predictions are clipped.
        nfe: network calls.
        keys: one for each row.
        shape: (horizon, dim) of a trajectory.

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 5)
        >>> sample(lambda x, t: 0 * x, diffusion.Noise(), 2, keys, (1, 3)).shape
        (5, 1, 3)
    """

    def to_zero(x, t):
        x_0 = model(x, jnp.full(x.shape[0], t))
        return jnp.clip(x_0, -1, 1) if noise.clip else x_0

    keys = jax.vmap(lambda key: jax.random.split(key, nfe))(keys)
    x = to_zero(diffusion.initial(noise, keys[:, 0], shape), noise.sigma_max)
    for call in range(1, nfe):
        t = level(noise, jnp.asarray(nfe - call), nfe)
        eps = jax.vmap(lambda key: jax.random.normal(key, shape))(keys[:, call])
        x = to_zero(x + jnp.sqrt(t**2 - noise.sigma_min**2) * eps, t)
    return x
