"""Noise levels, scalings, weights and distances have their closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ractd_jax import diffusion, errors

NOISE = diffusion.Noise()
EDM = dataclasses.replace(NOISE, scaling="edm")
FREE = dataclasses.replace(NOISE, clamp=False)


# ---- the grid of levels --------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [2, 80, 257])
def test_grid_falls_from_sigma_max_to_sigma_min(bins):
    noise = dataclasses.replace(NOISE, bins=bins)
    levels = np.asarray(diffusion.sigmas(noise, jnp.arange(bins)))
    np.testing.assert_allclose(levels[[0, -1]], [80.0, 0.02], rtol=1e-5)
    assert (np.diff(levels) < 0).all()


def test_grid_has_the_published_levels():
    bins = jnp.array([1, 10, 20, 27, 40, 54, 60, 70, 78])
    published = [75.207, 42.021, 20.678, 12.015, 3.859, 0.885, 0.422, 0.1001, 0.02439]
    np.testing.assert_allclose(diffusion.sigmas(NOISE, bins), published, rtol=1e-3)


def test_bins_past_either_end_are_clipped():
    levels = diffusion.sigmas(NOISE, jnp.array([-1, 80, 90]))
    np.testing.assert_allclose(levels, [80.0, 0.02, 0.02])


def test_levels_between_bins_lie_between_them():
    levels = np.asarray(diffusion.sigmas(NOISE, jnp.array([5.0, 5.25, 5.5, 6.0])))
    assert (np.diff(levels) < 0).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bins", 1),
        ("sigma_min", 0.0),
        ("sigma_max", 0.01),
        ("sigma_max", 0.02),
        ("rho", 0.0),
        ("sigma_data", -0.5),
        ("initial_std", 0.0),
    ],
)
def test_impossible_noise_is_refused_by_its_field(field, value):
    with pytest.raises(errors.FieldError) as e:
        dataclasses.replace(NOISE, **{field: value})
    assert e.value.field == field


def test_unknown_scaling_is_refused_with_a_hint():
    with pytest.raises(errors.FieldError, match="Did you mean 'boundary'"):
        dataclasses.replace(NOISE, scaling="boundry")


def test_predictions_are_clipped_only_if_the_noise_says_so():
    x = jnp.linspace(-3, 3, 48).reshape(2, 8, 3)
    clipped = diffusion.clip(dataclasses.replace(NOISE, clip=True), x)
    np.testing.assert_array_equal(clipped, np.clip(x, -1, 1))
    assert diffusion.clip(dataclasses.replace(NOISE, clip=False), x) is x


# ---- scalings and weights ------------------------------------------------------------------------

LEVELS = jnp.array([0.02, 0.05, 0.5, 1.3, 7.0, 80.0])


def test_boundary_scalings_are_the_identity_at_sigma_min():
    c_skip, c_out, _ = diffusion.scalings(NOISE, jnp.float32(0.02))
    assert (float(c_skip), float(c_out)) == (1.0, 0.0)


def test_scalings_agree_far_above_sigma_min():
    for boundary, edm in zip(
        diffusion.scalings(NOISE, LEVELS[-1]), diffusion.scalings(EDM, LEVELS[-1]), strict=True
    ):
        np.testing.assert_allclose(boundary, edm, rtol=1e-3)


def test_weight_times_c_out_squared_is_one_for_edm_scalings():
    _, c_out, _ = diffusion.scalings(EDM, LEVELS)
    weight = diffusion.karras_weight(EDM, LEVELS)
    np.testing.assert_allclose(weight * c_out**2, np.ones(len(LEVELS)), rtol=1e-5)


def test_network_input_and_target_have_unit_variance_for_edm_scalings():
    # Data of standard deviation sd: x_t has variance sd^2 + t^2, and the network should say
    # F = (x_0 - c_skip x_t) / c_out, of variance ((1 - c_skip)^2 sd^2 + c_skip^2 t^2) / c_out^2.
    c_skip, c_out, c_in = diffusion.scalings(EDM, LEVELS)
    sd = EDM.sigma_data
    target = ((1 - c_skip) ** 2 * sd**2 + c_skip**2 * LEVELS**2) / c_out**2
    np.testing.assert_allclose(c_in**2 * (sd**2 + LEVELS**2), np.ones(len(LEVELS)), rtol=1e-5)
    np.testing.assert_allclose(target, np.ones(len(LEVELS)), rtol=1e-3)


def test_network_sees_250_ln_t():
    t = jnp.array([0.02, 1.0, np.e, 80.0])
    np.testing.assert_allclose(
        diffusion.c_noise(t), [-978.0, 0.0, 250.0, 1095.5], atol=0.01, rtol=1e-4
    )


# ---- distances -----------------------------------------------------------------------------------

SHAPE = (2, 16, 3)
C = 0.00054 * 48**0.5  # 0.0037412, as published for Hopper


def apart(kind, e):
    """Distance of trajectories that differ by e everywhere."""
    p = jnp.linspace(-1, 1, int(np.prod(SHAPE))).reshape(SHAPE)
    return np.asarray(diffusion.distance(kind, p + e, p), np.float64)


@pytest.mark.parametrize("e", [0.001, 0.01, 0.06, 0.3, 2.0])
@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("huber", lambda e: np.sqrt(e**2 + C**2) - C),
        ("released", lambda e: np.sqrt(e**4 + C**2) - C),
        ("squared", lambda e: e**2),
    ],
)
def test_distance_has_its_closed_value(kind, formula, e):
    # Huber and released subtract two nearly equal numbers, so float32 leaves 1e-7 absolute.
    np.testing.assert_allclose(apart(kind, e), np.full(2, formula(e)), rtol=2e-3, atol=5e-7)


def test_distances_have_their_limits():
    np.testing.assert_allclose(apart("huber", 0.0003), np.full(2, 0.0003**2 / (2 * C)), rtol=0.05)
    np.testing.assert_allclose(apart("huber", 5.0), np.full(2, 5.0 - C), rtol=1e-5)
    np.testing.assert_allclose(apart("released", 0.02), np.full(2, 0.02**4 / (2 * C)), rtol=0.05)
    np.testing.assert_allclose(apart("released", 5.0), np.full(2, 25.0 - C), rtol=1e-5)


@pytest.mark.parametrize("kind", diffusion.DISTANCES)
def test_distance_is_symmetric_per_row_and_zero_only_at_equality(key, kind):
    key_p, key_q = jax.random.split(key)
    p = jax.random.normal(key_p, SHAPE)
    q = p.at[1].set(jax.random.normal(key_q, SHAPE[1:]))
    forth, back = diffusion.distance(kind, p, q), diffusion.distance(kind, q, p)
    assert forth.shape == (2,)
    np.testing.assert_allclose(forth, back, rtol=1e-6)
    assert forth[0] == 0.0
    assert forth[1] > 0.5


@pytest.mark.parametrize("kind", diffusion.DISTANCES)
def test_gradient_of_distance_is_zero_and_finite_at_equality(kind):
    p = jnp.full(SHAPE, 0.3)
    gradient = jax.grad(lambda p: diffusion.distance(kind, p, jnp.full(SHAPE, 0.3)).sum())(p)
    np.testing.assert_array_equal(gradient, np.zeros(SHAPE))


# ---- draws ---------------------------------------------------------------------------------------


def test_log_normal_has_its_moments(key):
    log_t = np.log(diffusion.log_normal(FREE, key, 40_000))
    assert log_t.mean() == pytest.approx(-1.2, abs=0.03)
    assert log_t.std() == pytest.approx(1.2, abs=0.03)


@pytest.mark.parametrize("batch", [40_000, 40_001])
def test_mixed_levels_are_high_in_the_first_half_and_log_normal_in_the_second(key, batch):
    levels = np.asarray(diffusion.mixed(FREE, key, batch))
    assert levels.shape == (batch,)
    half = (batch + 1) // 2
    high, low = levels[:half], np.log(levels[half:])
    # xi ~ U[0, 0.7] on the curve of the grid, so that sigma^(1/rho) is uniform.
    xi = (80 ** (1 / 7) - high ** (1 / 7)) / (80 ** (1 / 7) - 0.02 ** (1 / 7))
    assert high.min() >= 0.7588
    assert high.max() <= 80.0001
    np.testing.assert_allclose(
        np.quantile(xi, [0.0, 0.25, 0.5, 1.0]), [0, 0.175, 0.35, 0.7], atol=0.01
    )
    assert low.mean() == pytest.approx(-1.2, abs=0.04)
    assert low.std() == pytest.approx(1.2, abs=0.04)


@pytest.mark.parametrize("levels", diffusion.LEVELS)
def test_clamped_draws_stay_within_the_grid_and_are_else_the_same(levels):
    free, clamped = (
        np.asarray(diffusion.LEVELS[levels](noise, jax.random.key(0), 20_000))
        for noise in (FREE, dataclasses.replace(NOISE, clamp=True))
    )
    assert free.min() < 0.01
    assert 0.003 < np.mean(free < 0.02) < 0.02
    np.testing.assert_array_equal(clamped, np.clip(free, np.float32(0.02), np.float32(80)))


@pytest.mark.parametrize("std", [1.0, 80.0])
def test_initial_row_depends_on_its_own_key_only(key, std):
    noise = dataclasses.replace(NOISE, initial_std=std)
    keys = jax.random.split(key, 2000)
    x = diffusion.initial(noise, keys, (4, 2))
    assert x.shape == (2000, 4, 2)
    assert np.std(x) == pytest.approx(std, rel=0.03)
    order = jnp.array([1999, 5])
    again = diffusion.initial(noise, jax.random.clone(keys)[order], (4, 2))
    np.testing.assert_array_equal(again, x[order])
