"""gym + d4rl in an interpreter of their own: a stand-in always, the packages where they are named.

The stand-in's d4rl fails as the real one does where a family is missing, prints to the standard
output, and has environments that hang and that end the process.
"""

import os
import stat
import sys

import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.data import sources
from ractd_jax.envs import gym_process, gym_worker
from ractd_jax.envs.make import make_env
from ractd_jax.evaluation import rollouts

TASK = tasks.get("hopper-medium-v2")
NAMED = os.environ.get(gym_process.VARIABLE)
GYM = """
import os, sys, time
import numpy as np

class Space:
    def __init__(self, size):
        self.low, self.high = -np.ones(size, np.float32), np.ones(size, np.float32)

class Env:
    def __init__(self, name):
        self.name, self.action_space, self.observation_space = name, Space(3), Space(11)
        self.rng = np.random.RandomState()
        print("made", name)
    unwrapped = property(lambda self: self)
    class sim:
        class data:
            qpos, qvel = np.arange(6.0), np.zeros(6)
    def seed(self, seed):
        self.rng = np.random.RandomState(seed)
    def reset(self):
        self.t, self.x = 0, self.rng.uniform(-1, 1, 11)
        if "replay" in self.name:
            time.sleep(1000)
        return self.x
    def step(self, action):
        if "expert" in self.name:
            sys.stderr.write("Segmentation fault\\n")
            sys.stderr.flush()
            os._exit(3)
        self.x = self.x + action.sum()
        self.t += 1
        info = {"TimeLimit.truncated": True} if self.t == 4 else {}
        return self.x, 1e-17 + self.x[0], self.t == 4, info
    def get_dataset(self):
        if "maze" in self.name:
            raise OSError("no route\\nto host")
        ends = np.arange(20) % 10 == 9
        return {"observations": np.ones((20, 11), np.float32), "rewards": np.arange(20.0),
                "actions": np.zeros((20, 3), np.float32),
                "terminals": ends, "timeouts": ~ends & False,
                "metadata/algorithm": b"SAC", "metadata/policy": np.array(None)}
    def close(self):
        pass

def make(name):
    if name not in registered:
        raise KeyError("No registered env with id: " + name)
    return Env(name)

registered = []
"""
FAMILY = "import gym\ngym.registered += {names}\nprint('noise on the standard output')\n"


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """An interpreter with the stand-ins, named by the variable."""
    (tmp_path / "gym.py").write_text(GYM)
    folder = tmp_path / "d4rl"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise Exception('You appear to be missing MuJoCo')\n")
    names = [f"hopper-{quality}-v2" for quality in ("medium", "medium-replay", "medium-expert")]
    (folder / "gym_mujoco.py").write_text(FAMILY.format(names=names))
    (folder / "pointmaze.py").write_text(FAMILY.format(names=["maze2d-umaze-v1"]))
    (folder / "kitchen.py").write_text("import adept_envs\n")
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(gym_process.VARIABLE, str(path))
    yield path
    if running := gym_process._processes.pop(str(path), None):
        running.stop()


def still(observations, seeds, step):
    return np.zeros((len(observations), 3))


def refused(text, function):
    with pytest.raises(errors.UserError, match=text) as caught:
        function()
    assert "\n" not in str(caught.value)


def test_environments_of_the_other_interpreter(interpreter):
    task = sources.environment(TASK, "gym-d4rl")
    result = rollouts.rollout(still, task, [1, 2, 3])
    starts = [np.random.RandomState(seed).uniform(-1, 1, 11)[0] for seed in (1, 2, 3)]
    assert result.lengths.tolist() == [4] * 3
    assert result.returns.tolist() == [sum([1e-17 + x] * 4) for x in starts]  # to the last bit
    env = make_env(task.env_id)
    np.testing.assert_array_equal(env.action_space.high, np.ones(3))
    env.reset(seed=0)
    np.testing.assert_array_equal(env.unwrapped.data.qpos, np.arange(6.0))
    assert [env.step(np.zeros(3))[2:4] for _ in range(4)] == [(False, False)] * 3 + [(False, True)]
    assert len(gym_process._processes) >= 1


def test_one_process_serves_all(interpreter):
    envs = [make_env(f"gym-d4rl:{TASK.name}") for _ in range(3)]
    assert len({env.env._process._process.pid for env in envs}) == 1
    first = [env.reset(seed=seed)[0] for seed, env in enumerate(envs)]
    assert len({obs[0] for obs in first}) == 3


def test_data_of_the_other_interpreter(interpreter):
    read = sources.load(TASK, "gym-d4rl")
    assert read.observations.shape == (20, 11)
    assert np.flatnonzero(read.terminals).tolist() == [9, 19]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kitchen-mixed-v0", "gym cannot make kitchen-mixed-v0: No module named 'adept_envs'"),
        ("walker2d-medium-v2", "gym cannot make walker2d-medium-v2: .*No registered env"),
    ],
)
def test_a_family_that_is_missing_is_one_line_and_stops_no_other(interpreter, name, text):
    refused(text, lambda: sources.load(tasks.get(name), "gym-d4rl"))
    make_env(f"gym-d4rl:{TASK.name}").close()


def test_a_download_that_fails_is_one_line(interpreter):
    maze = tasks.get("maze2d-umaze-v1")
    refused("d4rl cannot get its.*no route to host", lambda: sources.load(maze, "gym-d4rl"))


def test_a_process_that_hangs_is_stopped(interpreter, monkeypatch):
    env = make_env("gym-d4rl:hopper-medium-replay-v2")
    monkeypatch.setattr(gym_process, "LIMIT", 0.5)
    refused("RACTD_D4RL_PYTHON=.*did not answer 'reset' in 0 s and was stopped", env.reset)
    assert not gym_process._processes[str(interpreter)].alive
    env.close()  # nothing is left to close
    monkeypatch.setattr(gym_process, "LIMIT", 60.0)
    make_env(f"gym-d4rl:{TASK.name}").reset()  # in a new one


def test_a_process_that_ends_is_one_line(interpreter):
    env = make_env("gym-d4rl:hopper-medium-expert-v2")
    env.reset(seed=0)
    refused("ended with status 3: Segmentation fault", lambda: env.step(np.zeros(3)))


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("#!/bin/sh\nexit 0\n", "ended with status 0"),
        (
            "#!/bin/sh\necho 'usage: a program that is no Python at all'\ncat\n",
            "something else than",
        ),
    ],
)
def test_a_program_that_is_no_python(tmp_path, monkeypatch, program, text):
    path = tmp_path / "program"
    path.write_text(program)
    path.chmod(0o755)
    monkeypatch.setenv(gym_process.VARIABLE, str(path))
    refused(f"RACTD_D4RL_PYTHON=.*{text}", lambda: sources.load(TASK, "gym-d4rl"))


def test_an_interpreter_that_is_not_there(monkeypatch):
    monkeypatch.setenv(gym_process.VARIABLE, "/no/such/python")
    refused("/no/such/python cannot be started", lambda: sources.load(TASK, "gym-d4rl"))


def test_messages_hold_no_pickle():
    with pytest.raises(ValueError, match="allow_pickle"):
        gym_worker.encode({}, {"x": np.array([object()])})


@pytest.mark.skipif(not NAMED, reason=f"{gym_process.VARIABLE} names no Python with gym + d4rl")
@pytest.mark.parametrize(
    "name", ["hopper-medium-v2", "walker2d-medium-v2", "halfcheetah-medium-v2", "maze2d-umaze-v1"]
)
def test_the_packages_begin_and_move_as_ours(name):
    task = tasks.get(name)
    theirs, ours = (make_env(e) for e in (f"gym-d4rl:{name}", task.env_id))
    rng = np.random.default_rng(0)
    for seed in range(3):
        obs = [env.reset(seed=seed)[0] for env in (theirs, ours)]
        np.testing.assert_array_equal(*obs)
        for step in range(10):  # d4rl's wrapper rounds actions to float32 once more
            action = rng.uniform(-1, 1, task.act_dim).astype(np.float32)
            a, b = (env.step(action) for env in (theirs, ours))
            near = 1e-3 if step else 1e-4
            np.testing.assert_allclose(a[0], b[0], rtol=0, atol=near)
            assert a[1] == pytest.approx(b[1], abs=near)
            assert a[2:4] == b[2:4]
            if a[2]:
                break
    theirs.close()
    ours.close()
