"""Steering through a maze: D4RL's scripted controller, and the one that follows a model's plan.

    plan                 the cells on a shortest path
    WaypointController   recorded all of D4RL's Maze2d data and set its reference returns
    wanted, push         follow a planned sequence of states, as RACTD and Diffuser evaluate

Source: Farama-Foundation/D4RL, `pointmaze`, whose planner is 50 sweeps of value iteration at
discount 0.99. Every move costs the same, so a breadth-first search finds the same paths.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ractd_jax.envs.maze2d import Cell, Maze

MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))  # of two equally good ones the first is taken
GIVE_UP = 100  # cells
GAIN, DAMPING = 10.0, 1.0
REACHED = 0.1  # metres from a waypoint, and moved in the last step
SHIFT = 0.2  # at most, of a waypoint; towards the middle of its cell


def plan(maze: Maze, start: Cell, target: Cell) -> list[Cell]:
    """Return the cells of a shortest path, without the start and with the target.

    The ball may be nearer to a wall's integer position than to its own cell's. Then the path starts
    in that wall, and leaves it towards any side. Without a path the target alone is returned.

    Args:
        maze: to plan in.
        start: where the ball is.
        target: a free cell.

    Example:
        >>> from ractd_jax.envs import maze2d
        >>> plan(maze2d.get("umaze"), (3, 2), (2, 3))
        [(3, 3), (2, 3)]
    """
    distance, frontier = {target: 0}, [target]
    for cell in frontier:
        for near in _neighbours(maze, cell):
            if near not in distance:
                distance[near] = distance[cell] + 1
                frontier.append(near)
    path = [start]
    while path[-1] != target and len(path) <= GIVE_UP:
        options = [cell for cell in _neighbours(maze, path[-1]) if cell in distance]
        path.append(min(options, key=distance.__getitem__, default=path[-1]))
    return path[1:] or [target]


class WaypointController:
    """D4RL's controller: a proportional-derivative law towards one waypoint after the other.

    It plans when the target's cell changes and at no other time: not when an episode begins, nor
    when the ball has left the path.

    Args:
        maze: to plan in.
        rng: shifts the waypoints.
    """

    def __init__(self, maze: Maze, rng: np.random.Generator):
        self._maze, self._rng = maze, rng
        self._target: Cell | None = None
        self._waypoints: list[tuple[float, float]] = []
        self._next = 0
        self._last = (0.0, 0.0)  # position at the call before

    def act(
        self, obs: Sequence[float], target: Sequence[float | int]
    ) -> tuple[tuple[float, float], bool]:
        """Return the action for an observation, and whether the target's cell is reached.

        Args:
            obs: x, y, vx, vy.
            target: x, y; it steers to the integer position of their cell.
        """
        x, y, vx, vy = obs
        cell = round(target[0]), round(target[1])
        if cell != self._target:
            self._new_target((round(x), round(y)), cell)
        slow = math.hypot(x - self._last[0], y - self._last[1]) < REACHED
        solved = slow and math.hypot(x - cell[0], y - cell[1]) < REACHED
        to_x, to_y = cell if solved else self._waypoints[self._next]
        if slow and not solved and math.hypot(x - to_x, y - to_y) < REACHED:
            self._next += 1
        self._last = x, y
        action = GAIN * (to_x - x) - DAMPING * vx, GAIN * (to_y - y) - DAMPING * vy
        return (min(max(action[0], -1.0), 1.0), min(max(action[1], -1.0), 1.0)), solved

    def _new_target(self, start: Cell, target: Cell) -> None:
        cells = plan(self._maze, start, target)
        shifts = SHIFT * self._rng.uniform(size=(len(cells), 2))
        shifts[[cell == target for cell in cells]] = 0.0
        self._waypoints = [tuple(place) for place in (np.array(cells) - shifts).tolist()]
        self._target, self._next = target, 0
        self._last = float(start[0]), float(start[1])


def wanted(states: Float[np.ndarray, "horizon 4"], step: int) -> Float[np.ndarray, "4"]:
    """Return the state to steer to in a step: the plan's next one; after its end the last, at rest.

    Source: RACTD's released Maze2d runner, after Diffuser (Janner et al. 2022).

    Args:
        states: the plan; positions, then velocities.
        step: since it was made.
    """
    state = states[min(step + 1, len(states) - 1)].copy()
    if step + 1 >= len(states):
        state[2:] = 0.0
    return state


def push(
    obs: Float[np.ndarray, "*batch 4"], wanted: Float[np.ndarray, "*batch 4"]
) -> Float[np.ndarray, "*batch 2"]:
    """Return the action towards a state: position error plus velocity error, clipped.

    Source: as for `wanted`.

    Args:
        obs: positions, then velocities.
        wanted: of the state to steer to.
    """
    error = wanted - obs
    return np.clip(error[..., :2] + error[..., 2:], -1.0, 1.0)


def _neighbours(maze: Maze, cell: Cell) -> list[Cell]:
    near = ((cell[0] + i, cell[1] + j) for i, j in MOVES)
    return [cell for cell in near if maze.free(cell)]
