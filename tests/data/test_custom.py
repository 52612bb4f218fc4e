"""Data of no benchmark: sizes and limits come from it, and a policy never leaves the limits."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT, load

import ractd_jax
from ractd_jax import config as configuration
from ractd_jax import errors, tasks
from ractd_jax.cli import app, flags
from ractd_jax.data import hdf5, normalization, sources, validation, windows
from ractd_jax.methods import registry
from ractd_jax.policies import policy
from ractd_jax.training import opening, trainer
from ractd_jax.types import Algorithm

N = 60


def task_of(**fields):
    return tasks.TaskSpec(tasks.CUSTOM, **fields)


def pipeline_of(path, workdir, stage="teacher", **task):
    """Open the pipeline of a small teacher on a file."""
    config, _ = load("custom", f"{stage},size=demo,source={path}")
    config.task.update(task)
    config.teacher.network.update(hidden=8, blocks=1, embed_dim=8)
    config.teacher.method.sample_bins = 3
    config.teacher.optimiser.update(steps=4, batch_size=8)
    config.training.update(updates_per_dispatch=2, compilation_cache="")
    return opening.open_pipeline(registry.configure(config.to_dict()), workdir)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (N, 2)) * [3.0, 40.0]
    actions[:2] = [[-3.0, -40.0], [3.0, 40.0]]
    return {
        "observations": rng.normal(size=(N, 5)),
        "actions": actions,
        "rewards": rng.normal(size=N),
        "terminals": np.zeros(N, bool),
        "timeouts": np.arange(N) % 20 == 19,
    }


@pytest.fixture
def path(tmp_path, arrays):
    path = tmp_path / "robot.hdf5"
    hdf5.write(path, arrays, {})
    return path


def refused(arrays, text, **fields):
    with pytest.raises(errors.UserError, match=text) as caught:
        validation.check(arrays, task_of(**fields), "robot.hdf5")
    assert "\n" not in str(caught.value)


def test_missing_columns_are_named_beside_the_columns_of_the_file(tmp_path):
    hdf5.write(tmp_path / "logs.hdf5", {"obs": np.zeros(3), "acts": np.zeros(3)}, {})
    with pytest.raises(errors.UserError, match="has no 'observations', only acts, obs"):
        sources.load(task_of(), str(tmp_path / "logs.hdf5"))


def test_terminals_other_than_0_and_1_are_refused(arrays):
    arrays["terminals"] = np.full(N, 2.5)
    refused(arrays, r"terminals says yes or no with 1 or 0, and in row 0 2\.5")


def test_data_without_episode_ends_are_refused(arrays):
    arrays["timeouts"] = np.zeros(N, bool)
    refused(arrays, "no episode is complete.*task.max_episode_steps=<k> ends them")


def test_sizes_and_limits_are_those_of_the_data(path):
    read = sources.load(task_of(), str(path))
    measured = validation.measure(task_of(), read)
    assert measured == task_of(
        obs_dim=5,
        act_dim=2,
        max_episode_steps=20,
        action_low=(-3.0, -40.0),
        action_high=(3.0, 40.0),
    )
    assert validation.measure(measured, read) == measured
    assert len(sources.load(measured, str(path)).rewards) == N


def test_actions_in_any_units_reach_the_unit_box_and_come_back(path):
    read = sources.load(task_of(), str(path))
    data, normalizer = windows.build(
        read, horizon=4, discount=0.9, termination_penalty=0.0, drop_last=False
    )
    np.testing.assert_allclose(data.actions.min(axis=0), -1, atol=1e-6)
    np.testing.assert_allclose(data.actions.max(axis=0), 1, atol=1e-6)
    back = normalization.unnormalize(np.asarray(data.actions), normalizer.actions)
    np.testing.assert_allclose(back, read.actions, rtol=1e-5, atol=1e-4)


def test_named_limits_are_kept_to(arrays):
    limits = {"action_low": (-3.0, -40.0), "action_high": (3.0, 40.0)}
    arrays["actions"][7] = [3.001, 0.0]
    read = validation.check(arrays, task_of(**limits), "robot.hdf5")
    assert read.actions[7].tolist() == [3.0, 0.0]
    arrays["actions"][9, 1] = -41
    refused(arrays, r"leave \[\[-3.0, -40.0\], \[3.0, 40.0\]\], furthest in row 9", **limits)
    one = {"action_low": (-41.0,), "action_high": (41.0,)}
    assert validation.check(arrays, task_of(**one), "robot.hdf5").actions.min() == -41
    refused(arrays, "3 numbers, its actions have 2", action_low=(1.0, 2.0, 3.0))
    refused(arrays, r"leave \[1, 1\]", action_low=(1.0,), action_high=(1.0,))


def test_a_limit_that_is_not_named_is_the_recorded_one(arrays, tmp_path):
    arrays["actions"] = np.linspace([2.0, 2.0], [5.0, 4.0], N)
    arrays["actions"][7] = 1.9999, 3.0
    hdf5.write(tmp_path / "robot.hdf5", arrays, {})
    job = pipeline_of(tmp_path / "robot.hdf5", tmp_path / "run", action_low=(2.0,))
    assert job.recorded.episodes.actions[7].tolist() == [2.0, 3.0]
    assert job.config.task.action_low == (2.0, 2.0)
    assert job.config.task.action_high == (5.0, 4.0)
    np.testing.assert_array_equal(job.task.action_limits(), [[2.0, 2.0], [5.0, 4.0]])

    refused(arrays, r"leave \[\[1.9999, 2.0\], 4.5\], furthest in row 59", action_high=(4.5,))
    refused(arrays, r"leave \[7, \[5.0, 4.0\]\], furthest in row 7", action_low=(7.0,))
    arrays["actions"][:, 1] = 2.0  # never changes, as a gripper that stays shut
    assert validation.check(arrays, task_of(action_low=(2.0,)), "robot.hdf5").actions[7, 0] == 2.0
    nothing = {name: column[:0] for name, column in arrays.items()}
    refused(nothing, "no episode is complete", action_low=(2.0,))


def test_an_action_that_never_changes_is_measured_and_read_again(arrays, tmp_path):
    arrays["actions"][:, 1] = 2.0  # as of a gripper that stays shut
    hdf5.write(tmp_path / "robot.hdf5", arrays, {})
    measured = validation.measure(task_of(), sources.load(task_of(), str(tmp_path / "robot.hdf5")))
    assert (measured.action_low[1], measured.action_high[1]) == (2.0, 2.0)
    assert len(sources.load(measured, str(tmp_path / "robot.hdf5")).rewards) == N


def test_named_sizes_are_checked(arrays):
    assert validation.check(arrays, task_of(obs_dim=5, act_dim=2), "robot.hdf5")
    refused(arrays, r"observations is \(60, 5\), expected \(60, 6\)", obs_dim=6)


def test_a_task_is_described_on_the_command_line(path):
    fields = ("--config.task.action_low=(-4.0, -41)", "--config.task.max_episode_steps=30")
    options = flags.parse(["ractd", f"custom:teacher,source={path}", *fields])
    task = registry.configure(options.config.to_dict()).task
    assert task == task_of(action_low=(-4.0, -41.0), max_episode_steps=30)


@pytest.mark.parametrize("name", ["observations", "actions"])
def test_a_number_a_step_needs_an_axis(arrays, name):
    arrays[name] = arrays[name][:, 0]
    refused(arrays, rf"{name} is \(60,\), expected \(60, numbers a step\)")


def test_without_timeouts_a_limit_ends_episodes(arrays):
    del arrays["timeouts"]
    refused(arrays, "no episode is complete")
    read = validation.check(arrays, task_of(max_episode_steps=15), "robot.hdf5")
    assert np.flatnonzero(read.timeouts).tolist() == [14, 29, 44, 59]


def test_numbers_too_large_for_single_precision(arrays):
    arrays["rewards"][3] = 1e300
    refused(arrays, "rewards is NaN or infinite in 1 rows, first in 3")


@pytest.mark.parametrize("source", ["d4rl", "simulated", "gym-d4rl"])
def test_benchmark_data_are_not_ones_own(source):
    with pytest.raises(errors.UserError, match=f"source={source} is data of benchmark tasks"):
        sources.load(task_of(), source)


@pytest.mark.parametrize("push", [9.0, -9.0])
def test_a_policy_never_leaves_the_limits(push):
    task = task_of(obs_dim=5, act_dim=2, action_low=(-3.0, -40.0), action_high=(3.0, 40.0))
    normalizer = normalization.identity(5, 2)._replace(
        actions=normalization.minmax(np.float32([[-3.0, -40.0], [3.0, 40.0]]))
    )

    def act(params, cond, keys):
        return jnp.broadcast_to(params * jnp.array([1.0, 0.1]), (len(cond), 4, 2))

    algorithm = Algorithm(init=None, update=None, act=act)
    action = policy.Policy(algorithm, jnp.float32(push), normalizer, task)(np.zeros((3, 5)))
    expected = np.sign(push) * np.array([3.0, 36.0])  # 0.9 of the second limit
    np.testing.assert_allclose(action, np.tile(expected, (3, 1)), rtol=1e-5)


def test_policy_is_trained_saved_and_loaded_without_the_data(path, tmp_path, arrays):
    trainer.Trainer([pipeline_of(path, tmp_path / "run")]).ensure("teacher")

    arrays["actions"][0, 0] = -5.0
    hdf5.write(path, arrays, {})
    changed = trainer.Trainer([pipeline_of(path, tmp_path / "run")], resume=True)
    with pytest.raises(
        errors.UserError, match=r"on other data \(60 rows, sha256 [0-9a-f]{12}\) than"
    ):
        changed.ensure("teacher")

    path.unlink()
    acting = ractd_jax.load_policy(tmp_path / "run" / "teacher")
    assert acting.task.action_low == (-3.0, -40.0)
    assert acting(np.zeros((50, 5))).shape == (50, 2)
    with pytest.raises(errors.UserError, match="custom has 5 numbers"):
        acting(np.zeros(6))


def test_evaluation_without_an_environment_is_refused(path, tmp_path):
    config, _ = load("custom", f"eval,size=demo,source={path}")
    with pytest.raises(errors.UserError, match="nothing to evaluate in") as caught:
        app.run(flags.Options(config, workdir=str(tmp_path / "run")))
    assert "\n" not in str(caught.value)


def test_the_lines_of_the_readme_write_a_file_that_is_read(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", text, re.S) if "h5py" in c)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    logs = {
        "observations": rng.normal(size=(N, 5)),
        "actions": rng.normal(size=(N, 2)),
        "rewards": rng.normal(size=N),
        "terminals": np.zeros(N),
        "timeouts": np.arange(N) % 20 == 19,
    }
    exec(code, logs)
    (file,) = tmp_path.glob("*.hdf5")
    read = sources.load(task_of(), str(file))
    np.testing.assert_allclose(read.actions, logs["actions"], rtol=1e-6)
    assert read.timeouts.sum() == 3


def test_a_task_is_stored_whole():
    for task in (*tasks.TASKS.values(), task_of(act_dim=2, action_low=(-1.0, 0.0))):
        stored = json.loads(json.dumps(configuration.plain(task)))
        assert configuration.build(tasks.TaskSpec, stored) == task


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"obs_dim": -1}, "obs_dim is -1: at least 0"),
        ({"max_episode_steps": -5}, "max_episode_steps is -5: at least 0"),
        ({"kind": "planer"}, "unknown kind 'planer'. Did you mean 'planner'"),
        ({"action_low": (0.0, float("nan"))}, "action_low is .*finite"),
        ({"action_high": (float("inf"),)}, "action_high is .*finite"),
        ({"action_low": (2.0, -1.0), "action_high": (1.0,)}, "action_low is .* above action_high"),
        ({"action_low": (1.0, 2.0), "action_high": (3.0, 4.0, 5.0)}, "action_high has 3 numbers"),
        ({"act_dim": 3, "action_low": (0.0, 1.0)}, "action_low has 2 numbers, an action 3"),
        ({"return_min": 1.0}, "return_max is missing"),
        ({"return_min": 2.0, "return_max": 2.0}, "return_max is 2.0: above 2.0"),
    ],
)
def test_fields_that_cannot_work_are_named(fields, text):
    with pytest.raises(errors.FieldError, match=text) as caught:
        task_of(**fields)
    assert "\n" not in str(caught.value)
