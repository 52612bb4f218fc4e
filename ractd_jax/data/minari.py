"""Minari datasets (Farama Foundation): by id, here or on its server, or from a folder.

Minari stores an episode at a time: `terminations` are D4RL's terminals, `truncations` its timeouts,
and an episode that ends in neither counts as ended by its time limit. It has one observation more
than actions, which is not used. The package is optional: the extra `minari`.

Robotics datasets observe a dictionary with a goal. D4RL observes `observation` alone, which is what
is read for PointMaze, and where the goal never changes. Elsewhere the goal would be lost, which is
an error. For a Kitchen task the observation becomes D4RL's (`envs.kitchen.from_minari`), for a
Maze2d task it is put into D4RL's coordinates (`envs.maze2d.from_pointmaze`).
"""

import contextlib
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ractd_jax import errors, tasks
from ractd_jax.data import episodes, validation
from ractd_jax.envs import choice, kitchen, maze2d

INSTALL = 'pip install "minari[hdf5,hf]" (the extra minari)'
GOAL_KEYS = {"observation", "achieved_goal", "desired_goal"}


def load(name: str, task: tasks.TaskSpec) -> episodes.Transitions:
    """Return the complete episodes of a Minari dataset.

    Args:
        name: a dataset id, as `mujoco/hopper/medium-v0`, or the path of a dataset's folder.
        task: what the sizes are checked against.

    Raises:
        UserError: minari is not installed, there is no such dataset, it cannot be fetched or read,
            or what it holds cannot be the task's data.
    """
    where = f"Minari dataset {name}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on newer versions and other environments
        dataset = _open(name)
        try:
            columns = _read(dataset, task, where)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise errors.UserError(f"cannot read {where}: {_line(error)}") from error
    return validation.check(columns, task, where)


def is_folder(path: str | os.PathLike) -> bool:
    """Return whether a path is the folder of a Minari dataset, or the `data` folder in it."""
    return any((Path(path) / inner).is_file() for inner in ("metadata.json", "data/metadata.json"))


def recorded_in(source: str, task: tasks.TaskSpec) -> str:
    """Return the environment that a source's data of a robot were recorded in, "" if not known.

    A dataset that is here says so. Of one that is not yet, Farama's own (`mujoco/...`) are of v5.

    Args:
        source: `minari:<id>`, or the folder of a dataset; any other is of no known environment.
        task: one of the robot's; an environment of something else is not taken.

    Example:
        >>> recorded_in("minari:mujoco/walker2d/medium-v0", tasks.get("walker2d-medium-v2"))
        'Walker2d-v5'
    """
    name = source.removeprefix("minari:")
    folder = Path(name).expanduser()
    if name != source and not is_folder(folder):
        folder = _root() / name
    env_id, robot = "", choice.ROBOTS[task.domain]
    for inner in ("metadata.json", "data/metadata.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            spec = json.loads((folder / inner).read_text()).get("env_spec")
            env_id = str((json.loads(spec) if isinstance(spec, str) else spec).get("id"))
    if not env_id and source.startswith("minari:mujoco/"):
        env_id = f"{robot}-v5"
    return env_id if re.fullmatch(rf"{robot}-v[45]", env_id) else ""


def _root() -> Path:
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def _open(name: str) -> Any:
    """Return the `minari.MinariDataset`, downloaded if it is not here."""
    try:
        import minari
    except ImportError as error:
        raise errors.UserError(f"Minari datasets need the package minari: {INSTALL}") from error
    if is_folder(name):
        inner = Path(name) / "data"
        return _attempt(lambda: minari.MinariDataset(inner if inner.is_dir() else name), name, "")
    if not re.search(r"-v\d+$", name):
        raise errors.UserError(
            f"{name!r} is no Minari dataset: ids end in a version, as mujoco/hopper/medium-v0; "
            "`minari list remote` shows them"
        )
    hint = "; `minari list remote` and `minari list local` show what there is"
    if (_root() / name / "data").is_dir():
        hint = f"; `minari download {name} --force` fetches it again"
    return _attempt(lambda: minari.load_dataset(name, download=True), name, hint)


def _attempt(function: Callable[[], Any], name: str, hint: str) -> Any:
    """Return what the function returns; any error of it becomes one line."""
    hub = logging.getLogger("huggingface_hub")  # it would log every attempt
    level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        return function()
    except Exception as error:  # minari's remotes raise what their HTTP clients do
        raise errors.UserError(f"cannot get Minari dataset {name}: {_line(error)}{hint}") from error
    finally:
        hub.setLevel(level)


def _read(dataset: Any, task: tasks.TaskSpec, where: str) -> dict[str, np.ndarray]:
    """Return the episodes end to end as D4RL's columns."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in episodes.Transitions._fields}
    first_goal, pointmaze = None, _is_pointmaze(dataset)
    for episode in dataset.iterate_episodes():
        observations, actions, rewards = episode.observations, episode.actions, episode.rewards
        if isinstance(observations, Mapping):
            observations, goal = _without_goal(observations, where)
            first_goal = goal if first_goal is None else first_goal
            if not pointmaze and not _same(first_goal, goal):
                raise errors.UserError(
                    f"{where} observes a goal that changes, which `observation` alone does not "
                    "show: only PointMaze and datasets with one goal can be used"
                )
            if task.domain == "kitchen":
                observations = kitchen.from_minari(observations, goal, task, where)
            if task.domain == "maze2d":
                observations, actions = _from_pointmaze(observations, actions, task, where)
        for part in (observations, actions):
            if not isinstance(part, np.ndarray) or part.ndim != 2:
                raise errors.UserError(
                    f"{where} has observations or actions that are no vectors of numbers: "
                    f"{dataset.observation_space}, {dataset.action_space}"
                )
        n = len(rewards)
        if task.domain == "maze2d":  # the file's rewards are for each episode's own goal
            target = np.array(maze2d.of_task(task).goal, np.float64)
            rewards = maze2d.at_goal(observations[:n, :2], target)
        terminals = np.array(episode.terminations, bool)
        timeouts = np.array(episode.truncations, bool)
        if n:
            timeouts[-1] |= not terminals[-1]
        row = observations[:n], actions, rewards, terminals, timeouts
        for name, value in zip(parts, row, strict=True):
            parts[name].append(value)
    if not parts["rewards"]:
        raise errors.UserError(f"{where} holds no episode")
    return {name: np.concatenate(value) for name, value in parts.items()}


def _is_pointmaze(dataset: Any) -> bool:
    """Tell by the environment it was recorded in, or else by its own id, never by its folder."""
    spec = dataset.spec.env_spec
    if spec is not None:
        return str(spec.id).startswith("PointMaze")
    return str(dataset.spec.dataset_id).startswith("D4RL/pointmaze/")


def _without_goal(observations: Mapping[str, Any], where: str) -> tuple[np.ndarray, Any]:
    """Return `observation` and `desired_goal` of an episode."""
    if set(observations) != GOAL_KEYS:
        raise errors.UserError(
            f"{where} observes a dictionary of {', '.join(sorted(observations))}: only a goal "
            f"dictionary ({', '.join(sorted(GOAL_KEYS))}) can be read"
        )
    return observations["observation"], observations["desired_goal"]


def _from_pointmaze(
    observations: Any, actions: Any, task: tasks.TaskSpec, where: str
) -> tuple[Any, Any]:
    """Return an episode in the task's coordinates; what is no PointMaze is left as it is."""
    if np.shape(observations)[1:] != (4,) or np.shape(actions)[1:] != (2,):
        return observations, actions  # `validation` says what is wrong
    try:
        return maze2d.from_pointmaze(observations, actions, maze2d.of_task(task))
    except errors.UserError as error:
        raise errors.UserError(f"{where} is not {task.name} data: {error}") from None


def _same(goal: Any, other: Any) -> bool:
    """Return whether two episodes had the same goal in every step."""
    if isinstance(goal, Mapping):
        return goal.keys() == other.keys() and all(_same(goal[k], other[k]) for k in goal)
    return bool((goal == goal[:1]).all() and (other == goal[:1]).all())


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
