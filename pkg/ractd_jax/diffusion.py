"""Noise levels, scalings, weights and distances shared by the teacher and its students.

Forward noising is variance exploding, x_t = x_0 + t eps, so a time *is* a noise level sigma and the
letters t > u > s of the papers are noise levels throughout. Source: Karras et al. 2022 (EDM),
Kim et al. 2023 (CTM), and the released code for the "boundary" scalings.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num, PRNGKeyArray

from ractd_jax import errors

DISTANCES = ("huber", "released", "squared")


@dataclasses.dataclass(frozen=True)
class Noise:
    """The noise levels of a model, and how its network is preconditioned.

    Attributes:
        sigma_min: the "time 0" of the papers; levels end here, not at 0.
        sigma_max: T, the level from which sampling starts.
        rho: curvature of the grid of levels.
        bins: number of levels in the grid.
        sigma_data: standard deviation of the data.
        scaling: "boundary" (identity at sigma_min, as consistency models need) or "edm".
        initial_std: standard deviation of x_T: sigma_max, as the equations say, or 1, as the
            released sampler does.
        clamp: keep the levels that training draws within [sigma_min, sigma_max]. Below, the
            loss weight goes on growing as 1 / t^2 while the boundary scalings do not shrink, so
            one example in a hundred outweighs all others; the released code lets it.
        clip: clip every prediction of clean data to [-1, 1] when sampling.
    """

    sigma_min: float = 0.02
    sigma_max: float = 80.0
    rho: float = 7.0
    bins: int = 80
    sigma_data: float = 0.5
    scaling: str = "boundary"
    initial_std: float = 80.0
    clamp: bool = True
    clip: bool = True

    def __post_init__(self):
        errors.choose("noise.scaling", self.scaling, ("boundary", "edm"))
        if not 0 < self.sigma_min < self.sigma_max or self.bins < 2:
            raise errors.UserError(
                f"noise: 0 < sigma_min < sigma_max and at least 2 bins are needed, not "
                f"{self.sigma_min}, {self.sigma_max}, {self.bins}"
            )


def sigmas(noise: Noise, bins: Num[Array, "..."]) -> Float[Array, "..."]:
    """Return the level of each bin, from sigma_max (0) to sigma_min (bins - 1) (EDM Eq. 5)."""
    high, low = noise.sigma_max ** (1 / noise.rho), noise.sigma_min ** (1 / noise.rho)
    level = (high + bins / (noise.bins - 1) * (low - high)) ** noise.rho
    return jnp.clip(level, noise.sigma_min, noise.sigma_max)


def scalings(
    noise: Noise, t: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """Return (c_skip, c_out, c_in) at noise level t (EDM Table 1; Song et al. 2023, App. C)."""
    total = jnp.sqrt(t**2 + noise.sigma_data**2)
    above = t - noise.sigma_min if noise.scaling == "boundary" else t
    c_skip = noise.sigma_data**2 / (above**2 + noise.sigma_data**2)
    return c_skip, above * noise.sigma_data / total, 1 / total


def c_noise(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return 250 ln t, the form in which networks see a noise level (CTM)."""
    return 250 * jnp.log(t + 1e-44)


def karras_weight(noise: Noise, t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return EDM's loss weight (t^2 + sigma_data^2) / (t sigma_data)^2."""
    return (t**2 + noise.sigma_data**2) / (t * noise.sigma_data) ** 2


def expand(t: Float[Array, " batch"]) -> Float[Array, "batch 1 1"]:
    """Give a level per example the rank of a trajectory."""
    return t[:, None, None]


# ---- distances between clean trajectories -----------------------------------------------------


def distance(
    kind: str,
    p: Float[Array, "batch horizon dim"],
    q: Float[Array, "batch horizon dim"],
    c: float = 0.0,
) -> Float[Array, " batch"]:
    """Return d(p, q), averaged over horizon and dimension.

    Args:
        kind: "huber": sqrt(e^2 + c^2) - c, the pseudo-Huber distance the paper names;
            "released": sqrt(e^4 + c^2) - c, what the published code computes, because it squares
            the error first; "squared": e^2.
        p: prediction.
        q: target.
        c: where the Huber distance turns from squared to absolute; 0 for the customary
            0.00054 sqrt(horizon dim).
    """
    c = c or 0.00054 * (p.shape[1] * p.shape[2]) ** 0.5
    e2 = (p - q) ** 2
    if kind == "huber":
        e2 = jnp.sqrt(e2 + c**2) - c
    elif kind == "released":
        e2 = jnp.sqrt(e2**2 + c**2) - c
    return jnp.mean(e2, axis=(1, 2))


# ---- how training draws noise levels ----------------------------------------------------------


def log_normal(noise: Noise, key: PRNGKeyArray, batch: int) -> Float[Array, " {batch}"]:
    """Draw ln t ~ N(-1.2, 1.2^2) (EDM, Table 1). 0.2 % lie above 10, 1.2 % below 0.02."""
    levels = jnp.exp(1.2 * jax.random.normal(key, (batch,)) - 1.2)
    return jnp.clip(levels, noise.sigma_min, noise.sigma_max) if noise.clamp else levels


def mixed(noise: Noise, key: PRNGKeyArray, batch: int) -> Float[Array, " {batch}"]:
    """Draw half the levels where sampling starts, half log-normal (CTM, App. C).

    The first ceil(batch / 2) lie on the grid's curve in [0.7588, sigma_max]. The published student
    learns DSM at these levels; a teacher needs them too, if it is asked for D(x, sigma_max).
    """
    key_high, key_low = jax.random.split(key)
    upper = 0.7 * jax.random.uniform(key_high, ((batch + 1) // 2,)) * (noise.bins - 1)
    return jnp.concatenate([sigmas(noise, upper), log_normal(noise, key_low, batch // 2)])


LEVELS = {"log_normal": log_normal, "mixed": mixed}


def initial(
    noise: Noise, keys: Key[Array, " batch"], shape: tuple[int, int]
) -> Float[Array, "batch horizon dim"]:
    """Draw x_T, one trajectory for each key, so that a row never depends on its neighbours."""
    return noise.initial_std * jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
