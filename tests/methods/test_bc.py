"""Behaviour cloning gives the data's mean action, also where nobody ever acted so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import COND, SHAPE, load
from run_helpers import tiny_pipeline, train

import ractd_jax
from ractd_jax import errors
from ractd_jax.method import Reads
from ractd_jax.methods import bc, registry

SIZES = {"shape": (1, SHAPE[1]), "cond_dim": COND}


@pytest.fixture(scope="module")
def learnt(optimiser, draw):
    """`(dataset) -> (algorithm, weights)` after 400 updates."""

    def learn(dataset):
        net = bc.Layers(hidden=(32, 32)).policy(SHAPE[1])
        algorithm = bc.make_bc(net, optimiser(steps=400, learning_rate=5e-3), **SIZES)

        def body(i, state):
            key_batch, key_update = jax.random.split(jax.random.fold_in(jax.random.key(0), i))
            return algorithm.update(state, draw(dataset, key_batch), key_update)[0]

        state = jax.jit(algorithm.init)(jax.random.key(1))
        return algorithm, jax.jit(lambda s: jax.lax.fori_loop(0, 400, body, s))(state).params

    return learn


def act(algorithm, params, cond, seed=0):
    return algorithm.act(params, cond, jax.random.split(jax.random.key(seed), len(cond)))[:, 0]


def test_loss_is_the_squared_error_of_each_action(key):
    action = jax.random.normal(key, (5, 2))
    np.testing.assert_array_equal(bc.loss(action, action), 0)
    np.testing.assert_allclose(bc.loss(action + jnp.array([[0.3, -0.1]]), action), 0.05, rtol=1e-5)


def test_learns_the_mean_action_of_a_state(learnt, steps):
    """Actions scatter around half the state's first numbers."""
    noise = 0.2 * jax.random.normal(jax.random.key(3), steps.x.shape)
    data = steps._replace(x=0.5 * steps.cond[:, None, : SHAPE[1]] + noise)
    algorithm, params = learnt(data)
    cond = jax.random.uniform(jax.random.key(2), (200, COND), minval=-0.9, maxval=0.9)
    error = act(algorithm, params, cond) - 0.5 * cond[:, : SHAPE[1]]
    assert np.abs(error).mean() < 0.04


def test_gives_the_mean_of_two_modes_where_no_action_is(learnt, steps):
    algorithm, params = learnt(steps)  # all are near -0.6 or 0.6
    assert np.abs(steps.x).min() > 0.2
    assert np.abs(act(algorithm, params, steps.cond[:200])).mean() < 0.1


def test_acts_in_the_range_of_actions_and_whatever_the_key(learnt, steps):
    algorithm, params = learnt(steps)
    wild = jax.tree.map(lambda w: 100 * w, params)
    actions = act(algorithm, wild, steps.cond[:50])
    assert np.abs(actions).max() == 1
    np.testing.assert_array_equal(act(algorithm, wild, steps.cond[:50], seed=7), actions)


def test_record_is_right():
    method = registry.get("bc")
    assert method.deterministic
    assert (method.acts, method.row, method.values, method.trained_by_all) == (
        True,
        True,
        False,
        False,
    )
    assert method.reads is Reads.TRANSITIONS
    assert method.tasks == ("policy",)
    assert method.calls(method.fields()) == 1
    assert (
        next(name for name, m in registry.records().items() if m.row and m.acts) == "bc"
    )  # the plainest


@pytest.mark.parametrize("preset", ["default", "paper", "released"])
def test_numbers_are_those_of_the_usual_baseline(preset):
    config = registry.configure(load("hopper_mr", f"bc,size=demo,preset={preset}")[1])
    section = config.stages["bc"]
    assert section.network == bc.Layers((256, 256), "relu", "")
    assert section.data.normalization == "standard"
    assert section.weights == "live"
    optimiser = section.optimiser
    assert (optimiser.learning_rate, optimiser.batch_size, optimiser.schedule) == (
        1e-3,
        256,
        "cosine",
    )
    assert optimiser.steps == 8000
    assert "bc" not in registry.configure(load("maze2d_umaze", "teacher")[1]).stages


def test_stage_trains_alone_and_acts(tmp_path):
    pipeline = tiny_pipeline("hopper_mr", tmp_path)
    train(pipeline, "bc")
    assert [path.name for path in pipeline.workdir.iterdir() if path.is_dir()] == ["bc"]
    policy = ractd_jax.load_policy(pipeline.run("bc"))
    assert policy(np.zeros(11)).shape == (3,)
    with pytest.raises(errors.UserError, match="Choose from"):
        ractd_jax.load_policy(pipeline.run("bc"), nfe=2)
