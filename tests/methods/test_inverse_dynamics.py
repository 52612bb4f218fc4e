"""Learned from the data alone, inverse dynamics know the ball's pushes where no wall pushes too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import tiny_pipeline, train

from ractd_jax import errors, networks, tasks, train_state
from ractd_jax.config import Config
from ractd_jax.data import sources, windows
from ractd_jax.data.generate import maze2d
from ractd_jax.envs import maze2d as mazes
from ractd_jax.envs import waypoint_controller
from ractd_jax.envs.make import make_env
from ractd_jax.methods import inverse_dynamics
from ractd_jax.policies import load, planning
from ractd_jax.training import loop

TASK = tasks.get("maze2d-umaze-v1")
SIZES = {"shape": (1, 2), "cond_dim": 8}
INVERSE = inverse_dynamics.Inverse()


@pytest.fixture(scope="module")
def learned(tmp_path_factory, optimised):
    """`(states, next states) -> actions`, learned from 40,000 recorded steps."""
    path = tmp_path_factory.mktemp("maze") / "data.hdf5"
    maze2d.make(TASK, path, transitions=40_000, seed=1)
    recorded = sources.load(TASK, str(path))
    data, normalizer = windows.build(
        recorded, horizon=2, discount=0.0, termination_penalty=0.0, drop_last=False
    )
    adam = train_state.Optimiser(
        3000, batch_size=256, learning_rate=3e-3, weight_decay=0.0, b1=0.9, warmup=100, ema=0.99
    )
    net = networks.InverseMLP(2)
    algorithm = inverse_dynamics.make_inverse(net, INVERSE, adam, **SIZES)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    sample = functools.partial(windows.sample_pairs, batch_size=256, horizon=2)
    key = jax.random.key(1)
    how = {"steps": adam.steps, "updates_per_dispatch": adam.steps, "key": key}
    ((state, report),) = loop.fit(algorithm, state, data, sample, **how)
    assert report.finite

    saved = {"params": state.ema, "normalizer": normalizer}
    model = load.Model(algorithm, saved, Config(TASK), "inverse")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "load_model", lambda run: model)
        return load.load_control("")


def steered(episodes, seed):
    """Drive like the data's controller, noise included, from other starts to other targets.

    Returns states, actions, next states, and whether the ball touched a wall in the step.
    """
    env, rng, rows = make_env(TASK.env_id), np.random.default_rng(seed), []
    maze = mazes.of_task(TASK)
    for episode in range(episodes):
        target = mazes.random_location(maze, rng)
        obs, _ = env.reset(seed=seed + episode)
        controller = waypoint_controller.WaypointController(maze, rng)
        for _ in range(150):
            wanted, _ = controller.act(obs.tolist(), target.tolist())
            action = np.clip(wanted + rng.normal(0.0, maze2d.NOISE, 2), -1, 1)
            after, *_ = env.step(action)
            rows.append((obs, action, after, env.unwrapped.data.ncon > 0))
            obs = after
    env.close()
    return [np.array(column, np.float32) for column in zip(*rows, strict=True)]


def test_actions_of_the_ball_are_recovered_where_it_touches_no_wall(learned):
    """Pushed by a wall as well, one change of state has many causes: nothing is asked there."""
    states, actions, after, touched = steered(20, seed=100)
    error = np.abs(learned(states, after) - actions)
    free = touched == 0
    assert 0.5 < free.mean() < 1
    assert np.mean(error[free]) < 0.01
    assert np.quantile(error[free], 0.99) < 0.01
    assert np.mean(error[~free]) > 5 * np.mean(error[free])


def test_a_pair_has_one_answer_whatever_the_keys(key):
    net = networks.InverseMLP(2, (8,))
    algorithm = inverse_dynamics.make_inverse(
        net, INVERSE, train_state.Optimiser(10, warmup=1), **SIZES
    )
    params = algorithm.init(key).params
    pair = jnp.linspace(-1, 1, 24).reshape(3, 8)
    answers = [algorithm.act(params, pair, jax.random.split(jax.random.key(k), 3)) for k in (1, 2)]
    assert answers[0].shape == (3, 1, 2)
    np.testing.assert_array_equal(*answers)


def test_the_change_of_state_is_what_the_gain_enlarges():
    class Net:
        def apply(self, variables, state, change):
            return jnp.concatenate([state, change], axis=-1)

    pair = jnp.float32([[0.1, 0.2, 0.3, 0.5]])
    seen = inverse_dynamics.predict(Net(), {}, inverse_dynamics.Inverse(gain=10.0), pair)
    np.testing.assert_allclose(seen, [[0.1, 0.2, 2.0, 3.0]], rtol=1e-5)


def test_loss_is_the_absolute_error():
    losses = inverse_dynamics.loss(jnp.float32([[0.5, -1.0]]), jnp.float32([[0.0, 1.0]]))
    np.testing.assert_allclose(losses, [1.25])


def test_stage_trains_and_controls_a_follower(tmp_path):
    pipeline = tiny_pipeline("maze2d_umaze", tmp_path)
    train(pipeline, "inverse")
    control = load.load_control(pipeline.run("inverse"))
    obs, wanted = np.zeros((3, 4)), np.float32(np.linspace(-2, 2, 12).reshape(3, 4))
    actions = control(obs, wanted)
    assert actions.shape == (3, 2)
    assert (np.abs(actions) <= 1).all()
    assert (actions != control(obs, -wanted)).any()

    class Waits(planning.Planner):
        task = TASK

        def __init__(self):
            pass

        def plan(self, obs, goals, seeds, step):
            return np.stack([wanted, wanted[::-1]])

    follower = planning.Follower(Waits(), control=lambda *ends: np.concatenate(ends, axis=-1))
    seen = follower.act(obs[:2], np.array([0, 1]), 0)
    np.testing.assert_array_equal(seen, np.concatenate([obs[:2], wanted[[1, 1]]], axis=-1))


def test_policies_have_no_inverse_dynamics(tmp_path):
    with pytest.raises(errors.UserError, match="no stage inverse"):
        train(tiny_pipeline("hopper_mr", tmp_path), "inverse")


def test_impossible_settings_are_refused():
    with pytest.raises(errors.FieldError, match=r"^gain is 0"):
        inverse_dynamics.Inverse(gain=0.0)
    with pytest.raises(errors.FieldError, match=r"^hidden is empty"):
        inverse_dynamics.Layers(hidden=())
