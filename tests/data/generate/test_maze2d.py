"""Maze2d data: D4RL's columns and peculiarities, true to the physics, like the released files."""

import h5py
import mujoco
import numpy as np
import pytest

from ractd_jax import errors, tasks
from ractd_jax.data import episodes, hdf5, sources
from ractd_jax.data.generate import maze2d
from ractd_jax.envs import maze2d as mazes

TASK = tasks.get("maze2d-umaze-v1")
STEPS = 60_000
GOAL = np.array([1.0, 1.0])


def arrays(path):
    with h5py.File(path) as file:
        names = [name for name in file if name not in ("infos", "metadata")]
        return {name: file[name][()] for name in (*names, *(f"infos/{n}" for n in file["infos"]))}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("maze2d") / "data.hdf5"
    maze2d.make(TASK, path, transitions=STEPS, seed=0)
    return path


@pytest.fixture(scope="module")
def data(path):
    return arrays(path)


def test_columns_are_those_of_the_released_files(data):
    shapes = {name: (column.shape, column.dtype.name) for name, column in data.items()}
    assert shapes == {
        "observations": ((STEPS, 4), "float32"),
        "actions": ((STEPS, 2), "float32"),
        "rewards": ((STEPS,), "float32"),
        "terminals": ((STEPS,), "bool"),
        "timeouts": ((STEPS,), "bool"),
        "infos/goal": ((STEPS, 2), "float32"),
        "infos/qpos": ((STEPS, 2), "float32"),
        "infos/qvel": ((STEPS, 2), "float32"),
    }


def test_one_run_true_to_the_physics(data):
    model = mazes.compiled(mazes.get("umaze"))
    state = mujoco.MjData(model)
    for row in range(0, STEPS - 1, 29):  # changes of target among them
        mujoco.mj_resetData(model, state)
        state.qpos[:], state.qvel[:] = data["infos/qpos"][row], data["infos/qvel"][row]
        mazes.simulate(model, state, data["actions"][row])
        np.testing.assert_allclose(state.qpos, data["infos/qpos"][row + 1], atol=1e-5)
        np.testing.assert_allclose(state.qvel, data["infos/qvel"][row + 1], atol=1e-3)


def test_observations_are_the_state_but_lag_at_a_change_of_target(data):
    state = np.concatenate([data["infos/qpos"], data["infos/qvel"]], axis=1)
    lags = np.roll(data["timeouts"], 1)
    lags[0] = False
    np.testing.assert_array_equal(data["observations"][~lags], state[~lags])
    assert lags.sum() > 500
    rows = np.flatnonzero(lags)
    np.testing.assert_array_equal(data["observations"][rows], data["observations"][rows - 1])


def test_targets_change_when_reached(data):
    changes = (np.diff(data["infos/goal"], axis=0) != 0).any(axis=1)
    np.testing.assert_array_equal(changes, data["timeouts"][:-1])
    assert not data["terminals"].any()
    cells = np.rint(data["infos/goal"])
    assert np.abs(data["infos/goal"] - cells).max() < 0.1001
    distance = np.linalg.norm(data["observations"][:, :2] - cells, axis=1)
    np.testing.assert_array_equal(distance < 0.1, data["timeouts"])  # in this maze never the clock


def test_time_limit_changes_the_target_too(tmp_path, monkeypatch):
    monkeypatch.setattr(maze2d.waypoint_controller, "REACHED", 0.0)  # nothing is ever reached
    maze2d.make(TASK, tmp_path / "x.hdf5", transitions=1000)
    switches = np.flatnonzero(arrays(tmp_path / "x.hdf5")["timeouts"])
    assert switches.tolist() == [300, 601, 902]


def test_rewards_judge_their_own_row(data):
    distance = np.linalg.norm(data["observations"][:, :2].astype(float) - GOAL, axis=1)
    np.testing.assert_array_equal(data["rewards"], (distance <= 0.5).astype(np.float32))
    assert 0.02 < data["rewards"].mean() < 0.2


def test_statistics_are_those_of_the_released_file(data):
    """12,459 targets in a million steps, give or take 0.65 times their root; more without noise."""
    targets = data["timeouts"].sum()
    assert targets == pytest.approx(12_459 * STEPS / 1e6, abs=3 * 0.65 * np.sqrt(targets))
    np.testing.assert_allclose(data["actions"].std(axis=0), [0.7043, 0.7506], atol=0.02)
    obs = data["observations"]
    np.testing.assert_allclose(obs[:, 2:].std(axis=0), [2.213, 2.468], atol=0.1)
    np.testing.assert_allclose(np.abs(obs[:, 2:]).max(axis=0), 5.2262554, rtol=1e-6)
    assert obs[:, :2].max() > 3.2  # runs into walls


def test_noise_of_the_controller_can_be_switched_off(data, tmp_path):
    maze2d.make(TASK, tmp_path / "x.hdf5", transitions=STEPS, noise=0.0)
    still = arrays(tmp_path / "x.hdf5")
    assert still["timeouts"].sum() > 1.05 * data["timeouts"].sum()
    assert still["observations"][:, :2].max() < 3.1  # stays away from walls


def test_seed_decides_the_data_and_a_short_run_is_the_start_of_a_long_one(data, tmp_path):
    def make(seed):
        maze2d.make(TASK, tmp_path / "x.hdf5", transitions=500, seed=seed)
        return arrays(tmp_path / "x.hdf5")

    again, other = make(0), make(1)
    for name, column in again.items():
        np.testing.assert_array_equal(column, data[name][:500], err_msg=name)
    assert np.abs(other["actions"][:5] - again["actions"][:5]).max() > 0.01


def test_simulated_maze_is_a_data_source(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RACTD_DATA_DIR", str(tmp_path))
    loaded = sources.load(TASK, "simulated", transitions=2000, seed=3)
    assert "simulating maze2d-umaze-v1" in capsys.readouterr().out
    assert 1500 < len(loaded.rewards) <= 2000
    assert loaded.timeouts[-1]
    (file,) = tmp_path.glob("[!.]*")
    assert all(part in file.name for part in (TASK.name, "2000", "seed3"))
    sources.load(TASK, "simulated", transitions=2000, seed=3)
    assert "simulating" not in capsys.readouterr().out


def test_progress_is_reported_after_every_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(maze2d, "CHUNK", 300)
    heard = []
    maze2d.make(TASK, tmp_path / "x.hdf5", transitions=700, advance=heard.append)
    assert heard == [300, 600, 700]


def test_cut_at_goal_by_hand():
    inside = np.array([1, 0, 0, 1, 1, 0, 1, 0, 0, 1], np.float32)
    rows = np.arange(10, dtype=np.float32)
    nothing = np.zeros(10, bool)
    whole = episodes.Transitions(
        np.tile(rows[:, None], 4), np.zeros((10, 2), np.float32), inside, nothing, rows == 2
    )
    cut, reached = maze2d.cut_at_goal(whole)
    assert cut.observations[:, 0].tolist() == [1, 2, 3, 5]  # without 0, 4 and 6, where it leaves
    assert cut.timeouts.tolist() == [False, False, True, True]
    assert reached.tolist() == [False, True, False, False]  # row 2, the second that is left
    assert whole.timeouts.tolist() == (rows == 2).tolist()


def test_cut_at_goal_keeps_whole_paths(path, data):
    cut, reached = maze2d.cut_at_goal(hdf5.read(path, TASK))
    assert len(reached) == len(cut.rewards)
    assert 30 < reached.sum() <= data["timeouts"].sum()
    lengths = episodes.lengths(cut)
    last = np.cumsum(lengths) - 1
    assert len(lengths) > 30
    assert cut.rewards[last].all()
    assert not cut.rewards[last[:-1] + 1].any()  # it has left
    assert lengths.max() > TASK.max_episode_steps
    np.testing.assert_array_equal(episodes.returns_to_go(cut, 0.0, 0.0), cut.rewards)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("maze2d-umaze-v1", {"transitions": 300}, "transitions start at 301, seeds at 0"),
        ("maze2d-large-v1", {"transitions": 0}, "transitions start at 801"),
        ("maze2d-umaze-v1", {"seed": -1}, "transitions of maze2d-umaze-v1 with seed -1"),
        ("hopper-medium-v2", {}, "no Maze2d task"),
    ],
)
def test_impossible_options_are_refused(tmp_path, name, options, text):
    with pytest.raises(errors.UserError, match=text) as caught:
        maze2d.make(tasks.get(name), tmp_path / "x.hdf5", **options)
    assert "\n" not in str(caught.value)
