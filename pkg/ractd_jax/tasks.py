"""The benchmark's facts: one `TaskSpec` a dataset, with D4RL's reference returns.

Source: Farama-Foundation/D4RL, `d4rl/infos.py`. Gymnasium's `-v4` environments keep the dynamics
and rewards of the `-v2` ones that D4RL's locomotion datasets were recorded with; `-v5` does not.
Maze2d is rebuilt in `ractd_jax.envs.maze2d`, Kitchen's observation and reward in `envs.kitchen`.
"""

import dataclasses
from typing import Any

import numpy as np

from ractd_jax import errors


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """What a method, a data source and an evaluation need to know about a task.

    Attributes:
        name: D4RL's dataset id, e.g. `hopper-medium-replay-v2`.
        env_id: the Gymnasium environment with the same dynamics; "" if there is none.
        obs_dim: size of an observation.
        act_dim: size of an action.
        max_episode_steps: time limit of an episode.
        return_min: mean return of a random policy (score 0).
        return_max: mean return of an expert policy (score 100); in Maze2d of a scripted controller.
        file: D4RL's HDF5 file, relative to the root of its server.
        kind: "policy", a model generates actions, or "planner", it generates states to pass
            through (see `planning`).
        action_low: smallest value of each action dimension; () for -1, as in all benchmark tasks.
        action_high: largest value of each action dimension; () for 1.
    """

    name: str
    env_id: str
    obs_dim: int
    act_dim: int
    max_episode_steps: int
    return_min: float
    return_max: float
    file: str
    kind: str = "policy"
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()

    def action_limits(self):
        """Return the smallest and the largest action, each (act,) or (1,) for all dimensions."""
        return np.float32(self.action_low or (-1.0,)), np.float32(self.action_high or (1.0,))

    def score(self, episode_return):
        """Return D4RL's score, 100 (return - min) / (max - min), of one or many returns."""
        return 100.0 * (episode_return - self.return_min) / (self.return_max - self.return_min)


# environment: (Gymnasium id, observation size, action size, minimum return, maximum return)
_LOCOMOTION = {
    "hopper": ("Hopper-v4", 11, 3, -20.272305, 3234.3),
    "walker2d": ("Walker2d-v4", 17, 6, 1.629008, 4592.3),
    "halfcheetah": ("HalfCheetah-v4", 17, 6, -280.178953, 12135.0),
}
# maze: (time limit, minimum return, maximum return); the rewards are D4RL's "sparse" ones
_MAZES = {
    "umaze": (300, 23.85, 161.86),
    "medium": (600, 13.13, 277.39),
    "large": (800, 6.7, 273.99),
}
# kind of demonstrations: D4RL's file
_KITCHENS = {
    "complete": "mini_kitchen_microwave_kettle_light_slider-v0.hdf5",
    "partial": "kitchen_microwave_kettle_light_slider-v0.hdf5",
    "mixed": "kitchen_microwave_kettle_bottomburner_light-v0.hdf5",
}
_QUALITIES = ("medium-replay", "medium", "medium-expert")


def _locomotion(env: str, quality: str) -> TaskSpec:
    env_id, obs_dim, act_dim, low, high = _LOCOMOTION[env]
    file = f"gym_mujoco_v2/{env}_{quality.replace('-', '_')}-v2.hdf5"
    return TaskSpec(f"{env}-{quality}-v2", env_id, obs_dim, act_dim, 1000, low, high, file)


def _maze(name: str) -> TaskSpec:
    env_id, file = f"ractd_jax/Maze2d-{name}-v1", f"maze2d/maze2d-{name}-sparse-v1.hdf5"
    return TaskSpec(f"maze2d-{name}-v1", env_id, 4, 2, *_MAZES[name], file, kind="planner")


def _kitchen(kind: str) -> TaskSpec:
    env_id, file = f"ractd_jax/Kitchen-{kind}-v0", f"kitchen/{_KITCHENS[kind]}"
    return TaskSpec(f"kitchen-{kind}-v0", env_id, 60, 9, 280, 0.0, 4.0, file)


TASKS = {
    task.name: task
    for task in (
        *(_locomotion(env, quality) for env in _LOCOMOTION for quality in _QUALITIES),
        *map(_maze, _MAZES),
        *map(_kitchen, _KITCHENS),
    )
}


def get(name: str) -> TaskSpec:
    """Return the task called `name`, or raise a `UserError` that names the nearest one."""
    return TASKS[errors.choose("task", name, TASKS)]


# ---- the user's own data -------------------------------------------------------------------------

CUSTOM = "custom"  # no benchmark: data without an environment and without reference returns


def from_config(config: dict[str, Any]) -> TaskSpec:
    """Return the task of a configuration: a benchmark's, or the user's own.

    A custom task has no environment, no reference returns (its scores are NaN), and the sizes of
    the section `custom`: 0 and () there stand for "whatever the data has", which
    `data.columns.measure` works out.

    Raises:
        UserError: the task is unknown, or a limit is no number.
    """
    if config["task"] != CUSTOM:
        return get(config["task"])
    fields = config["custom"]
    names = "action_low", "action_high"
    try:
        limits = {name: tuple(float(value) for value in fields[name]) for name in names}
    except (TypeError, ValueError):
        raise errors.UserError(
            "custom.action_low and custom.action_high are numbers in brackets, as (-2.0, -1.0)"
        ) from None
    nan = float("nan")
    return TaskSpec(
        CUSTOM, "", fields["obs_dim"], fields["act_dim"], fields["max_episode_steps"], nan, nan, "",
        **limits,
    )  # fmt: skip
