"""One call and two modes: what decides if a student keeps them, gives their mean, or their centres.

The data are a mixture of two Gaussians, so the teacher is exact, and what a faithful student must
draw is known.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ractd_jax import ctm, diffusion, edm, errors, networks
from ractd_jax.types import Batch

MODES, SHARES, STD = np.array([[[-0.6, 0.6]]]), np.array([[[0.3, 0.7]]]), 0.05
NOISE = diffusion.Noise(bins=20, sigma_max=20.0, initial_std=20.0)
LAST = dataclasses.replace(NOISE, sigma_last=0.15)  # above STD, below the gap between the modes
ROWS, UPDATES = 128, 1500


def data(key, rows, shares=SHARES, std=STD):
    key_mode, key_x = jax.random.split(key)
    mode = jax.random.categorical(key_mode, jnp.log(shares.ravel()), shape=(rows,))
    return (jnp.asarray(MODES.ravel())[mode] + std * jax.random.normal(key_x, (rows,)))[
        :, None, None
    ]


def denoise(x, t, std=STD):
    """E[x_0 | x_t = x] of the mixture."""
    variance = std**2 + diffusion.expand(t) ** 2
    weights = jax.nn.softmax(jnp.log(SHARES) - (x - MODES) ** 2 / (2 * variance), axis=-1)
    means = (std**2 * x + diffusion.expand(t) ** 2 * MODES) / variance
    return jnp.sum(weights * means, axis=-1, keepdims=True)


def samples(noise=NOISE, shares=SHARES, std=STD, **fields):
    """Return what one call of a student draws, trained on the losses of `fields`.

    `shares` are those of the modes in what it learns from, its teacher's stay `SHARES`.
    """
    student = ctm.Student(reward_weight=0.0, warm_start=False, distance="squared", **fields)
    net = networks.ResidualMLP(hidden=32, blocks=1, embed_dim=16)
    adam = optax.adam(optax.cosine_decay_schedule(4e-3, UPDATES))
    batch_of = functools.partial(Batch, cond=jnp.zeros((ROWS, 1)), returns=jnp.zeros(ROWS))

    def bind(params, function=ctm.jump):
        def model(x, t, s):
            return function(net, params, noise, x, t, s, jnp.zeros((len(x), 1)))

        return model

    def terms(params, key):
        live, target = bind(params), bind(jax.lax.stop_gradient(params))
        dsm = live if student.dsm_stop == "zero" else bind(params, ctm.denoised)
        guide = functools.partial(denoise, std=std)
        if student.guide == "student":
            own = bind(jax.lax.stop_gradient(params), ctm.denoised)
            guide = diffusion.WithDropout(lambda x, t, key: own(x, t, t), key)
        models = ctm.Models(live, dsm, live, target, guide, None)
        key_x, *keys = jax.random.split(key, 10)
        batch = batch_of(x=data(key_x, ROWS, shares, std))
        return ctm.loss_terms(models, noise, student, batch, ctm.Keys(*keys), False)[0]

    def update(carry, key):
        params, moments = carry
        scale = 1.0
        if student.balance == "gradient":
            scale = ctm.dsm_scale(lambda p: terms(p, jax.random.clone(key)), params)

        def loss(params):
            losses = terms(params, key)
            return ctm.student_loss(student, losses._replace(dsm=scale * losses.dsm))

        updates, moments = adam.update(jax.grad(loss)(params), moments, params)
        return (optax.apply_updates(params, updates), moments), None

    example = jnp.zeros((1, 1, 1)), jnp.zeros((1, 2)), jnp.zeros((1, 1))
    params = net.init(jax.random.key(0), *example)["params"]
    keys = jax.random.split(jax.random.key(1), UPDATES)
    train = jax.jit(lambda p, keys: jax.lax.scan(update, (p, adam.init(p)), keys)[0][0])
    model = bind(train(params, keys))
    return np.asarray(
        ctm.sample(model, noise, 1, jax.random.split(jax.random.key(2), 4000), (1, 1))
    )


def distance(x):
    """Wasserstein's, from samples of the data."""
    return np.abs(np.sort(x.ravel()) - np.sort(data(jax.random.key(3), len(x)).ravel())).mean()


LEVEL = {"dsm_stop": "level", "max_jump": 8, "solver_steps": 4}


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    "fields",
    [
        LEVEL,
        pytest.param(LEVEL | {"draw": "ctm"}, marks=pytest.mark.slow),
        pytest.param(LEVEL | {"balance": "gradient"}, marks=pytest.mark.slow),
    ],
)
def test_stopping_at_the_level_keeps_both_modes_with_their_weights(fields):
    x = samples(**fields)
    assert distance(x) < 0.08
    assert np.mean(x > 0) == pytest.approx(0.7, abs=0.05)
    near = np.abs(x - MODES).min(axis=-1) < 0.2
    assert near.mean() > 0.9


@pytest.mark.usefixtures("optimised")
def test_stopping_at_zero_gives_their_mean():
    x = samples()
    assert x.mean() == pytest.approx(np.sum(SHARES * MODES), abs=0.1)
    assert x.std() < 0.15
    assert distance(x) > 0.3


# ---- the centre of a mode: sigma_last ------------------------------------------------------------


def test_the_last_step_ends_at_the_centre_of_a_mode():
    noise = dataclasses.replace(LAST, bins=200, sigma_min=1e-4)
    levels = jnp.broadcast_to(diffusion.sigmas(noise, jnp.arange(200))[:, None], (200, 4000))
    x = diffusion.initial(noise, jax.random.split(jax.random.key(0), 4000), (1, 1))
    x = np.asarray(edm.solve(denoise, x, levels, zero=diffusion.zero(noise)))
    for sign, mode in zip((-1, 1), MODES.ravel(), strict=True):
        own = x[np.sign(x) == sign]
        assert np.median(own) == pytest.approx(mode, abs=0.01)
        # Of a Gaussian of deviation s, s^2 / sqrt(s^2 + sigma_last^2) is left.
        spread = np.median(np.abs(own - mode)) / 0.6745
        assert spread == pytest.approx(STD**2 / np.hypot(STD, noise.sigma_last), rel=0.1)
    assert np.mean(x > 0) == pytest.approx(0.7, abs=0.03)


@pytest.mark.usefixtures("optimised")
def test_one_call_gives_the_centres_with_their_weights():
    wide = 0.2
    x = samples(dataclasses.replace(NOISE, sigma_last=0.4), std=wide, **LEVEL)
    of_data = np.asarray(data(jax.random.key(4), 4000, std=wide))
    assert np.mean(x > 0) == pytest.approx(0.7, abs=0.05)
    left, given = (np.median(np.abs(rows - MODES).min(axis=-1)) for rows in (x, of_data))
    assert left < 0.8 * given  # 0.6 here, 0.7 by the teacher's own 20 levels


@pytest.mark.parametrize("level", [0.01, 0.02, 20.0, -1.0])
def test_a_last_level_outside_the_grid_is_refused(level):
    with pytest.raises(errors.FieldError, match="sigma_last"):
        dataclasses.replace(NOISE, sigma_last=level)


def test_a_last_level_is_a_level_of_the_grid():
    levels = np.asarray(diffusion.sigmas(LAST, jnp.array([0, 17, 18, 18.5, 19, 30])))
    np.testing.assert_allclose(levels[[0, 2, 3, 4, 5]], [20, 0.15, 0.15, 0.02, 0.02], rtol=1e-5)
    assert levels[1] > 0.15


# ---- other examples than the teacher's: guide ----------------------------------------------------

OTHER = SHARES[..., ::-1]


@pytest.mark.usefixtures("optimised")
@pytest.mark.slow
def test_a_student_that_guides_itself_draws_what_it_learns_from():
    x = samples(noise=LAST, shares=OTHER, guide="student", **LEVEL)
    assert np.mean(x > 0) == pytest.approx(0.3, abs=0.1)
    held = samples(noise=LAST, shares=OTHER, **LEVEL)  # by a teacher of other shares
    assert np.mean(held > 0) > np.mean(x > 0) + 0.1


def test_only_dsm_at_the_level_teaches_a_guide():
    with pytest.raises(errors.FieldError, match="dsm_stop=level"):
        ctm.Student(guide="student")
