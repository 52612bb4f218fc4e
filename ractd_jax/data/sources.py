"""Where a task's transitions come from: a word, `minari:<dataset id>`, or a path.

    d4rl            D4RL's own file
    simulated       made here, by `data.generate`
    gym-d4rl        an installed `gym` + `d4rl`
    minari:<id>     a Minari dataset, here or on its server
    <path>          an HDF5 file in D4RL's schema, or the folder of a Minari dataset

To add a source, write a function that takes a `Request` and returns transitions, put it into
`READERS` under its word, and its text for tables into `data.labels`.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ractd_jax import errors, tasks
from ractd_jax.data import d4rl, episodes, hdf5, minari, validation
from ractd_jax.envs import choice, gym_adapter


class Request(NamedTuple):
    """What a reader is asked for.

    Attributes:
        task: the task.
        name: what follows the colon of the source, "" where there is none.
        transitions: how many to simulate; None for as many as D4RL has.
        seed: of a simulation.
    """

    task: tasks.TaskSpec
    name: str
    transitions: int | None
    seed: int


def _read_simulated(request: Request) -> episodes.Transitions:
    from ractd_jax.data.generate import maze2d, simulated  # simulators are loaded where they run

    simulator = maze2d if request.task.domain == "maze2d" else simulated
    path = simulator.cached(request.task, transitions=request.transitions, seed=request.seed)
    return hdf5.read(path, request.task)


def _read_d4rl(request: Request) -> episodes.Transitions:
    return d4rl.load(request.task)


def _read_gym(request: Request) -> episodes.Transitions:
    task = request.task
    env = gym_adapter.make(task.name)
    try:
        return validation.check(env.get_dataset(), task, f"what d4rl has for {task.name}")
    finally:
        env.close()


def _read_minari(request: Request) -> episodes.Transitions:
    return minari.load(request.name, request.task)


READERS: dict[str, Callable[[Request], episodes.Transitions]] = {
    "simulated": _read_simulated,
    "d4rl": _read_d4rl,
    "gym-d4rl": _read_gym,
    "minari": _read_minari,
}
WORDS = tuple(word for word in READERS if word != "minari")  # whole sources by themselves


def load(
    task: tasks.TaskSpec, source: str, *, transitions: int | None = None, seed: int = 0
) -> episodes.Transitions:
    """Return the complete episodes of a task's data.

    Args:
        task: the task.
        source: a word, `minari:<dataset id>`, or a path; see the top of this file.
        transitions: how many to simulate, or how many of a file to use at most; by default as
            many as D4RL has, or all.
        seed: of the simulation.

    Raises:
        UserError: unknown source, or data that cannot be had or read.

    Example:
        >>> load(tasks.get("hopper-medium-v2"), "simulatd")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ractd_jax.errors.UserError: unknown data source 'simulatd'. Did you mean 'simulated'? ...
    """
    if transitions is not None and transitions < 1:
        raise errors.UserError(f"data.transitions={transitions}: at least 1, or 0 for all")
    if task.name == tasks.CUSTOM and source in WORDS:
        raise errors.UserError(
            f"source={source} is data of benchmark tasks: a custom task takes yours, "
            "source=<path of an HDF5 file> or source=minari:<dataset id>"
        )
    word, _, name = source.partition(":")
    if word in READERS and bool(name) == (word == "minari"):
        recorded = READERS[word](Request(task, name, transitions, seed))
    elif source and is_path(source):
        recorded = _read_path(_expanded(source), task)
    else:
        raise _unknown(source)
    if transitions is None or source == "simulated":
        return recorded
    recorded = episodes.complete(episodes.Transitions(*(c[:transitions] for c in recorded)))
    if not len(recorded.rewards):
        raise errors.UserError(
            f"the first {transitions} transitions of {source} hold no complete episode: ask for "
            "more"
        )
    return recorded


def environment(task: tasks.TaskSpec, source: str, env: str = "") -> tasks.TaskSpec:
    """Return the task with the environment that it acts in.

    Without a word, `gym-d4rl` brings its own, and locomotion of Minari acts in what it was recorded
    in; all else in D4RL's physics. An environment that is not the task's usual one is left.

    Args:
        task: the task.
        source: of its data.
        env: one of `choice.WORDS`; "" for what goes with the source.

    Raises:
        UserError: the task has no such environment.

    Example:
        >>> environment(tasks.get("hopper-medium-v2"), "gym-d4rl").env_id
        'gym-d4rl:hopper-medium-v2'
        >>> environment(tasks.get("hopper-medium-v2"), "gym-d4rl", "v4").env_id
        'Hopper-v4'
    """
    if env:
        return choice.choose(task, env)
    usual = tasks.TASKS.get(task.name)
    if usual is None or task.env_id != usual.env_id:
        return task
    env_id = ""
    if source == "gym-d4rl":
        env_id = f"{choice.PREFIX}{task.name}"
    elif task.domain in choice.ROBOTS:
        _expanded(source)  # a home folder that is not there is told as such
        env_id = minari.recorded_in(source, task)
    return dataclasses.replace(task, env_id=env_id) if env_id else task


def dimension_names(source: str) -> dict[str, list[str]]:
    """Return what a file calls the dimensions of observations and actions; {} where it does not."""
    path = _expanded(source)
    return hdf5.dimension_names(path) if is_path(source) and hdf5.is_file(path) else {}


def _read_path(path: Path, task: tasks.TaskSpec) -> episodes.Transitions:
    if hdf5.is_file(path) or not _exists(path):
        return hdf5.read(path, task)
    if minari.is_folder(path):
        return minari.load(str(path), task)
    raise errors.UserError(f"{path} is a folder, but not that of a Minari dataset")


def is_path(source: str) -> bool:
    """Tell if a source is a file or a folder, and no word."""
    with contextlib.suppress(RuntimeError):  # no such user
        if _exists(Path(source).expanduser()):
            return True
    return Path(source).suffix in (".hdf5", ".h5") or "/" in source


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _expanded(source: str) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError:
        raise errors.UserError(f"source={source}: there is no such user here") from None


def _unknown(source: str) -> errors.UserError:
    try:
        errors.choose("data source", source, [*WORDS, "minari:<dataset id>"])
    except errors.UserError as error:
        return errors.UserError(f"{error}, or the path of an HDF5 file")
    raise AssertionError("unreachable")
