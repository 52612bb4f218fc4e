"""DPM-Solver++ for noise that preserves variance: few steps from noise to data.

Lu et al. 2022 (DPM-Solver++), Algorithm 1: singlestep, order 2, predicting clean data; the noise is
the VP-SDE of Song et al. 2021. Unlike in `diffusion`, a time t in [0, 1] is no noise level:

    x_t = alpha_t x_0 + sigma_t eps,   alpha_t^2 + sigma_t^2 = 1      `log_alpha`, `sigma`, `noised`
    lambda_t = log(alpha_t / sigma_t)                                                     `log_snr`

The linear part of the ODE is solved exactly. What is approximated is x_0(x_t, t): by a constant, or
by a straight line through the predictions at the beginning s and at m, inside the step to t.

    h = lambda_t - lambda_s,   phi = 1 - e^-h,   r = (lambda_m - lambda_s) / h
    x_t = sigma_t / sigma_s x_s + alpha_t phi x_0(x_s, s)                                   `first`
          + alpha_t phi (x_0(x_m, m) - x_0(x_s, s)) / (2 r)                                `second`
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ractd_jax import diffusion

Trajectory = Float[Array, "batch horizon dim"]
Denoiser = Callable[[Trajectory, Float[Array, ""]], Trajectory]  # (x_t, t) -> x_0

BETA_MIN, BETA_MAX = 0.1, 20.0  # rates of noising at t = 0 and t = 1 (Song et al. 2021, App. C)
T_MIN = 1e-3  # where training starts and sampling ends; at 0 there is nothing to predict


# ---- schedule ------------------------------------------------------------------------------------


def log_alpha(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log alpha_t, minus half the integral of a rate that grows linearly."""
    return -0.25 * t**2 * (BETA_MAX - BETA_MIN) - 0.5 * t * BETA_MIN


def sigma(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return sigma_t = sqrt(1 - alpha_t^2), accurately where it is small."""
    return jnp.sqrt(-jnp.expm1(2 * log_alpha(t)))


def log_snr(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return lambda_t, which falls from infinity at t = 0 to -5 at t = 1."""
    return log_alpha(t) - jnp.log(sigma(t))


def noised(t: Float[Array, " batch"], x_0: Trajectory, eps: Trajectory) -> Trajectory:
    """Return alpha_t x_0 + sigma_t eps."""
    t = diffusion.expand(t)
    return jnp.exp(log_alpha(t)) * x_0 + sigma(t) * eps


def clean(t: Float[Array, ""], x: Trajectory, eps: Trajectory) -> Trajectory:
    """Return the x_0 of which x would be the noised version."""
    return (x - sigma(t) * eps) * jnp.exp(-log_alpha(t))


# ---- solver --------------------------------------------------------------------------------------


def _move(x: Trajectory, x_0: Trajectory, s: Float[Array, ""], t: Float[Array, ""]):
    """Return x at time t if x_0 stays what it is, and how much x_0 counts there."""
    weight = -jnp.exp(log_alpha(t)) * jnp.expm1(log_snr(s) - log_snr(t))
    return sigma(t) / sigma(s) * x + weight * x_0, weight


def first(denoiser: Denoiser, x: Trajectory, s: Float[Array, ""], t: Float[Array, ""]):
    """Step from s to t by one prediction; this is DDIM."""
    return _move(x, denoiser(x, s), s, t)[0]


def second(
    denoiser: Denoiser,
    x: Trajectory,
    s: Float[Array, ""],
    m: Float[Array, ""],
    t: Float[Array, ""],
):
    """Step from s to t by two predictions, at s and at m in between."""
    x_0 = denoiser(x, s)
    slope = denoiser(_move(x, x_0, s, m)[0], m) - x_0
    r = (log_snr(m) - log_snr(s)) / (log_snr(t) - log_snr(s))
    end, weight = _move(x, x_0, s, t)
    return end + weight * slope / (2 * r)


SPACINGS = {"uniform": 1, "quadratic": 2}  # the root of the times that is spread evenly


def grid(nfe: int, spacing: str) -> Float[Array, " nfe_1"]:
    """Return the times that sampling goes through, from 1 to `T_MIN`.

    Args:
        nfe: calls of the denoiser.
        spacing: "uniform", as published, or "quadratic", with shorter steps towards the data. By 15
            calls, Gaussian data of deviation 0.5 come out with 0.89 or with 0.96 of it.
    """
    power = SPACINGS[spacing]
    return jnp.linspace(1.0, T_MIN ** (1 / power), nfe + 1) ** power


def solve(denoiser: Denoiser, x: Trajectory, times: Float[Array, " nfe_1"]) -> Trajectory:
    """Follow the ODE from the first of `times` to the last, with a prediction at each but the last.

    Steps are of second order, over two intervals; where their number is odd, the last is of first
    order.
    """
    even = (len(times) - 1) // 2 * 2

    def step(x, now):
        return second(denoiser, x, *now), None

    x, _ = jax.lax.scan(step, x, (times[:even:2], times[1:even:2], times[2 : even + 1 : 2]))
    return x if even == len(times) - 1 else first(denoiser, x, times[-2], times[-1])
