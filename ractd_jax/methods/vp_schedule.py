"""Noise that preserves variance (VP): how much of the data is left, and how it is mixed.

    x_t = alpha_t x_0 + sigma_t eps,   alpha_t^2 + sigma_t^2 = 1                `add_noise`

DDPM, Diffuser and Diffusion-QL count steps. Their schedule is the share of the data's variance left
after each step, a_t = alpha_t^2 = prod_i (1 - beta_i)                          `alpha_bars`

EDA and its solver take a time t in [0, 1] of the VP-SDE of Song et al. 2021, in which the rate of
noising grows linearly:

    log alpha_t = -1/2 int_0^t beta(s) ds                                       `log_alpha`, `sigma`
    lambda_t = log(alpha_t / sigma_t)                                           `log_snr`

Everywhere else in the package noise explodes and a time is a noise level: see `diffusion`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax import diffusion
from ractd_jax.types import Levels, Trajectory

BETA_MIN, BETA_MAX = 0.1, 20.0  # rates of noising at t = 0 and t = 1 (Song et al. 2021, App. C)
T_MIN = 1e-3  # where training starts and sampling ends; at 0 there is nothing to predict


def add_noise(alpha: Levels, sigma: Levels, x_0: Trajectory, eps: Trajectory) -> Trajectory:
    """Return alpha x_0 + sigma eps.

    Args:
        alpha: what each trajectory is multiplied by.
        sigma: standard deviation of each trajectory's noise.
        x_0: clean trajectories.
        eps: noise of deviation 1.

    Example:
        >>> x_0 = jnp.ones((2, 4, 3))
        >>> x = add_noise(jnp.array([0.5, 1.0]), jnp.array([0.25, 0.0]), x_0, 2 * x_0)
        >>> x[:, 0, 0].tolist()
        [1.0, 1.0]
    """
    return diffusion.expand(alpha) * x_0 + diffusion.expand(sigma) * eps


# ---- in steps ------------------------------------------------------------------------------------


def cosine(steps: int) -> Float[Array, " steps_1"]:
    """Return a_t where 1 - beta_t = cos^2(t) / cos^2(t - 1), beta at most 0.999.

    Nichol and Dhariwal 2021, Eq. 17.
    """
    angle = (jnp.arange(steps + 1) / steps + 0.008) / 1.008 * jnp.pi / 2
    kept = jnp.cos(angle[1:]) ** 2 / jnp.cos(angle[:-1]) ** 2
    return jnp.cumprod(jnp.concatenate([jnp.ones(1), jnp.maximum(kept, 0.001)]))


def vp(steps: int) -> Float[Array, " steps_1"]:
    """Return a_t of the variance-preserving SDE whose beta rises linearly from 0.1 to 10.

    Its integral is exact, so few steps leave as little of the data as many (Xiao et al. 2022).
    """
    u = jnp.arange(steps + 1) / steps
    return jnp.exp(-0.1 * u - 0.5 * (10 - 0.1) * u**2)


SCHEDULES = {"cosine": cosine, "vp": vp}


def alpha_bars(steps: int, schedule: str = "cosine") -> Float[Array, " steps_1"]:
    """Return a_0 = 1, a_1, ..., a_steps: the share of the data's variance left after each step.

    Args:
        steps: of the schedule.
        schedule: one of `SCHEDULES`.

    Example:
        >>> [round(a, 3) for a in alpha_bars(2, "vp").tolist()]
        [1.0, 0.276, 0.006]
    """
    return SCHEDULES[schedule](steps)


# ---- in time -------------------------------------------------------------------------------------


def log_alpha(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log alpha_t, minus half the integral of a rate that grows linearly.

    Song et al. 2021, Eq. 33.
    """
    return -0.25 * t**2 * (BETA_MAX - BETA_MIN) - 0.5 * t * BETA_MIN


def sigma(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return sigma_t = sqrt(1 - alpha_t^2), accurately where it is small.

    Example:
        >>> float(sigma(jnp.array(0.0)))
        0.0
    """
    return jnp.sqrt(-jnp.expm1(2 * log_alpha(t)))


def log_snr(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return lambda_t, which falls from infinity at t = 0 to -5 at t = 1."""
    return log_alpha(t) - jnp.log(sigma(t))
