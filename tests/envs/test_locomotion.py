"""All six environments move, reward and end as the originals did, from whatever state.

`tests/data/physics/golden.npz` was recorded in gym 0.23.1 and d4rl 1.1 on MuJoCo 2.1.0, seeded. Of
each environment, state i before action i: `obs`, `act`, `rew`, `done`, `qpos`, `qvel` of one run of
random actions from seed 0, which a fall does not stop; and under `tried/` single steps (`next_qpos`
and `next_qvel` are the state after) from states of several kinds: beyond joint limits, deep in the
floor, one limb in another, at great speed, after a fall; of the mazes at walls, in corners, too
fast. Left out are the two kinds that `physics` says nobody can repeat.
"""

import json
import pathlib
import pickle
import subprocess
import sys

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils import env_checker

from ractd_jax import tasks
from ractd_jax.envs import locomotion, physics
from ractd_jax.envs.make import make_env

NEAR = 1e-9
ROBOTS = ("Hopper-v2", "Walker2d-v2", "HalfCheetah-v2")
MAZES = ("maze2d-umaze-v1", "maze2d-medium-v1", "maze2d-large-v1")


@pytest.fixture(scope="module")
def recorded():
    with np.load(pathlib.Path(__file__).parents[1] / "data" / "physics" / "golden.npz") as archive:
        return dict(archive)


def timed(name):
    """Return our environment for the original `name`."""
    return make_env(f"ractd_jax/{name[0].upper()}{name[1:]}")


def make(name):
    """Return the same without its time limit."""
    return timed(name).unwrapped


def start(env, qpos, qvel):
    mujoco.mj_resetData(env.model, env.data)
    env.data.qpos[:], env.data.qvel[:] = qpos, qvel
    mujoco.mj_forward(env.model, env.data)


def single_steps(env, rows):
    """Return observation, reward, end, positions and velocities after one step from each state."""
    env.reset(seed=0)
    found = []
    for qpos, qvel, action in zip(*rows, strict=True):
        start(env, qpos, qvel)
        obs, reward, terminated, truncated, _ = env.step(action)
        assert not truncated
        found.append((obs, reward, terminated, env.data.qpos.copy(), env.data.qvel.copy()))
    return [np.array(column) for column in zip(*found, strict=True)]


def run_errors(env, run):
    """Return the largest error of a state in each single step of a recorded run."""
    *_, qpos, qvel = single_steps(env, (run["qpos"][:-1], run["qvel"][:-1], run["act"]))
    errors = np.abs(np.concatenate([qpos - run["qpos"][1:], qvel - run["qvel"][1:]], axis=1))
    return errors.max(axis=1)


def of(recorded, name):
    return {key.removeprefix(f"{name}/"): recorded[key] for key in recorded if key.startswith(name)}


@pytest.mark.parametrize("name", ROBOTS + MAZES)
def test_every_recorded_step(recorded, name):
    run = of(recorded, name)
    rows = run["qpos"][:-1], run["qvel"][:-1], run["act"]
    obs, rewards, ends, qpos, qvel = single_steps(make(name), rows)
    assert len(obs) == (300 if name in MAZES else 60)
    np.testing.assert_allclose(qpos, run["qpos"][1:], rtol=0, atol=NEAR)
    np.testing.assert_allclose(qvel, run["qvel"][1:], rtol=0, atol=NEAR)
    np.testing.assert_allclose(obs, run["obs"][1:], rtol=0, atol=NEAR)
    np.testing.assert_allclose(rewards, run["rew"], rtol=0, atol=NEAR)
    np.testing.assert_array_equal(ends, run["done"] & (name in ROBOTS))  # a maze's is its clock


@pytest.mark.parametrize("name", ROBOTS + MAZES)
def test_steps_from_states_that_no_run_was_in(recorded, name):
    run = of(recorded, name)
    _, rewards, ends, qpos, qvel = single_steps(
        make(name), [run[f"tried/{key}"] for key in ("qpos", "qvel", "act")]
    )
    assert len(set(run["tried/kind"])) == (5 if name in MAZES else 7)
    np.testing.assert_allclose(qpos, run["tried/next_qpos"], rtol=NEAR, atol=NEAR)
    np.testing.assert_allclose(qvel, run["tried/next_qvel"], rtol=NEAR, atol=NEAR)
    np.testing.assert_allclose(rewards, run["tried/rew"], rtol=NEAR, atol=NEAR)
    np.testing.assert_array_equal(ends, run["tried/done"])


@pytest.mark.parametrize("name", ROBOTS + MAZES)
def test_a_run_of_its_own_from_the_same_seed(recorded, name):
    """Start, states, rewards and end are the original's, to where it fell or the record ends.

    Chaos multiplies what rounding leaves: 1e-11 or less, but in HalfCheetah's last step 9e-6.
    """
    run, env = of(recorded, name), timed(name)
    data = env.unwrapped.data
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(obs, run["obs"][0])
    steps = (np.flatnonzero(run["done"]).tolist() or [len(run["act"]) - 1])[0] + 1
    for i in range(steps):
        obs, reward, terminated, truncated, _ = env.step(run["act"][i])
        near = {"rtol": 0, "atol": 1e-5 if i < 50 else 1e-4}
        np.testing.assert_allclose(data.qpos, run["qpos"][i + 1], **near)
        np.testing.assert_allclose(data.qvel, run["qvel"][i + 1], **near)
        np.testing.assert_allclose(obs, run["obs"][i + 1], **near)
        np.testing.assert_allclose(reward, run["rew"][i], **near)
        assert (terminated or truncated) == run["done"][i]


@pytest.mark.parametrize(
    ("name", "least"), [("Hopper-v2", 0.1), ("Walker2d-v2", 1.0), ("HalfCheetah-v2", 1.0)]
)
def test_gymnasiums_own_fail_these_tests(recorded, name, least):
    env = make_env(name.replace("v2", "v4")).unwrapped
    errors = run_errors(env, of(recorded, name))
    assert errors.max() > least
    assert np.median(errors) > 1e-3


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("Hopper-v2", lambda model: model.geom_margin.__imul__(2)),
        ("Hopper-v2", lambda model: model.geom_margin.__setitem__(slice(1, None), 0)),
        ("Walker2d-v2", lambda model: model.dof_invweight0.__imul__(1.001)),
        ("HalfCheetah-v2", lambda model: model.body_mass.__imul__(1.0001)),
        ("HalfCheetah-v2", lambda model: model.body_ipos.__imul__(1.001)),
        ("maze2d-umaze-v1", lambda model: mujoco.mj_setConst(model, mujoco.MjData(model))),
    ],
)
def test_every_number_counts(recorded, name, spoil):
    run, env = of(recorded, name), make(name)
    rows = [run[f"tried/{key}"] for key in ("qpos", "qvel", "act")]
    spoil(env.model)
    *_, qvel = single_steps(env, rows)
    assert np.abs(qvel - run["tried/next_qvel"]).max() > 1e-4


@pytest.mark.parametrize("name", ROBOTS + MAZES)
def test_numbers_survive_resets_and_steps(name):
    env = make(name)
    key = {"Hopper-v2": "hopper", "Walker2d-v2": "walker2d", "HalfCheetah-v2": "halfcheetah"}
    with np.load(physics.MODELS) as archive:
        numbers = of(dict(archive), key.get(name, "maze2d"))
    assert set(numbers) >= {"body_mass", "body_inertia", *physics.WEIGHTS}
    for seed in range(3):
        env.reset(seed=seed)
        env.step(env.action_space.sample())
        for field, wanted in numbers.items():
            np.testing.assert_array_equal(getattr(env.model, field), wanted)


def test_weights_of_the_hopper_are_those_of_its_cylinders():
    env = make("Hopper-v2")
    wanted = [0.0, 3.53429174, 3.92699082, 2.71433605, 5.08938010]
    np.testing.assert_allclose(env.model.body_mass, wanted, atol=1e-8)
    np.testing.assert_array_equal(env.model.geom_margin, 5e-4)  # two make D4RL's 1e-3


@pytest.mark.parametrize("name", ROBOTS)
def test_a_fall_or_the_clock_ends_an_episode(name):
    env = timed(name)
    env.reset(seed=0)
    for _ in range(locomotion.TIME_LIMIT - 1):
        _, _, terminated, truncated, _ = env.step(np.zeros(env.action_space.shape))
        assert not truncated
        if terminated:
            break
    assert terminated == (name != "HalfCheetah-v2")  # without a push the others fall soon
    if not terminated:
        assert env.step(np.zeros(6))[2:4] == (False, True)


@pytest.mark.parametrize("robot", ["hopper", "walker2d", "halfcheetah"])
def test_fits_the_tasks_of_the_robot(robot):
    task = tasks.get(f"{robot}-medium-v2")
    name = {"hopper": "Hopper", "walker2d": "Walker2d", "halfcheetah": "HalfCheetah"}[robot]
    env = make_env(f"ractd_jax/{name}-v2")
    assert env.observation_space.shape == (task.obs_dim,)
    assert env.action_space.shape == (task.act_dim,)
    assert env.spec.max_episode_steps == task.max_episode_steps


def test_reward_does_not_round_its_cost_to_float32(recorded):
    """NumPy 1 weighed the float32 sum of squares in float64, NumPy 2 would in float32."""
    env = make("HalfCheetah-v2")
    action = np.full(6, 0.3, np.float32)
    assert env.control_cost(action) == 0.1 * float(np.float32(np.square(action).sum()))
    assert env.control_cost(action) != float(np.float32(env.control_cost(action)))


def test_a_copy_has_the_numbers_too():
    env = make("Walker2d-v2")
    again = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(again.model.body_mass, env.model.body_mass)
    assert again.model.opt.tolerance == physics.TOLERANCE


@pytest.mark.filterwarnings("ignore:.*(infinity|render|unwrapped).*:UserWarning")
@pytest.mark.parametrize("name", ROBOTS)
def test_gymnasium_finds_no_fault(name):
    env = gymnasium.make(f"ractd_jax/{name}", disable_env_checker=True).unwrapped
    env_checker.check_env(env, skip_render_check=True)


def test_an_import_of_the_environments_is_enough():
    """Vectorised environments are made by id in fresh processes."""
    code = (
        "import gymnasium, json; import ractd_jax.envs.locomotion; "
        "print(json.dumps([i for i in gymnasium.registry if i.startswith('ractd_jax/')]))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert {f"ractd_jax/{name}" for name in ROBOTS} <= set(json.loads(found.stdout))
