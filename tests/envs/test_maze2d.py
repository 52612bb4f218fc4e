"""The rebuilt mazes move, reward and reset as D4RL's; the numbers come without MuJoCo."""

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils import env_checker

from ractd_jax import errors, tasks
from ractd_jax.envs import maze2d
from ractd_jax.envs.make import make_env

MASS = 4 / 3 * np.pi * 0.1**3 * 1000  # of the ball: density times volume
STEP = 0.01


@pytest.fixture
def env():
    env = maze2d.Maze2d("medium")
    env.reset(seed=0)
    return env


def place(env, position, velocity=(0.0, 0.0)):
    mujoco.mj_resetData(env.model, env.data)
    env.data.qpos[:], env.data.qvel[:] = position, velocity


def flight(position, velocity, action):
    """One step in free space: Euler, with the damping of 1 taken implicitly and the rest not.

    D4RL clips velocity, then action, each component to its own limits.
    """
    velocity, action = np.clip(velocity, -5, 5), np.clip(action, -1, 1)
    velocity = velocity + STEP * (100 * action - velocity) / (MASS + STEP)
    return position + STEP * velocity, velocity


@pytest.mark.parametrize(
    ("velocity", "actions"),
    [
        ((0.0, 0.0), [(1.0, -1.0), (0.3, 0.0), (-0.7, 0.2), (0.0, 0.0), (5.0, -1.5)]),
        ((-7.0, 9.0), [(-1.0, 1.0), (-1.0, 1.0), (0.0, -0.5)]),
    ],
)
def test_free_flight(env, velocity, actions):
    position = np.array([3.0, 3.0])
    place(env, position, velocity)
    for action in actions:
        position, velocity = flight(position, velocity, action)
        obs, *_ = env.step(np.array(action))
        np.testing.assert_allclose(obs, [*position, *velocity], rtol=0, atol=1e-12)


def test_largest_speed_is_that_of_the_released_files(env):
    place(env, [3.0, 3.0], [5.0, -5.0])
    obs, *_ = env.step(np.array([1.0, -1.0]))
    np.testing.assert_allclose(obs[2:], [5.2262554, -5.2262554], rtol=1e-7)


def test_walls_stop_the_ball_where_their_boxes_are(env):
    """The ball's middle stays in row - 0.6 .. row + 0.2 where the rows beside are walls."""
    stopped = 0
    for cell in env.maze.cells:
        for axis, way in ((0, 1), (0, -1), (1, 1), (1, -1)):
            beside = list(cell)
            beside[axis] += way
            if env.maze.free(tuple(beside)):
                continue
            place(env, np.array(cell) - 0.2)
            push = np.zeros(2)
            push[axis] = way
            for _ in range(100):
                obs, *_ = env.step(push)
            limit = cell[axis] + (0.2 if way > 0 else -0.6)
            # pushed back from 2 mm before the wall on, and contacts are a little soft
            assert -0.002 < way * (obs[axis] - limit) < 0.02
            stopped += 1
    assert stopped > 40


@pytest.mark.parametrize(("gap", "touches"), [(0.0025, False), (0.0015, True)])
def test_walls_push_from_two_millimetres_on(env, gap, touches):
    """The larger of two geoms' margins in D4RL's MuJoCo; their sum, 4 mm, would be today's."""
    place(env, [6.2 - gap, 4.8])
    obs, *_ = env.step(np.zeros(2))
    assert (obs[2] < 0) == touches


def test_reward_is_one_within_half_a_metre_of_the_goal_after_the_step(env):
    assert env.maze.goal == (6, 6)
    for position, wanted in (([5.51, 6.0], 1.0), ([5.49, 6.0], 0.0), ([5.64, 5.64], 0.0)):
        place(env, position)
        _, reward, terminated, truncated, _ = env.step(np.zeros(2))
        assert (reward, terminated, truncated) == (wanted, False, False)
    place(env, [5.49, 6.0], [5.0, 0.0])  # gets there within the step
    assert env.step(np.zeros(2))[1] == 1.0
    positions = np.array([[6.5, 6.0], [6.0, 6.5000001], [6.3, 6.39]])
    assert maze2d.at_goal(positions, np.array([6.0, 6.0])).tolist() == [1.0, 0.0, 1.0]


def test_resets_spread_over_all_free_cells(env):
    starts = np.array([env.reset()[0] for _ in range(1000)])
    cells = np.rint(starts[:, :2]).astype(int)
    assert {tuple(cell) for cell in cells.tolist()} == set(env.maze.cells)
    offset = starts[:, :2] - cells
    assert np.abs(offset).max() <= 0.1
    np.testing.assert_allclose(offset.std(axis=0), 0.2 / np.sqrt(12), rtol=0.1)
    np.testing.assert_allclose(starts[:, 2:].std(axis=0), 0.1, rtol=0.1)


def test_same_seed_same_episode(env):
    def episode(seed):
        start, _ = env.reset(seed=seed)
        return [start] + [env.step(np.sin([i, 2.0 * i]))[0] for i in range(50)]

    np.testing.assert_array_equal(episode(3), episode(3))
    assert np.abs(np.array(episode(3)) - episode(4)).max() > 0.01


def test_options_choose_start_and_target(env):
    obs, _ = env.reset(seed=0, options={"cell": (1, 1), "target": (1.0, 1.2)})
    assert np.abs(obs[:2] - [1, 1]).max() <= 0.1
    assert env.step(np.zeros(2))[1] == 1.0
    env.reset(seed=0)
    assert env.target.tolist() == [6.0, 6.0]


@pytest.mark.parametrize("name", sorted(maze2d.LAYOUTS))
def test_registered_with_the_task_of_the_same_name(name):
    task = tasks.get(f"maze2d-{name}-v1")
    env = make_env(task.env_id)
    assert env.unwrapped.maze == maze2d.of_task(task)
    assert env.observation_space.shape == (task.obs_dim,)
    assert env.action_space.shape == (task.act_dim,)
    assert env.unwrapped.dt == env.unwrapped.model.opt.timestep == STEP
    env.reset(seed=0)
    ends = [env.step(np.zeros(2))[2:4] for _ in range(task.max_episode_steps)]
    assert ends == [(False, False)] * (len(ends) - 1) + [(False, True)]


@pytest.mark.parametrize(("name", "cells"), [("umaze", 7), ("medium", 26), ("large", 46)])
def test_mazes_are_enclosed_by_walls(name, cells):
    maze = maze2d.get(name)
    tiles = np.array([list(row) for row in maze.rows])
    assert len(maze.cells) == len(set(maze.cells)) == cells == (tiles != "#").sum()
    for border in (tiles[0], tiles[-1], tiles[:, 0], tiles[:, -1]):
        assert (border == "#").all()


@pytest.mark.filterwarnings("ignore:.*(infinity|render|unwrapped).*:UserWarning")
def test_gymnasium_finds_no_fault():
    env = gymnasium.make("ractd_jax/Maze2d-umaze-v1", disable_env_checker=True).unwrapped
    env_checker.check_env(env, skip_render_check=True)


def test_frame_shows_walls_target_and_ball(env):
    place(env, [1.0, 2.0])
    frame = env.render().astype(int)
    size = maze2d.PIXELS

    def at(x, y):
        return frame[round((x + 0.7) * size), round((y + 0.7) * size)]

    assert frame.shape == (8 * size, 8 * size, 3)
    assert at(1.0, 2.0)[2] > at(1.0, 2.0)[0]  # blue ball
    assert at(6.0, 6.0)[0] > at(6.0, 6.0)[2]  # red target
    assert (at(0.0, 0.0) == 96).all()
    assert (at(1.0, 1.0) == 245).all()
    assert (at(1.25, 2.0) == 245).all()  # still the ball's cell ...
    assert (at(1.0, 2.35) == 96).all()  # ... and the wall to its right begins before column 2.5


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda env: maze2d.get("midium"), "unknown maze 'midium'. Did you mean 'medium'"),
        (lambda env: env.reset(options={"start": (1, 1)}), "unknown reset option 'start'"),
        (lambda env: env.reset(options={"cell": (0, 0)}), r"cell \(0, 0\): give the \(row, col"),
        (lambda env: env.step(np.zeros(3)), r"shape \(2,\), not \(3,\)"),
        (lambda env: maze2d.of_task(tasks.get("hopper-medium-v2")), "no Maze2d task"),
    ],
)
def test_wrong_calls_end_in_one_line(env, call, text):
    with pytest.raises(errors.UserError, match=text) as caught:
        call(env)
    assert "\n" not in str(caught.value)
