"""DPM-Solver++ for noise that preserves variance: few steps from noise to data.

Lu et al. 2022 (DPM-Solver++), Algorithm 1: singlestep, order 2, predicting clean data. Times,
alpha, sigma and lambda are those of `vp_schedule`: a time t in [0, 1] is no noise level.

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

from ractd_jax.methods.vp_schedule import T_MIN, log_alpha, log_snr, sigma
from ractd_jax.types import Trajectory

Time = Float[Array, ""]
CleanPredictor = Callable[[Trajectory, Time], Trajectory]  # (x_t, t) -> x_0, one t for all rows


def clean(t: Time, x: Trajectory, eps: Trajectory) -> Trajectory:
    """Return the x_0 of which x would be the noisy version (Lu et al. 2022, Eq. 3).

    Args:
        t: the time of all rows.
        x: noisy trajectories.
        eps: the noise in them.
    """
    return (x - sigma(t) * eps) * jnp.exp(-log_alpha(t))


def _move(x: Trajectory, x_0: Trajectory, s: Time, t: Time) -> tuple[Trajectory, Time]:
    """Return x at time t if x_0 stays what it is, and the weight of x_0 in it."""
    weight = -jnp.exp(log_alpha(t)) * jnp.expm1(log_snr(s) - log_snr(t))
    return sigma(t) / sigma(s) * x + weight * x_0, weight


def first(predictor: CleanPredictor, x: Trajectory, s: Time, t: Time) -> Trajectory:
    """Step from s to t by one prediction; this is DDIM (Lu et al. 2022, Eq. 9 with k = 1).

    Example:
        >>> x, s, t = jnp.ones((1, 1, 1)), jnp.array(1.0), jnp.array(0.5)
        >>> float(first(lambda x, t: 0 * x, x, s, t)[0, 0, 0] - sigma(t) / sigma(s))
        0.0
    """
    return _move(x, predictor(x, s), s, t)[0]


def second(predictor: CleanPredictor, x: Trajectory, s: Time, m: Time, t: Time) -> Trajectory:
    """Step from s to t by two predictions, at s and at m in between (Algorithm 1)."""
    x_0 = predictor(x, s)
    slope = predictor(_move(x, x_0, s, m)[0], m) - x_0
    r = (log_snr(m) - log_snr(s)) / (log_snr(t) - log_snr(s))
    end, weight = _move(x, x_0, s, t)
    return end + weight * slope / (2 * r)


SPACINGS = {"uniform": 1, "quadratic": 2}  # the root of the times that is spread evenly


def grid(nfe: int, spacing: str) -> Float[Array, " nfe_1"]:
    """Return the times that sampling goes through, from 1 to `T_MIN`.

    Args:
        nfe: calls of the predictor.
        spacing: "uniform", as published, or "quadratic", with shorter steps towards the data. By 15
            calls, Gaussian data of deviation 0.5 come out with 0.89 or with 0.96 of it.

    Example:
        >>> [round(t, 3) for t in grid(2, "quadratic").tolist()]
        [1.0, 0.266, 0.001]
    """
    power = SPACINGS[spacing]
    return jnp.linspace(1.0, T_MIN ** (1 / power), nfe + 1) ** power


def solve(predictor: CleanPredictor, x: Trajectory, times: Float[Array, " nfe_1"]) -> Trajectory:
    """Follow the ODE from the first of `times` to the last, with a prediction at each but the last.

    Steps are of second order, over two intervals; where their number is odd, the last is of first
    order.

    Args:
        predictor: of clean data.
        x: noise at the first time.
        times: see `grid`.

    Example:
        >>> x = solve(lambda x, t: 0.7 + 0 * x, jnp.ones((5, 1, 3)), grid(15, "quadratic"))
        >>> x.shape, round(float(x[0, 0, 0]), 1)
        ((5, 1, 3), 0.7)
    """
    even = (len(times) - 1) // 2 * 2

    def step(x, now):
        return second(predictor, x, *now), None

    x, _ = jax.lax.scan(step, x, (times[:even:2], times[1:even:2], times[2 : even + 1 : 2]))
    return x if even == len(times) - 1 else first(predictor, x, times[-2], times[-1])
