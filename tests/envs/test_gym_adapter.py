"""An installed gym + d4rl is used through its old API; the stand-in has that API and no more."""

import sys
import types

import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.data import episodes, sources
from ractd_jax.envs import gym_adapter
from ractd_jax.envs.make import make_env
from ractd_jax.evaluation import rollouts

TASK = tasks.get("hopper-medium-replay-v2")
LIMIT = 6


class OldEnv:
    """A point that falls when it leaves [-2, 2], as gym 0.21 would drive it."""

    def __init__(self, name):
        self.name, self.closed = name, False
        self.action_space = self.observation_space = None
        self.rng = np.random.RandomState()
        self.x, self.t = np.zeros(11), 0

    @property
    def unwrapped(self):
        state = types.SimpleNamespace(qpos=self.x[:6], qvel=self.x[6:])
        return types.SimpleNamespace(sim=types.SimpleNamespace(data=state))

    def seed(self, seed):
        self.rng = np.random.RandomState(seed)
        return [seed]

    def reset(self):
        self.x, self.t = self.rng.uniform(-1, 1, 11), 0
        return self.x.copy()

    def step(self, action):
        assert np.asarray(action).shape == (3,)
        self.x[:3] += action
        self.t += 1
        fell = bool(np.abs(self.x[:3]).max() > 2)
        info = {} if fell or self.t < LIMIT else {"TimeLimit.truncated": True}
        return self.x.copy(), np.float64(self.x[0]), fell or self.t >= LIMIT, info

    def get_dataset(self):
        rng = np.random.default_rng(0)
        return {
            "observations": rng.normal(size=(20, 11)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (20, 3)).astype(np.float32),
            "rewards": np.arange(20, dtype=np.float32),
            "terminals": np.arange(20) == 9,
            "timeouts": np.arange(20) == 16,
            "metadata/algorithm": b"SAC",
        }

    def close(self):
        self.closed = True


@pytest.fixture
def gym(monkeypatch):
    """The packages `gym` and `d4rl`, the latter registering what the former makes."""
    monkeypatch.delenv("RACTD_D4RL_PYTHON", raising=False)
    gym, d4rl = types.ModuleType("gym"), types.ModuleType("d4rl")
    gym.made, d4rl.__path__ = [], []

    def make(name):
        if name != TASK.name:
            raise KeyError(f"No registered env\nwith id: {name}")
        gym.made.append(OldEnv(name))
        return gym.made[-1]

    gym.make = make
    monkeypatch.setitem(sys.modules, "gym", gym)
    monkeypatch.setitem(sys.modules, "d4rl", d4rl)
    monkeypatch.setitem(sys.modules, "d4rl.gym_mujoco", types.ModuleType("d4rl.gym_mujoco"))
    return gym


def test_adapter_has_the_interface_of_gymnasium(gym):
    env = make_env(f"gym-d4rl:{TASK.name}")
    first, info = env.reset(seed=3)
    assert info == {}
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(env.reset()[0], again)

    env.reset(seed=3)
    ends = [env.step(np.zeros(3))[2:4] for _ in range(LIMIT)]
    assert ends == [(False, False)] * (LIMIT - 1) + [(False, True)]  # the clock
    env.reset(seed=3)
    env.step(np.zeros(3))
    _, reward, terminated, truncated, _ = env.step(np.array([5.0, 0, 0]))
    assert (terminated, truncated) == (True, False)  # a fall
    assert reward == pytest.approx(first[0] + 5)
    np.testing.assert_array_equal(env.unwrapped.data.qpos, gym.made[0].x[:6])
    env.close()
    assert gym.made[0].closed


def test_data_come_from_the_installed_d4rl(gym):
    read = sources.load(TASK, "gym-d4rl")
    expected = OldEnv("").get_dataset()
    np.testing.assert_array_equal(read.actions, expected["actions"][:17])
    assert episodes.lengths(read).tolist() == [10, 7]
    assert gym.made[0].closed
    assert gym.made[0].name == TASK.name


def test_policies_are_evaluated_in_the_installed_d4rl(gym):
    task = sources.environment(TASK, "gym-d4rl")
    assert task.env_id == "gym-d4rl:hopper-medium-replay-v2"
    assert sources.environment(TASK, "d4rl") is TASK

    def still(observations, seeds, step):
        return np.zeros((len(observations), 3))

    result = rollouts.rollout(still, task, [1, 2, 3])
    assert result.lengths.tolist() == [LIMIT] * 3
    starts = [np.random.RandomState(seed).uniform(-1, 1, 11)[0] for seed in (1, 2, 3)]
    np.testing.assert_allclose(result.returns, LIMIT * np.array(starts))
    assert all(env.closed for env in gym.made)
    episode = rollouts.record(still, task, 1)
    assert episode["qpos"].shape == (LIMIT, 6)


def refused(text, function):
    with pytest.raises(errors.UserError, match=text) as caught:
        function()
    assert "\n" not in str(caught.value)


def test_without_the_packages(monkeypatch):
    monkeypatch.delenv("RACTD_D4RL_PYTHON", raising=False)
    monkeypatch.setitem(sys.modules, "gym", None)
    monkeypatch.setitem(sys.modules, "d4rl", None)
    refused(
        "needs the packages gym and d4rl.*RACTD_D4RL_PYTHON.*source=d4rl",
        lambda: sources.load(TASK, "gym-d4rl"),
    )


def test_a_task_it_does_not_know(gym):
    other = tasks.get("hopper-medium-v2")
    refused("gym cannot make hopper-medium-v2", lambda: sources.load(other, "gym-d4rl"))


def test_download_that_fails_inside_d4rl_is_one_line(gym, monkeypatch):
    def offline(self):
        raise OSError("no route\nto host")

    monkeypatch.setattr(OldEnv, "get_dataset", offline)
    refused("d4rl cannot get.*no route to host", lambda: sources.load(TASK, "gym-d4rl"))
    assert gym.made[0].closed


def test_step_with_five_values_is_refused(gym, monkeypatch):
    monkeypatch.setattr(OldEnv, "step", lambda self, action: (self.x, 0.0, False, False, {}))
    env = gym_adapter.make(TASK.name)
    env.reset(seed=0)
    refused("gives 5 values.*4 of gym < 0.26", lambda: env.step(np.zeros(3)))
