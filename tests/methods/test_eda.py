"""EDA against closed forms: Gaussian densities, the loss's minimum, what alignment must leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import tiny_pipeline, train

from ractd_jax import errors
from ractd_jax.data import transitions
from ractd_jax.methods import eda, eda_behavior, registry, vp_schedule
from ractd_jax.nn import denoising_mlp
from ractd_jax.types import Transition

STD, MEAN = 0.5, 0.3
SIZES = {"shape": (1, 1), "cond_dim": 2}


def moments(t):
    """Mean and variance of x_t for x_0 ~ N(MEAN, STD^2)."""
    alpha, sigma = jnp.exp(vp_schedule.log_alpha(t)), vp_schedule.sigma(t)
    return alpha * MEAN, alpha**2 * STD**2 + sigma**2


def gaussian(x, t):
    """The log-density of x_t, up to a constant."""
    mean, variance = moments(t)
    return -jnp.sum((x - mean[:, None, None]) ** 2, axis=(1, 2)) / (2 * variance)


@pytest.fixture(scope="module")
def net():
    return denoising_mlp.Bottleneck(hidden=32, blocks=1, widening=2, embed_dim=8, scale=0.5)


def gaussian_data(key, rows):
    return MEAN + STD * jax.random.normal(key, (rows, 1, 1))


# ---- the behaviour model -------------------------------------------------------------------------


def test_noise_of_the_true_density_is_the_expected_noise(key):
    x, t = jax.random.normal(key, (6, 1, 2)), jnp.linspace(0.01, 1, 6)
    mean, variance = (a[:, None, None] for a in moments(t))
    expected = vp_schedule.sigma(t)[:, None, None] * (x - mean) / variance
    np.testing.assert_allclose(eda_behavior.predict_noise(gaussian, x, t), expected, rtol=1e-5)


def test_true_density_is_where_the_loss_is_smallest(key):
    key_x, key_loss = jax.random.split(key)
    x_0 = gaussian_data(key_x, 20_000)

    def loss(scale):
        return jnp.mean(
            eda_behavior.behavior_loss(lambda x, t: scale * gaussian(x, t), x_0, key_loss)
        )

    slope = jax.jit(jax.vmap(jax.grad(loss)))(jnp.array([0.8, 1.0, 1.2]))
    assert slope[0] < -0.1
    assert slope[1] == pytest.approx(0, abs=0.02)
    assert slope[2] > 0.1


def test_differences_of_learnt_log_densities_are_the_true_ones(optimised, net, optimiser, key):
    adam = optimiser(steps=800, batch_size=256, learning_rate=5e-3)
    algorithm = eda_behavior.make_behavior(net, eda_behavior.Sampling(), adam, **SIZES)

    @jax.jit
    def train(key):
        def one(state, key):
            key_x, key_update = jax.random.split(key)
            x, cond = gaussian_data(key_x, 256), jnp.zeros((256, 2))
            batch = Transition(x, cond, x[:, 0, 0], cond, x[:, 0, 0])
            return algorithm.update(state, batch, key_update)[0], None

        key_init, key_loop = jax.random.split(key)
        return jax.lax.scan(one, algorithm.init(key_init), jax.random.split(key_loop, 800))[0]

    f = eda_behavior.density(net, train(key).params, jnp.zeros((9, 2)))
    for time in (0.1, 0.4):
        t = jnp.full(9, time)
        mean, variance = moments(t)
        x = (mean + jnp.linspace(-1.5, 1.5, 9) * jnp.sqrt(variance))[:, None, None]
        density, true = f(x, t), gaussian(x, t)
        np.testing.assert_allclose(density - density[4], true - true[4], atol=0.15)


def test_samples_of_the_true_density_have_its_moments(key):
    def draw(sampling, keys):
        return eda_behavior.draw(gaussian, sampling, keys, (1, 1))

    keys, draw = jax.random.split(key, 2000), jax.jit(draw, static_argnums=0)
    x = draw(eda_behavior.Sampling(nfe=20, spacing="quadratic"), keys)
    assert x.mean() == pytest.approx(MEAN, abs=0.03)
    assert x.std() == pytest.approx(STD, rel=0.05)
    assert np.abs(x).max() > 1.5
    assert np.abs(draw(eda_behavior.Sampling(clip=True), jax.random.clone(keys))).max() < 1.05


# ---- alignment -----------------------------------------------------------------------------------


def test_loss_is_smallest_where_the_gap_is_the_advantage_over_beta():
    values, alpha, beta = jnp.array([[0.1, 0.7, -0.4]]), 3.0, 0.5
    gap = alpha * values / beta + 7.0  # a constant changes nothing

    def loss(gap):
        return eda.alignment_loss(gap, values, alpha, beta)[0]

    p = jax.nn.softmax(alpha * values)
    assert loss(gap) == pytest.approx(-float(jnp.sum(p * jnp.log(p))), rel=1e-5)  # their entropy
    np.testing.assert_allclose(jax.grad(loss)(gap), 0, atol=1e-6)
    assert loss(1.1 * gap) > loss(gap)


@pytest.mark.parametrize(("alpha", "target"), [(0.0, [1 / 3] * 3), (1e4, [0, 1, 0])])
def test_alpha_says_how_sharply_the_critic_prefers(alpha, target):
    gap, values = jnp.zeros((1, 3)), jnp.array([[0.1, 0.7, -0.4]])
    assert eda.alignment_loss(gap, values, alpha, 2.0)[0] == pytest.approx(np.log(3))
    slope = jax.grad(lambda gap: eda.alignment_loss(gap, values, alpha, 2.0)[0])(gap)
    np.testing.assert_allclose(slope[0], 2.0 * (1 / 3 - np.array(target)), atol=1e-6)


def test_candidates_of_a_state_share_the_time_and_not_the_noise(key):
    seen = {}

    def policy(x, t):
        seen.update(x=x.reshape(5, 4), t=t.reshape(5, 4))
        return x[:, 0, 0]

    gap = eda.density_gap(policy, lambda x, t: 0 * t, jnp.zeros((5, 4, 1, 1)), key)
    np.testing.assert_array_equal(gap, seen["x"])
    assert (np.ptp(seen["t"], axis=1) == 0).all()
    assert len(np.unique(seen["t"])) == 5
    assert len(np.unique(seen["x"])) == 20


@pytest.fixture(scope="module")
def make(net, optimiser):
    """`(**fields) -> (algorithm, frozen)`; the critic values an action at its number."""
    behavior = eda_behavior.make_behavior(net, eda_behavior.Sampling(), optimiser(), **SIZES)
    frozen = {
        "behavior": jax.jit(behavior.init)(jax.random.key(1)).params,
        "critic": jnp.float32(2),
    }

    def critic(params, x, cond):
        return params * x[:, 0, 0] + 0 * cond[:, 0]

    def make(**fields):
        method = eda.Eda(**{"nfe": 2, "proposals": 4} | fields)
        return eda.make_eda(net, critic, method, optimiser(weight_decay=0.0), **SIZES), frozen

    return make


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(10, 2)), rng.normal(size=(10, 1)), np.zeros(10), np.ones(10)
    arrays = [jnp.asarray(a, jnp.float32) for a in arrays]
    return transitions.StepDataset(*arrays, jnp.array([0, 1, 2, 4, 5, 7, 8]))


def learn(algorithm, frozen, proposals, updates):
    state = jax.jit(algorithm.init)(jax.random.key(0), frozen)
    update = jax.jit(algorithm.update)
    for i in range(updates):
        state, metrics = update(state, proposals, jax.random.key(i))
    return state, metrics


def proposals(key, rows):
    x = jax.random.uniform(key, (rows, 4, 1, 1), minval=-1, maxval=1)
    return eda.Proposals(x, jnp.zeros((rows, 2)), 2 * x[:, :, 0, 0])


def test_alignment_without_preferences_keeps_the_behaviour(make, key):
    algorithm, frozen = make(alpha=0.0)
    state, metrics = learn(algorithm, frozen, proposals(key, 8), 4)
    assert metrics["loss"] == pytest.approx(np.log(4))
    for a, b in zip(*map(jax.tree.leaves, (state.params, frozen["behavior"])), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_alignment_with_sharp_preferences_picks_the_best(make, key):
    algorithm, frozen = make(alpha=100.0, beta=1.0)
    key_x, key_act = jax.random.split(key)
    state, metrics = learn(algorithm, frozen, proposals(key_x, 64), 100)
    assert metrics["agreement"] > 0.4  # of chance's 0.25; at the later times all is noise
    assert metrics["loss"] < np.log(4) - 0.05
    keys, act = jax.random.split(key_act, 50), jax.jit(algorithm.act)
    before = act(frozen["behavior"], jnp.zeros((50, 2)), keys)
    after = act(state.params, jnp.zeros((50, 2)), jax.random.clone(keys))
    assert (after - before).mean() > 0.3


def test_proposals_are_drawn_once_for_each_state_and_valued(make, dataset, monkeypatch, key):
    algorithm, frozen = make()
    proposals = algorithm.prepare(frozen, dataset, key)
    assert proposals.x.shape == (7, 4, 1, 1)
    np.testing.assert_array_equal(proposals.cond, dataset.observations[dataset.starts])
    np.testing.assert_allclose(proposals.values, 2 * proposals.x[:, :, 0, 0], rtol=1e-6)
    assert len(np.unique(proposals.x)) == proposals.x.size
    monkeypatch.setattr(eda, "CHUNK", 3)
    again = algorithm.prepare(frozen, dataset, jax.random.clone(key))
    np.testing.assert_allclose(again.x, proposals.x, atol=1e-5)


def test_proposals_for_some_states_only(make, dataset, key):
    algorithm, frozen = make(states=3)
    proposals = algorithm.prepare(frozen, dataset, key)
    same = np.asarray(proposals.cond)[:, None] == np.asarray(dataset.observations)[None]
    states, rows = np.nonzero(same.all(axis=-1))
    assert list(states) == [0, 1, 2]
    assert len(set(rows)) == 3
    assert set(rows) <= set(np.asarray(dataset.starts))


def test_a_batch_keeps_proposals_with_their_state(key):
    values = jnp.arange(12.0).reshape(6, 2)
    data = eda.Proposals(values[:, :, None, None], jnp.arange(6.0)[:, None], values)
    batch = eda.sample(data, key, batch_size=40)
    assert batch.values.shape == (40, 2)
    np.testing.assert_array_equal(batch.values, batch.x[:, :, 0, 0])
    np.testing.assert_array_equal(batch.values[:, 0], 2 * batch.cond[:, 0])
    assert len(np.unique(batch.cond)) > 3


def test_settings_that_cannot_be_are_named():
    with pytest.raises(errors.FieldError, match="uniform"):
        eda.Eda(spacing="unform")
    with pytest.raises(errors.FieldError, match=r"^nfe is 0"):
        eda_behavior.Sampling(nfe=0)
    for field, value in (("proposals", 1), ("states", -1), ("beta", 0.0), ("alpha", -1.0)):
        with pytest.raises(errors.FieldError, match=rf"^{field} is {value}"):
            eda.Eda(**{field: value})


def test_policy_has_the_behaviour_models_network_but_for_its_dropout(tmp_path):
    pipeline = tiny_pipeline(
        "hopper_mr", tmp_path, eda_behavior={"network": {"hidden": 16, "dropout": 0.5}}
    )
    assert set(registry.needs(pipeline.config, "eda").values()) == {"eda_behavior", "eda_critic"}
    algorithm = registry.make(pipeline.config, "eda")
    behavior = registry.make(pipeline.config, "eda_behavior")
    key = jax.random.key(0)
    params = jax.eval_shape(behavior.init, key).params
    state = jax.eval_shape(algorithm.init, key, {"behavior": params})
    batch = eda.Proposals(jnp.zeros((2, 3, 1, 3)), jnp.zeros((2, 11)), jnp.zeros((2, 3)))
    jax.eval_shape(algorithm.update, state, batch, key)  # with dropout it would ask for its key
    train(pipeline, "eda")
    assert {run.name for run in (tmp_path / "run").iterdir() if run.is_dir()} == {
        "eda",
        "eda_behavior",
        "eda_critic",
    }
