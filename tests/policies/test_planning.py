"""A plan of states becomes actions: once an episode, or again and again."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT

import ractd_jax
from ractd_jax import errors, tasks
from ractd_jax.config import Config
from ractd_jax.data import normalization
from ractd_jax.data.generate import maze2d
from ractd_jax.envs import maze2d as mazes
from ractd_jax.envs import waypoint_controller
from ractd_jax.envs.make import make_env
from ractd_jax.evaluation import rollouts
from ractd_jax.policies import load, planning
from ractd_jax.types import Algorithm

TASK = tasks.get("maze2d-umaze-v1")
NORMALIZER = normalization.identity(4, 2)._replace(
    observations=normalization.Affine(
        np.float32([0.7, 0.8, 0.2, 0.4]), np.float32([-1.4, -1.5, 0.1, 0.0])
    )
)
HORIZON = 9
START, GOAL = np.float32([3, 1, 0.5, -0.5]), np.float32([1, 1, 0, 0])


def unused(*given):
    """Stand where an algorithm is asked for what is never called."""
    raise AssertionError(given)


def straight(params, cond, keys):
    """Plan the straight line between the two ends, `params` off by noise."""
    share = jnp.linspace(0, 1, HORIZON)[None, :, None]
    line = (1 - share) * cond[:, None, :4] + share * cond[:, None, 4:]
    return line + params * jax.vmap(lambda key: jax.random.normal(key, line.shape[1:]))(keys)


def planner(noise=0.0, act=straight):
    algorithm = Algorithm(unused, unused, act)
    return planning.Planner(algorithm, jnp.float32(noise), NORMALIZER, TASK, seed=5)


# ---- plans ---------------------------------------------------------------------------------------


def test_plans_go_from_the_observation_to_the_goal_in_their_units():
    expected = np.linspace(START, GOAL, HORIZON)
    np.testing.assert_allclose(planner()(START, GOAL), expected, atol=1e-5)
    np.testing.assert_allclose(planner()([*START], [*GOAL]), expected, atol=1e-5)
    rows = planner()(np.stack([START, GOAL]), GOAL)
    np.testing.assert_allclose(rows[0], expected, atol=1e-5)
    np.testing.assert_allclose(rows[1], np.tile(GOAL, (HORIZON, 1)), atol=1e-5)
    assert planner()(np.stack([START, GOAL]), np.stack([GOAL, START])).shape == (2, HORIZON, 4)


def test_plans_far_from_zero_keep_their_digits():
    far = np.array([5_412_344.0, -1.7e9, 0, 0])
    rows = far + np.random.default_rng(0).uniform(0, 1, (50, 4))
    observations = normalization.minmax(rows)
    assert normalization.origin(observations).any()
    away = planning.Planner(
        Algorithm(unused, unused, straight),
        jnp.float32(0),
        NORMALIZER._replace(observations=observations),
        TASK,
    )
    expected = np.linspace(rows[0] - far, rows[1] - far, HORIZON)
    np.testing.assert_allclose(away(rows[0], rows[1]) - far, expected, atol=1e-5)


def test_noise_of_a_row_depends_on_its_seed_and_the_step_alone():
    noisy, obs = planner(0.3), np.stack([START] * 3)
    goals = np.stack([GOAL] * 3)
    seeds = np.array([7, 8, 9])
    plans = noisy.plan(obs, goals, seeds, 4)
    np.testing.assert_array_equal(noisy.plan(obs, goals, seeds[::-1].copy(), 4)[::-1], plans)
    np.testing.assert_allclose(noisy.plan(obs[:1], goals[:1], seeds[:1], 4), plans[:1], atol=1e-6)
    assert np.abs(plans[0] - plans[1]).max() > 0.1
    assert np.abs(noisy.plan(obs, goals, seeds, 5) - plans).max() > 0.1
    assert np.abs(noisy(START, GOAL) - noisy(START, GOAL)).max() > 0.1  # a new one each call


@pytest.mark.parametrize(
    ("obs", "goal", "says"),
    [
        (START[:3], GOAL, "4 numbers"),
        (START, np.zeros(2), "4 numbers"),
        (START * np.nan, GOAL, "observation holds NaN"),
        (START, GOAL + np.inf, "goal holds NaN"),
        (START, np.stack([GOAL] * 2), "do not fit"),
        (np.stack([START] * 3), np.stack([GOAL] * 2), "do not fit"),
    ],
)
def test_wrong_ends_are_refused(obs, goal, says):
    with pytest.raises(errors.UserError, match=says):
        planner()(obs, goal)


# ---- following them ------------------------------------------------------------------------------


def driven(seed):
    """Return the states that D4RL's controller passes on its way to the goal, and its return."""
    env = make_env(TASK.env_id)
    obs, _ = env.reset(seed=seed)
    controller = waypoint_controller.WaypointController(
        mazes.of_task(TASK), np.random.default_rng(seed)
    )
    states, total, done = [obs], 0.0, False
    while not done:
        action, _ = controller.act(obs.tolist(), env.unwrapped.target.tolist())
        obs, reward, _, done, _ = env.step(np.array(action))
        states.append(obs)
        total += reward
    env.close()
    return np.float32(states), total


def test_a_known_way_followed_in_open_loop_scores_like_the_one_who_drove_it():
    seeds = [0, 1, 2, 3]
    known = [driven(seed) for seed in seeds]

    class Known(planning.Planner):
        task = TASK

        def __init__(self):
            pass

        def plan(self, obs, goals, seeds, step):
            assert step == 0
            np.testing.assert_array_equal(goals, [[1, 1, 0, 0]] * len(seeds))
            return np.stack([known[seed][0][:200] for seed in seeds])

    result = rollouts.rollout(planning.Follower(Known()).act, TASK, seeds)
    np.testing.assert_allclose(result.returns, [total for _, total in known], atol=6)
    assert result.returns.max() > 150


class Counting(planning.Planner):
    """A planner that notes what it is asked, and plans to stand still."""

    task = TASK

    def __init__(self):
        self.asked = []

    def plan(self, obs, goals, seeds, step):
        self.asked.append((step, obs.copy()))
        return np.repeat(obs[:, None], HORIZON, axis=1)


def test_closed_loop_plans_again_from_where_it_is_and_follows_where_it_had_to_stray():
    counting = Counting()
    follower = planning.Follower(counting, every=4)
    seeds = np.array([3, 4])
    for step in range(10):
        obs = np.float32([[3, 1, 0, 0], [3 - 0.1 * step, 2, 0, 0]])  # the second one drifts
        actions = follower.act(obs, seeds, step)
        assert actions.shape == (2, 2)
        # The plan in hand is to stand where it was when that was made.
        np.testing.assert_allclose(actions[1], [0.1 * (step % 4), 0], atol=1e-6)
    assert [step for step, _ in counting.asked] == [0, 4, 8]
    np.testing.assert_allclose(counting.asked[1][1], [[3, 1, 0, 0], [2.6, 2, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(follower.plans[4][0], [2.2, 2, 0, 0], atol=1e-6)


@pytest.mark.parametrize(("steps", "taken"), [(8, False), (5, False), (2, True)])
def test_closed_loop_takes_a_plan_that_arrives_sooner_than_the_one_in_hand(steps, taken):
    """The first plan is at the goal, 2 cells away, after 8 steps; the one made half-way `steps`."""

    class Arriving(Counting):
        def plan(self, obs, goals, seeds, step):
            share = np.minimum(np.arange(HORIZON) / (steps if step else 8), 1)[None, :, None]
            return np.float32((1 - share) * obs[:, None] + share * goals[:, None])

    follower = planning.Follower(Arriving(), every=4)
    for step in range(5):
        follower.act(np.float32([[3 - step / 4, 1, 0, 0]]), np.array([0]), step)
    assert follower.plans[0][0, 0] == (2 if taken else 3)


def test_closed_loop_does_not_take_a_plan_that_never_arrives_for_one_that_does():
    class Lost(Counting):
        def plan(self, obs, goals, seeds, step):
            share = np.arange(HORIZON)[None, :, None] / (HORIZON - 1) * (step == 0)
            return np.float32((1 - share) * obs[:, None] + share * goals[:, None])

    follower = planning.Follower(Lost(), every=4)
    for step in range(5):
        follower.act(np.float32([[3 - step / 4, 1, 0, 0]]), np.array([0]), step)
    assert follower.plans[0][0, 0] == 3


def test_closed_loop_joins_a_plan_where_it_leaves_for_the_goal():
    """It stands for five steps, which are left out; in open loop they are not."""

    class Dawdling(Counting):
        def plan(self, obs, goals, seeds, step):
            share = np.maximum(np.arange(HORIZON) - 5, 0)[None, :, None] / (HORIZON - 6)
            return np.float32((1 - share) * obs[:, None] + share * goals[:, None])

    obs = np.float32([[3, 1, 0, 0]])
    closed, opened = (
        planning.Follower(Dawdling(), every).act(obs, np.array([0]), 0) for every in (4, 0)
    )
    assert closed[0, 0] < -0.5
    assert opened[0, 0] == 0


def test_closed_loop_rests_at_the_goal_and_open_loop_keeps_its_plan():
    obs, seeds = np.float32([[1.1, 1.3, 0, 0], [3, 1, 0, 0]]), np.array([0, 1])
    closed, opened = (planning.Follower(Counting(), every) for every in (4, 0))
    for follower in (closed, opened):
        follower.act(obs, seeds, 0)
    np.testing.assert_array_equal(closed.plans[0][-1], [1, 1, 0, 0])
    np.testing.assert_array_equal(closed.plans[1][-1], obs[1])
    np.testing.assert_array_equal(opened.plans[0], np.tile(obs[0], (HORIZON, 1)))


def test_a_plan_every_minus_one_steps_is_refused():
    with pytest.raises(errors.UserError, match="replan_every is -1"):
        planning.Follower(Counting(), every=-1)


def test_learned_control_goes_from_where_it_is_to_what_is_wanted_in_the_tasks_units(monkeypatch):
    def act(params, cond, keys):
        return params * (cond[:, 4:6] - cond[:, :2])[:, None]

    pushes = normalization.Affine(np.float32([0.5, 2]), np.float32([0.1, 0]))
    saved = {"params": jnp.float32(10), "normalizer": NORMALIZER._replace(actions=pushes)}
    model = load.Model(Algorithm(unused, unused, act), saved, Config(TASK), "inverse")
    monkeypatch.setattr(load, "load_model", lambda run: model)
    control = load.load_control("x")
    ahead = np.float32([[0.1, -0.2, 0, 0], [-0.02, 0.1, 0, 0]])
    # 10 (0.7, 0.8) (0.1, -0.2) = (0.7, -1.6), and of the second row (-0.14, 0.8)
    expected = [[1, -0.8], [-0.48, 0.4]]  # the first would be 1.2, and pushes end at 1
    np.testing.assert_allclose(control(START[None] + 0 * ahead, START + ahead), expected, atol=1e-4)


# ---- end to end ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_main_trains_plans_evaluates_and_draws(tmp_path):
    maze2d.make(TASK, tmp_path / "data.hdf5", transitions=5_000)
    plans = ("teacher", "ctd", "student")
    flags = [f"--config.{stage}.network.hidden=16" for stage in plans]
    flags += [f"--config.{stage}.network.blocks=1" for stage in plans]
    flags += [
        f"--config.{stage}.optimiser.steps=10" for stage in ("teacher", "ctd", "student", "reward")
    ]
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "main.py"),
            f"--config={ROOT}/configs/maze2d_umaze.py:all,size=demo,source={tmp_path}/data.hdf5",
            f"--workdir={tmp_path / 'run'}",
            "--config.data.horizon=32",
            "--config.teacher.method.sample_bins=3",
            "--config.training.updates_per_dispatch=5",
            "--config.training.save_every=5",
            "--config.training.keep=2",
            "--config.eval.episodes=2",
            "--config.eval.online=('student',)",
            "--config.eval.replan_every=50",
            "--config.reward.network.dims=(8,)",
            "--config.inverse.network.hidden=(16,)",
            "--config.inverse.optimiser.steps=10",
            *flags,
        ],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    entries = json.loads((run / "summary.json").read_text())
    names = ["teacher", "ctd", "ctd, closed loop", "student", "student, closed loop"]
    best = ["student, best checkpoint", "student, closed loop, best checkpoint"]
    assert [entry["stage"] for entry in entries] == [*names, *best]
    assert [entry["replan_every"] for entry in entries] == [0, 0, 50, 0, 50, 0, 50]
    assert [entry["nfe"] for entry in entries] == [4, 1, 1, 1, 1, 1, 1]
    for last, online in zip(entries[3:5], entries[5:], strict=True):
        assert online["updates"] == [5, 10]
        assert online["scores"][-1] == last["score_mean"]
        assert online["score_mean"] == max(online["scores"])
    assert {entry["follow"] for entry in entries} == {"inverse"}
    assert entries[4] == json.loads((run / "student" / "eval_closed_loop_inverse.json").read_text())
    assert "RACTD student, closed loop" in done.stdout
    assert "ms/plan" in done.stdout
    assert "plans followed by: inverse" in done.stdout
    drawn = ("map", "plans", "returns", "latency")
    for figure in (*(f"{name}.png" for name in drawn), "student.gif"):
        assert (run / "figures" / figure).stat().st_size > 1000

    planned = ractd_jax.load_planner(run / "student")(START, GOAL)
    assert planned.shape == (32, 4)
    with pytest.raises(errors.UserError, match="load_planner"):
        ractd_jax.load_policy(run / "student")
    with pytest.raises(errors.UserError, match="values and does not act"):
        ractd_jax.load_planner(run / "reward")
    with pytest.raises(errors.UserError, match="plans no states"):
        ractd_jax.load_planner(run / "inverse")
