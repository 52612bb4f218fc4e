"""Where a task's transitions come from: a word, `minari:<dataset id>`, or a path.

    d4rl            D4RL's own file
    simulated       made here
    gym-d4rl        an installed `gym` + `d4rl`
    minari:<id>     a Minari dataset, here or on its server
    <path>          an HDF5 file in D4RL's schema, or the folder of a Minari dataset

To add a source, write a function `(task, transitions, seed) -> path of an HDF5 file` into
`SOURCES`, or a reader `(task, what follows the colon) -> transitions` into `READERS`, and its text
for tables into `LABELS`.
"""

import dataclasses
from pathlib import Path
from types import ModuleType

from ractd_jax import errors, tasks
from ractd_jax.data import d4rl, episodes, hdf5, minari, validation
from ractd_jax.data.generate import maze2d, simulated
from ractd_jax.envs import gym_adapter

SOURCES = {
    "simulated": lambda task, n, seed: _simulator(task).cached(task, transitions=n, seed=seed),
}
READERS = {
    "d4rl": lambda task, _: d4rl.load(task),
    "gym-d4rl": lambda task, _: _read_gym(task),
    "minari": lambda task, name: minari.load(name, task),
}
WORDS = (*SOURCES, "d4rl", "gym-d4rl")
LABELS = {
    "simulated": "simulated (MuJoCo 3, shipped SAC snapshots)",
    "d4rl": "D4RL",
    "gym-d4rl": "D4RL (through gym + d4rl)",
}
MAZE_LABEL = "simulated (MuJoCo 3, D4RL's own procedure)"


def load(
    task: tasks.TaskSpec, source: str, *, transitions: int | None = None, seed: int = 0
) -> episodes.Transitions:
    """Return the complete episodes of a task's data.

    Args:
        task: the task.
        source: a key of `SOURCES` or `READERS`, or a path; see the top of this file.
        transitions: how many to simulate, or how many of a file to use at most; by default as
            many as D4RL has, or all.
        seed: of the simulation.

    Raises:
        UserError: unknown source, or data that cannot be had or read.
    """
    kind, _, name = source.partition(":")
    if transitions is not None and transitions < 1:
        raise errors.UserError(f"data.transitions={transitions}: at least 1, or 0 for all")
    if task.name == tasks.CUSTOM and source in WORDS:
        raise errors.UserError(
            f"source={source} is data of benchmark tasks: a custom task takes yours, "
            "source=<path of an HDF5 file> or source=minari:<dataset id>"
        )
    if source in SOURCES:
        loaded = hdf5.read(SOURCES[source](task, transitions, seed), task)
    elif kind in READERS and bool(name) == (kind == "minari"):
        loaded = READERS[kind](task, name)
    elif source and _is_path(source):
        path = Path(source).expanduser()
        folder = minari.is_folder(path)
        if path.is_dir() and not folder:
            raise errors.UserError(f"{path} is a folder, but not that of a Minari dataset")
        loaded = minari.load(str(path), task) if folder else hdf5.read(path, task)
    else:
        raise _unknown(source)
    if transitions is None or source == "simulated":
        return loaded
    first = episodes.complete(episodes.Transitions(*(c[:transitions] for c in loaded)))
    if not len(first.rewards):
        raise errors.UserError(
            f"the first {transitions} transitions of {source} hold no complete episode: ask for "
            "more"
        )
    return first


def environment(task: tasks.TaskSpec, source: str) -> tasks.TaskSpec:
    """Return the task with the environment that goes with a source: `gym-d4rl` brings its own."""
    if source != "gym-d4rl":
        return task
    return dataclasses.replace(task, env_id=f"{gym_adapter.PREFIX}{task.name}")


def label(source: str, task: tasks.TaskSpec | None = None) -> str:
    """Return the words for a source, of a task if it is known, in tables and figures."""
    if source == "simulated" and task:
        return MAZE_LABEL if _simulator(task) is maze2d else simulated.label(task)
    kind, _, name = source.partition(":")
    if kind == "minari" and name:
        return f"Minari {name}"
    return LABELS.get(source) or f"file {Path(source).name}"


def _simulator(task: tasks.TaskSpec) -> ModuleType:
    return maze2d if task.name.startswith("maze2d-") else simulated


def _read_gym(task: tasks.TaskSpec) -> episodes.Transitions:
    env = gym_adapter.make(task.name)
    try:
        return validation.check(env.get_dataset(), task, f"what d4rl has for {task.name}")
    finally:
        env.close()


def _is_path(source: str) -> bool:
    path = Path(source).expanduser()
    return path.suffix in (".hdf5", ".h5") or "/" in source or path.exists()


def _unknown(source: str) -> errors.UserError:
    try:
        errors.choose("data source", source, [*WORDS, "minari:<dataset id>"])
    except errors.UserError as error:
        return errors.UserError(f"{error}, or the path of an HDF5 file")
    raise AssertionError("unreachable")
