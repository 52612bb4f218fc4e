"""D4RL's Maze2d data, made again by D4RL's own procedure: a scripted controller, nothing learned.

The data are one endless run. The waypoint controller steers the ball to a random target, with
Gaussian noise on its actions. When the target's cell is reached, or the time limit of an episode is
over, the next target is drawn and the ball goes on from where it is. The rewards are computed
afterwards, for the evaluation goal, whatever the target was. The noise is an option of D4RL's
script; the released files show that it was on (docs/maze2d.md). Two peculiarities of those files
are kept:

    rewards[i]        is that of observations[i]; the environment's is that of the next state
    observations[i]   repeats the row before it once after each change of target, and the controller
                      acts on that; infos/qpos and infos/qvel are the true state

`timeouts` marks changes of target, so an episode of the file is one segment: the way to one target.
`terminals` marks nothing. `cut_at_goal` makes the episodes that planners are trained on.
Source: Fu et al. 2020, "D4RL", section 5; Farama-Foundation/D4RL, `scripts/generation`.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo is a compiled module without type stubs)

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import mujoco
import numpy as np
from jaxtyping import Bool, Float64

from ractd_jax import errors, tasks
from ractd_jax.data import cache, episodes, hdf5
from ractd_jax.envs import choice, maze2d, waypoint_controller

VERSION = 3  # of the procedure and the physics; part of the cached file's name
TRANSITIONS = {"umaze": 1_000_000, "medium": 2_000_000, "large": 4_000_000}  # as in D4RL
NOISE = 0.5  # in D4RL's files
CHUNK = 20_000  # rows between two reports

# columns of a row of `run`
_OBS, _XY, _ACTION, _GOAL = slice(0, 4), slice(0, 2), slice(4, 6), slice(6, 8)
_QPOS, _QVEL, _SWITCH = slice(8, 10), slice(10, 12), 12


def size(task: tasks.TaskSpec) -> int:
    """Return the number of steps in D4RL's own file of a Maze2d task.

    Raises:
        UserError: it is no Maze2d task.

    Example:
        >>> size(tasks.get("maze2d-umaze-v1"))
        1000000
    """
    maze2d.of_task(task)
    return TRANSITIONS[task.name.split("-")[1]]


def make(
    task: tasks.TaskSpec,
    path: str | os.PathLike,
    *,
    transitions: int | None = None,
    seed: int = 0,
    noise: float = NOISE,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Record the run and write it in D4RL's HDF5 schema.

    One process makes a million steps in less than a minute, so the run is not cut into pieces for
    several. A shorter run is the beginning of a longer one with the same seed.

    Args:
        task: a Maze2d task.
        path: the file to write; it appears when complete.
        transitions: number of steps; by default D4RL's.
        seed: of the start, the targets, the waypoints and the noise.
        noise: standard deviation of what is added to the controller's actions.
        advance: called with the number of steps recorded so far.

    Raises:
        UserError: no Maze2d task, too few transitions for an episode, a negative seed, or the file
            cannot be written.
    """
    transitions = size(task) if transitions is None else transitions
    if transitions <= task.max_episode_steps or seed < 0:
        raise errors.UserError(
            f"cannot simulate {transitions} transitions of {task.name} with seed {seed}: "
            f"transitions start at {task.max_episode_steps + 1}, seeds at 0"
        )
    maze = maze2d.of_task(task)
    rows = np.empty((transitions, 13), np.float32)
    done = 0
    for chunk in run(maze, task.max_episode_steps, transitions, seed, noise):
        rows[done : done + len(chunk)] = chunk
        done += len(chunk)
        if advance:
            advance(done)
    columns = {
        "observations": rows[:, _OBS],
        "actions": rows[:, _ACTION],
        "rewards": maze2d.at_goal(rows[:, _XY], np.array(maze.goal, np.float64)),
        "terminals": np.zeros(transitions, bool),
        "timeouts": rows[:, _SWITCH] > 0,
        "infos/goal": rows[:, _GOAL],
        "infos/qpos": rows[:, _QPOS],
        "infos/qvel": rows[:, _QVEL],
    }
    metadata = {
        "source": "D4RL's waypoint controller in the rebuilt Maze2d",
        "task": task.name,
        "environment": task.env_id,
        "physics": choice.physics(task.env_id),
        "seed": seed,
        "noise": noise,
        "version": VERSION,
        "mujoco": importlib.metadata.version("mujoco"),
    }
    hdf5.write(path, columns, metadata)


def cached(task: tasks.TaskSpec, *, transitions: int | None = None, seed: int = 0) -> Path:
    """Return the path of the task's simulated data, made now if they are not there yet.

    Args:
        task: a Maze2d task.
        transitions: number of steps; by default D4RL's.
        seed: of the start, the targets, the waypoints and the noise.

    Raises:
        UserError: as `make`.
    """
    transitions = size(task) if transitions is None else transitions
    return cache.keep(task, VERSION, make, transitions, seed)


def cut_at_goal(
    recorded: episodes.Transitions,
) -> tuple[episodes.Transitions, Bool[np.ndarray, " rows"]]:
    """Return RACTD's episodes, which end at the evaluation goal, and where targets were reached.

    An episode ends when the ball leaves the goal, so it holds a whole way to the goal, whatever the
    targets were. The row in which the ball leaves is dropped, as in the released code; so is what
    follows the last one. Diffuser (Janner et al. 2022) cuts in the same places.

    Args:
        recorded: rows of a Maze2d file, whose own episodes end at each target.

    Returns:
        The episodes, and of each of their rows whether a target was reached in it: `reached` of
        `windows.build`.
    """
    inside = recorded.rewards > 0
    leaves = np.flatnonzero(inside[:-1] & ~inside[1:])
    timeouts, keep = np.zeros_like(inside), np.ones_like(inside)
    timeouts[leaves[leaves > 0] - 1] = True
    keep[leaves] = False
    reached = (recorded.terminals | recorded.timeouts)[keep]
    cut = recorded._replace(timeouts=timeouts)
    cut = episodes.complete(episodes.Transitions(*(column[keep] for column in cut)))
    return cut, reached[: len(cut.rewards)]


def run(
    maze: maze2d.Maze, limit: int, steps: int, seed: int, noise: float
) -> Iterator[Float64[np.ndarray, "rows 13"]]:
    """Yield the run in pieces of at most `CHUNK` rows.

    Args:
        maze: where.
        limit: steps after which the target changes.
        steps: rows in all.
        seed: see `make`.
        noise: see `make`.

    Returns:
        Rows of observation (4), action (2), target (2), true state (4), change of target (1).
    """
    # Two streams, so that a short run is the beginning of a long one.
    rng, rng_noise = np.random.default_rng(seed).spawn(2)
    model = maze2d.compiled(maze)
    data = mujoco.MjData(model)
    controller = waypoint_controller.WaypointController(maze, rng)
    target = maze2d.random_location(maze, rng).tolist()
    data.qpos[:] = maze2d.random_location(maze, rng)
    data.qvel[:] = rng.normal(0.0, maze2d.SPEED_NOISE, 2)
    # Plain floats: numpy would take longer than MuJoCo.
    state = obs = (*data.qpos.tolist(), *data.qvel.tolist())
    age = 0
    for begin in range(0, steps, CHUNK):
        rows = []
        noises = rng_noise.normal(0.0, noise, (min(CHUNK, steps - begin), 2))
        for noise_x, noise_y in noises.tolist():
            (push_x, push_y), reached = controller.act(obs, target)
            action = _clip(push_x + noise_x), _clip(push_y + noise_y)
            switch = reached or age >= limit
            rows.append((*obs, *action, *target, *state, switch))
            maze2d.simulate(model, data, action)
            state = (*data.qpos.tolist(), *data.qvel.tolist())
            if switch:
                target, age = maze2d.random_location(maze, rng).tolist(), 0
            else:
                obs, age = state, age + 1
        yield np.array(rows, np.float64)


def _clip(x: float) -> float:
    return min(max(x, -1.0), 1.0)
