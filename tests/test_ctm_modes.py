"""One call and two modes: where DSM stops decides whether a student keeps them or gives their mean.

The data are a mixture of two Gaussians, so the teacher is exact, and what a faithful student must
draw is known.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ractd_jax import ctm, diffusion, networks
from ractd_jax.types import Batch

MODES, SHARES, STD = np.array([[[-0.6, 0.6]]]), np.array([[[0.3, 0.7]]]), 0.05
NOISE = diffusion.Noise(bins=20, sigma_max=20.0, initial_std=20.0)
ROWS, UPDATES = 128, 1500


def data(key, rows):
    key_mode, key_x = jax.random.split(key)
    mode = jax.random.categorical(key_mode, jnp.log(SHARES.ravel()), shape=(rows,))
    return (jnp.asarray(MODES.ravel())[mode] + STD * jax.random.normal(key_x, (rows,)))[
        :, None, None
    ]


def denoise(x, t):
    """E[x_0 | x_t = x] of the mixture."""
    variance = STD**2 + diffusion.expand(t) ** 2
    weights = jax.nn.softmax(jnp.log(SHARES) - (x - MODES) ** 2 / (2 * variance), axis=-1)
    means = (STD**2 * x + diffusion.expand(t) ** 2 * MODES) / variance
    return jnp.sum(weights * means, axis=-1, keepdims=True)


def samples(**fields):
    """Return what one call of a student draws, trained on the losses of `fields`."""
    student = ctm.Student(reward_weight=0.0, warm_start=False, distance="squared", **fields)
    net = networks.ResidualMLP(hidden=32, blocks=1, embed_dim=16)
    adam = optax.adam(optax.cosine_decay_schedule(4e-3, UPDATES))
    batch_of = functools.partial(Batch, cond=jnp.zeros((ROWS, 1)), returns=jnp.zeros(ROWS))

    def bind(params, function=ctm.jump):
        def model(x, t, s):
            return function(net, params, NOISE, x, t, s, jnp.zeros((len(x), 1)))

        return model

    def terms(params, key):
        live, target = bind(params), bind(jax.lax.stop_gradient(params))
        dsm = live if student.dsm_stop == "zero" else bind(params, ctm.denoised)
        models = ctm.Models(live, dsm, live, target, denoise, None)
        key_x, *keys = jax.random.split(key, 10)
        batch = batch_of(x=data(key_x, ROWS))
        return ctm.loss_terms(models, NOISE, student, batch, ctm.Keys(*keys), False)[0]

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
        ctm.sample(model, NOISE, 1, jax.random.split(jax.random.key(2), 4000), (1, 1))
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
