"""The controller plans as value iteration does, and steers as D4RL's."""

import numpy as np
import pytest

from ractd_jax import tasks
from ractd_jax.envs import maze2d, waypoint_controller
from ractd_jax.envs.make import make_env


def value_iteration(maze, target):
    """D4RL's planner: 50 sweeps at discount 0.99, rewarded for being at the target.

    Returns the next cell's index for each cell's; the first of equally good moves counts.
    """
    height, width = len(maze.rows), len(maze.rows[0])
    after = np.zeros((height, width, 5), int)
    for i in range(height):
        for j in range(width):
            for move, (di, dj) in enumerate(((0, 0), (0, -1), (0, 1), (-1, 0), (1, 0))):
                inside = 0 <= i + di < height and 0 <= j + dj < width
                legal = inside and maze.rows[i + di][j + dj] != "#"
                after[i, j, move] = (i + di) * width + j + dj if legal else i * width + j
    after = after.reshape(-1, 5)
    reward = np.zeros((height * width, 1))
    reward[target[0] * width + target[1]] = 1.0
    q = np.zeros_like(after, float)
    for _ in range(50):
        q = reward + 0.99 * q.max(axis=1)[after]
    return after[np.arange(len(after)), q.argmax(axis=1)]


@pytest.mark.parametrize("name", sorted(maze2d.LAYOUTS))
def test_paths_are_those_of_value_iteration(name):
    maze = maze2d.get(name)
    width = len(maze.rows[0])
    longest = 0  # cells of a way
    for target in maze.cells[:: -1 if name == "umaze" else -6]:
        after = value_iteration(maze, target)
        for start in np.ndindex(len(maze.rows), width):  # walls too
            cell, way = start, []
            while cell != target and len(way) < 100:
                cell = divmod(int(after[cell[0] * width + cell[1]]), width)
                way.append(cell)
            assert waypoint_controller.plan(maze, start, target) == (way or [target])
            longest = max(longest, len(set(way)))
    assert longest > {"umaze": 5, "medium": 10, "large": 15}[name]


class Constant(np.random.Generator):
    """A generator whose every number is `value`."""

    value = 0.0

    def uniform(self, size):
        return np.full(size, self.value)


def controller(value=0.0):
    rng = Constant(np.random.PCG64(0))
    rng.value = value
    return waypoint_controller.WaypointController(maze2d.get("umaze"), rng)


def test_control_law_matches_numbers_by_hand():
    steer = controller(0.5)
    # From cell (3, 1) to (1, 1), around the bend; the first waypoint is (3, 2) - 0.5 * 0.2.
    (x, y), reached = steer.act((2.95, 1.43, 0.2, 4.5), (1.04, 0.95))
    assert x == pytest.approx(10 * (2.9 - 2.95) - 0.2)
    assert y == pytest.approx(10 * (1.9 - 1.43) - 4.5)
    assert steer.act((2.95, 1.43, 9.9, -9.9), (1.04, 0.95))[0] == (-1.0, 1.0)
    assert not reached


def test_waypoints_are_passed_one_by_one_and_the_last_is_the_cell():
    steer = controller(1.0)
    target, seen = (0.93, 1.08), []
    way = [(3, 2), (3, 3), (2, 3), (1, 3), (1, 2), (1, 1)]
    position = np.array([3.0, 1.0])
    for cell in way:
        place = np.array(cell) - (0.0 if cell == (1, 1) else 0.2)
        ahead, _ = steer.act((*position, 0.0, 0.0), target)
        np.testing.assert_allclose(ahead, np.clip(10 * (place - position), -1, 1))
        while np.abs(place - position).max() > 1e-9:  # glide there, slowly enough to count
            position = position + np.clip(place - position, -0.06, 0.06)
            seen.append(steer.act((*position, 0.0, 0.0), target)[1])
    assert seen[-1]
    assert not any(seen[:-3])


def test_fast_ball_passes_nothing():
    steer = controller()
    steer.act((1.0, 3.0, 0.0, 0.0), (1.0, 1.0))
    for _ in range(3):
        assert not steer.act((1.0, 1.5, 0.0, 0.0), (1.0, 1.0))[1]
        assert not steer.act((1.0, 1.0, 0.0, 0.0), (1.0, 1.0))[1]  # moved 0.5 at once
    assert steer.act((1.0, 1.0, 0.0, 0.0), (1.0, 1.0))[1]


def test_plans_only_when_the_target_changes():
    """So D4RL's reference script steers straight at the goal from its second episode on."""
    steer = controller()
    goal = 1.0, 1.0
    for _ in range(2):
        assert steer.act((1.0, 1.0, 0.0, 0.0), goal)[1]
    straight, _ = steer.act((3.0, 1.0, 0.0, 0.0), goal)  # through the wall between
    assert straight == (-1.0, 0.0)
    around, _ = controller().act((3.0, 1.0, 0.0, 0.0), goal)
    assert around == (0.0, 1.0)


@pytest.mark.parametrize("name", ["umaze", "medium"])
def test_reaches_the_goal_from_every_cell(name):
    task = tasks.get(f"maze2d-{name}-v1")
    env = make_env(task.env_id)
    maze = env.unwrapped.maze
    for start in maze.cells:
        obs, _ = env.reset(seed=1, options={"cell": start})
        steer = waypoint_controller.WaypointController(maze, np.random.default_rng(0))
        total, over = 0.0, False
        while not over:
            action, _ = steer.act(obs.tolist(), maze.goal)
            obs, reward, _, over, _ = env.step(np.array(action))
            total += reward
        assert total > 0, start
        assert np.abs(obs[:2] - maze.goal).max() < 0.01


def test_tracking_a_plan_matches_numbers_by_hand():
    plan = np.array([[1.0, 1.0, 0.0, 0.0], [1.1, 0.9, 0.5, -0.3], [1.2, 0.8, 0.4, 0.2]])
    obs = np.array([1.05, 0.95, 0.1, 0.0])
    np.testing.assert_allclose(
        waypoint_controller.push(obs, waypoint_controller.wanted(plan, 0)),
        [0.05 + 0.4, -0.05 - 0.3],
    )
    np.testing.assert_allclose(
        waypoint_controller.push(obs, waypoint_controller.wanted(plan, 1)),
        [0.15 + 0.3, -0.15 + 0.2],
    )
    for step in (2, 50):  # stand still at the end
        np.testing.assert_allclose(
            waypoint_controller.push(obs, waypoint_controller.wanted(plan, step)),
            [0.15 - 0.1, -0.15],
        )
    np.testing.assert_array_equal(
        waypoint_controller.push(obs, waypoint_controller.wanted(plan + 9.0, 0)), [1.0, 1.0]
    )
    assert plan[2, 2] == 0.4
