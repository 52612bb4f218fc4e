"""The benchmark's facts: one `TaskSpec` a dataset, with D4RL's reference returns.

Source: Farama-Foundation/D4RL, `d4rl/infos.py`. The environments have the physics that D4RL's
datasets were recorded in: `ractd_jax.envs.locomotion`, `envs.maze2d`, and Kitchen's observation and
reward `envs.kitchen`. `envs.choice` has what else a task can act in.
"""

import dataclasses
import math
from typing import TypeVar

import numpy as np
from jaxtyping import Float32

from ractd_jax import errors

KINDS = ("policy", "planner")
Return = TypeVar("Return", float, np.ndarray)  # of one episode, or of many


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """What a method, a data source and an evaluation need to know about a task.

    A configuration holds it whole. A task of the user's own is `TaskSpec("custom")`: without an
    environment and reference returns, and with sizes and limits that are those of its data
    (`data.validation.measure`).

    Attributes:
        name: D4RL's dataset id, e.g. `hopper-medium-replay-v2`, or "custom".
        env_id: the Gymnasium environment it acts in, D4RL's unless chosen otherwise; "" for none.
        obs_dim: size of an observation; 0 for the data's.
        act_dim: size of an action; 0 for the data's.
        max_episode_steps: time limit of an episode; 0 for the longest one of the data.
        return_min: mean return of a random policy (score 0); None if there are no scores.
        return_max: mean return of an expert policy (score 100); in Maze2d of a scripted controller.
        file: D4RL's HDF5 file, relative to the root of its server; "" if there is none.
        kind: "policy", a model generates actions, or "planner", it generates states to pass
            through (see `policies.planning`).
        action_low: smallest value of each action dimension, or of all; () for -1, and in a custom
            task for the smallest one recorded.
        action_high: largest value of each action dimension, or of all; () for 1, and in a custom
            task for the largest one recorded.

    Raises:
        FieldError: a size is negative, the kind is unknown, or limits or reference returns are not
            in order.

    Example:
        >>> TaskSpec("custom", act_dim=2, action_low=(-1.0, 0.0), action_high=(1.0, 5.0)).act_dim
        2
    """

    name: str
    env_id: str = ""
    obs_dim: int = 0
    act_dim: int = 0
    max_episode_steps: int = 0
    return_min: float | None = None
    return_max: float | None = None
    file: str = ""
    kind: str = "policy"
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()

    def __post_init__(self):
        for field in ("obs_dim", "act_dim", "max_episode_steps"):
            errors.at_least(field, getattr(self, field), 0)
        errors.choose_field("kind", self.kind, KINDS)
        self._check_returns()
        self._check_limits()

    def _check_returns(self) -> None:
        low, high = self.return_min, self.return_max
        if (low is None) != (high is None):
            missing = "return_min" if low is None else "return_max"
            raise errors.FieldError(missing, "{field} is missing: a score needs both returns")
        if low is not None and high is not None:
            errors.above("return_max", high, low)

    def _check_limits(self) -> None:
        for field in ("action_low", "action_high"):
            limits = getattr(self, field)
            if not all(map(math.isfinite, limits)):
                raise errors.FieldError(field, f"{{field}} is {limits}: finite numbers are needed")
            if self.act_dim and len(limits) not in (0, 1, self.act_dim):
                raise errors.FieldError(
                    field, f"{{field}} has {len(limits)} numbers, an action {self.act_dim}"
                )
        low, high = self.action_low, self.action_high
        if low and high:
            if len({len(low), len(high)} - {1}) > 1:
                raise errors.FieldError(
                    "action_high", f"{{field}} has {len(high)} numbers, action_low {len(low)}"
                )
            # Equal limits are those of a dimension that never changed in the data.
            if (np.array(low) > np.array(high)).any():
                raise errors.FieldError(
                    "action_low", f"{{field}} is {low}, above action_high, {high}"
                )

    @property
    def domain(self) -> str:
        """The first word of the name: "hopper", "maze2d", "kitchen", "custom", ...

        Example:
            >>> get("maze2d-umaze-v1").domain
            'maze2d'
        """
        return self.name.partition("-")[0]

    def action_limits(self) -> tuple[Float32[np.ndarray, " low"], Float32[np.ndarray, " high"]]:
        """Return the smallest and the largest action, each (act,), or (1,) for all dimensions.

        Example:
            >>> low, high = get("hopper-medium-v2").action_limits()
            >>> low.tolist(), high.tolist()
            ([-1.0], [1.0])
        """
        low, high = self.action_low or (-1.0,), self.action_high or (1.0,)
        return np.array(low, np.float32), np.array(high, np.float32)

    def score(self, episode_return: Return) -> Return:
        """Return D4RL's score of one or many returns: 100 (return - min) / (max - min).

        A task without reference returns has no scores: they are NaN.

        Example:
            >>> get("kitchen-mixed-v0").score(3.0)
            75.0
            >>> TaskSpec("custom").score(3.0)
            nan
        """
        if self.return_min is None or self.return_max is None:
            return episode_return * float("nan")
        return 100.0 * (episode_return - self.return_min) / (self.return_max - self.return_min)


# environment: (Gymnasium id, observation size, action size, minimum return, maximum return)
_LOCOMOTION = {
    "hopper": ("ractd_jax/Hopper-v2", 11, 3, -20.272305, 3234.3),
    "walker2d": ("ractd_jax/Walker2d-v2", 17, 6, 1.629008, 4592.3),
    "halfcheetah": ("ractd_jax/HalfCheetah-v2", 17, 6, -280.178953, 12135.0),
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


CUSTOM = "custom"  # name of a task of the user's own: data alone
TASKS = {
    task.name: task
    for task in (
        *(_locomotion(env, quality) for env in _LOCOMOTION for quality in _QUALITIES),
        *map(_maze, _MAZES),
        *map(_kitchen, _KITCHENS),
    )
}


def get(name: str) -> TaskSpec:
    """Return a task of the benchmark.

    Raises:
        UserError: there is none of this name; the message gives the nearest one.

    Example:
        >>> get("hopper-medium-replay-v2").env_id
        'ractd_jax/Hopper-v2'
    """
    return TASKS[errors.choose("task", name, TASKS)]
