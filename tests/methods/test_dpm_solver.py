"""The VP-SDE's schedule, and DPM-Solver++ against ODEs whose solutions are known."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ractd_jax.methods import dpm_solver, vp_schedule

STD, MEAN = 0.5, 0.3


def scales(t):
    """Return (alpha_t, sigma_t)."""
    t = jnp.float32(t)
    return jnp.exp(vp_schedule.log_alpha(t)), vp_schedule.sigma(t)


def gaussian(x, t):
    """E[x_0 | x_t = x] for x_0 ~ N(MEAN, STD^2)."""
    alpha, sigma = scales(t)
    gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
    return MEAN + gain * (x - alpha * MEAN)


def solution(x, start, end):
    """Where the ODE leads: it keeps (x - mean of x_t) / deviation of x_t."""

    def moments(t):
        alpha, sigma = scales(t)
        return alpha * MEAN, jnp.sqrt(alpha**2 * STD**2 + sigma**2)

    (mean, std), (mean_end, std_end) = moments(start), moments(end)
    return mean_end + std_end * (x - mean) / std


@pytest.fixture
def x(key):
    return jax.random.normal(key, (8, 1, 2))


def test_schedule_solves_its_equation():
    t = jnp.linspace(0.01, 0.99, 9)
    rate = vp_schedule.BETA_MIN + t * (vp_schedule.BETA_MAX - vp_schedule.BETA_MIN)
    slope = jax.vmap(jax.grad(vp_schedule.log_alpha))(t)
    np.testing.assert_allclose(slope, -rate / 2, rtol=1e-5)  # d alpha = -beta(t) / 2 alpha dt
    alpha = np.exp(-0.25 * t**2 * 19.9 - 0.05 * t)
    np.testing.assert_allclose(vp_schedule.sigma(t) ** 2 + alpha**2, 1, rtol=1e-5)
    np.testing.assert_allclose(vp_schedule.log_snr(t), np.log(alpha / np.sqrt(1 - alpha**2)), 1e-3)
    # 1 - exp(-2 (0.25 1e-6 19.9 + 0.5 1e-3 0.1)) = 1.0994e-4
    np.testing.assert_allclose(scales(1e-3)[1], np.sqrt(1.0994e-4), rtol=1e-4)
    np.testing.assert_allclose([*scales(0.0), *scales(1.0)], [1, 0, np.exp(-5.025), 1], atol=3e-5)


def test_clean_takes_the_noise_off_again(x):
    t, eps = jnp.full(8, 0.4), x[::-1]
    x_0 = dpm_solver.clean(t[0], vp_schedule.add_noise(*scales(t), x, eps), eps)
    np.testing.assert_allclose(x_0, x, atol=1e-5)


@pytest.mark.parametrize("nfe", [1, 2, 15])
def test_data_of_one_point_take_any_number_of_steps(x, nfe):
    solved = dpm_solver.solve(
        lambda x, t: jnp.full_like(x, 0.7), x, dpm_solver.grid(nfe, "uniform")
    )
    (alpha, sigma), (alpha_end, sigma_end) = scales(1.0), scales(vp_schedule.T_MIN)
    expected = alpha_end * 0.7 + sigma_end / sigma * (x - alpha * 0.7)
    np.testing.assert_allclose(solved, expected, atol=1e-5)


@pytest.mark.parametrize(("order", "ratio"), [(1, 2), (2, 4)])
def test_half_the_step_makes_the_error_smaller_by_the_order(x, order, ratio):
    start, end = 0.9, 0.1

    def error(steps):
        times = jnp.linspace(start, end, steps * order + 1)
        if order == 2:
            solved = dpm_solver.solve(gaussian, x, times)
        else:
            solved = x
            for s, t in itertools.pairwise(times):
                solved = dpm_solver.first(gaussian, solved, s, t)
        return np.abs(solved - solution(x, start, end)).max()

    assert error(8) / error(16) == pytest.approx(ratio, rel=0.2)


@pytest.mark.parametrize(
    ("spacing", "kept"),
    [
        ("uniform", 0.888),  # what the published sampler does to these data
        ("quadratic", 0.963),
    ],
)
def test_fifteen_calls_keep_mean_and_nearly_the_spread(spacing, kept):
    x = jnp.linspace(-2, 2, 5)[:, None, None]
    solved = dpm_solver.solve(gaussian, x, dpm_solver.grid(15, spacing))
    exact = solution(x, 1.0, vp_schedule.T_MIN)
    np.testing.assert_allclose(solved[2], exact[2], atol=0.01)
    spread = (solved[-1] - solved[0]) / (exact[-1] - exact[0])
    np.testing.assert_allclose(spread, kept, atol=2e-3)


@pytest.mark.parametrize("spacing", dpm_solver.SPACINGS)
@pytest.mark.parametrize("nfe", [1, 4, 15])
def test_as_many_calls_as_asked_for(x, nfe, spacing):
    calls, times = [], dpm_solver.grid(nfe, spacing)

    def denoiser(x, t):
        jax.debug.callback(lambda t: calls.append(float(t)), t)
        return gaussian(x, t)

    dpm_solver.solve(denoiser, x, times).block_until_ready()
    jax.effects_barrier()
    np.testing.assert_allclose(calls, times[:-1], rtol=1e-5)
    assert times[0] == 1
    assert times[-1] == pytest.approx(vp_schedule.T_MIN)
