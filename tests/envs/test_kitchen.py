"""Kitchen: D4RL's 60 numbers and reward, on the very dynamics of Farama's FrankaKitchen."""

import builtins
import warnings

import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.envs import kitchen, make
from ractd_jax.evaluation import rollouts

pytest.importorskip("gymnasium_robotics")
PARTIAL = tasks.get("kitchen-partial-v0")
MIXED = tasks.get("kitchen-mixed-v0")


@pytest.fixture
def env():
    env = make.make_env(PARTIAL.env_id)
    yield env
    env.close()


def finish(env, name):
    """Put the things of a subtask where its goal is."""
    first, values = kitchen.GOALS[name]
    env.unwrapped.data.qpos[first : first + len(values)] = values


def test_the_goal_is_zero_but_for_the_subtasks():
    wanted = kitchen.goal(kitchen.subtasks(MIXED))
    expected = np.zeros(30)
    expected[11:13] = -0.88, -0.01  # bottom burner
    expected[17:19] = -0.69, -0.05  # light switch
    expected[22] = -0.75  # microwave
    expected[23:30] = -0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06  # kettle
    np.testing.assert_array_equal(wanted, expected)
    assert kitchen.goal(kitchen.subtasks(PARTIAL))[19] == 0.37  # slide cabinet
    assert not kitchen.goal(kitchen.subtasks(PARTIAL))[11:13].any()


@pytest.mark.parametrize(("angle", "expected"), [(-0.75, True), (-0.46, True), (-0.44, False)])
def test_a_subtask_is_done_within_03_of_its_goal(angle, expected):
    joints = np.zeros(30)
    joints[22] = angle
    assert kitchen.done(joints, "microwave") is expected
    joints[17:19] = -0.69 + 0.3 * 0.6, -0.05 + 0.3 * 0.799  # at a distance of 0.2998
    assert kitchen.done(joints, "light switch")
    joints[18] += 0.001
    assert not kitchen.done(joints, "light switch")


def test_reset_is_that_of_d4rl_with_a_tenth_of_its_noise(env):
    seen = np.array([env.reset(seed=seed)[0] for seed in range(200)])
    assert seen.shape == (200, PARTIAL.obs_dim)
    error = seen[:, :30] - kitchen.START
    assert (np.abs(error) <= kitchen.NOISE).all()
    np.testing.assert_allclose(error.std(axis=0), kitchen.NOISE / np.sqrt(3), rtol=0.2)
    np.testing.assert_allclose(kitchen.NOISE[[0, 9, 11, 17, 20, 22, 23, 26, 29]],
                               [0.01, 5e-4, 5e-5, 5e-4, 0.01, 0.01, 5e-4, 0.01, 5e-4])  # fmt: skip
    assert np.abs(np.corrcoef(error.T) - np.eye(30)).max() < 0.4  # every joint its own
    np.testing.assert_array_equal(
        seen[:, 30:], np.tile(kitchen.goal(env.unwrapped.subtasks), (200, 1))
    )
    np.testing.assert_array_equal(env.reset(seed=7)[0], seen[7])


def test_dynamics_are_those_of_frankakitchen(env, monkeypatch):
    from gymnasium_robotics.envs.franka_kitchen import KitchenEnv

    theirs, ours = KitchenEnv(list(kitchen.subtasks(PARTIAL)), robot_noise_ratio=0.0), env.unwrapped
    theirs.object_noise_ratio = 0.0
    ours.robot.robot_noise_ratio = 0.0
    monkeypatch.setattr(kitchen, "NOISE", np.zeros(30))
    theirs.reset(seed=0)
    env.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 9)):
        expected = theirs.step(action)[0]["observation"]
        found, reward, fell, late, _ = env.step(action.astype(np.float64))
        np.testing.assert_array_equal(found[:30], [*expected[:9], *expected[18:39]])
        assert (reward, fell, late) == (0.0, False, False)
    converted = kitchen.from_minari(expected[None], theirs.goal, PARTIAL, "it")
    np.testing.assert_array_equal(converted[0], found)
    theirs.close()


def test_each_subtask_counts_once_and_all_of_them_end_the_episode(env):
    env.reset(seed=0)
    still = np.zeros(9)
    assert env.step(still)[1] == 0
    finish(env, "slide cabinet")
    assert env.step(still)[1] == 1
    assert env.step(still)[1] == 0  # it is still done
    finish(env, "microwave")
    finish(env, "light switch")
    _, reward, fell, _, info = env.step(still)
    assert (reward, fell, info["left"]) == (2, False, ["kettle"])
    finish(env, "kettle")
    _, reward, fell, late, info = env.step(still)
    assert (reward, fell, late, info["left"]) == (1, True, False, [])
    assert env.reset(seed=0)[1]["left"] == sorted(kitchen.subtasks(PARTIAL))
    assert PARTIAL.score(4.0) == 100
    assert PARTIAL.score(1.0) == 25


def test_a_rollout_lasts_280_steps(env):
    def policy(obs, seeds, step):
        assert obs.shape == (1, 60)
        return np.zeros((1, 9))

    found = rollouts.rollout(policy, MIXED, [3])
    assert found.lengths.tolist() == [280]
    assert 0 <= found.returns[0] <= 4


def test_the_same_seed_repeats_bit_for_bit(env):
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 9))
    seen = [[env.reset(seed=k)[0], *(env.step(a)[0] for a in actions)] for k in (1, 2, 1)]
    np.testing.assert_array_equal(seen[0], seen[2])
    assert (seen[0][5][:9] != seen[1][5][:9]).all()


def test_wrong_words(env):
    env.reset(seed=0)
    with pytest.raises(errors.UserError, match=r"shape \(9,\), not \(8,\)"):
        env.step(np.zeros(8))
    with pytest.raises(errors.UserError, match="Did you mean 'partial'"):
        kitchen.Kitchen("partiall")
    with pytest.raises(errors.UserError, match="no Kitchen task"):
        kitchen.subtasks(tasks.get("hopper-medium-v2"))


def test_without_the_package_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **options):
        if name.startswith("gymnasium_robotics"):
            raise ImportError("No module named 'gymnasium_robotics'")
        return real(name, *args, **options)

    kitchen._robot_class.cache_clear()
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(errors.UserError, match="the extra kitchen") as caught:
        make.make_env(PARTIAL.env_id)
    assert "\n" not in str(caught.value)


def test_nothing_is_printed_when_it_is_made(capfd):
    kitchen._robot_class.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make.make_env(PARTIAL.env_id).close()
    assert capfd.readouterr() == ("", "")
