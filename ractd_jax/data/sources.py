"""Where a task's transitions come from: `simulated`, `d4rl`, or any file in D4RL's schema.

To add a source, write a function `(task, transitions, seed) -> path of an HDF5 file` into `SOURCES`
and its text for tables into `LABELS`.
"""

from pathlib import Path

from ractd_jax import errors, tasks
from ractd_jax.data import d4rl, episodes, hdf5, simulated

SOURCES = {
    "simulated": lambda task, n, seed: simulated.cached(task, transitions=n, seed=seed),
    "d4rl": lambda task, n, seed: d4rl.locate(task),
}
LABELS = {"simulated": "simulated (MuJoCo 3, shipped SAC snapshots)", "d4rl": "D4RL"}


def load(
    task: tasks.TaskSpec, source: str, *, transitions: int | None = None, seed: int = 0
) -> episodes.Transitions:
    """Return the complete episodes of a task's data.

    Args:
        task: the task.
        source: a key of `SOURCES`, or the path of an HDF5 file.
        transitions: how many to simulate, or how many of a file to use at most; by default as
            many as D4RL has, or all.
        seed: of the simulation.

    Raises:
        UserError: unknown source, or data that cannot be had or read.
    """
    if source in SOURCES:
        path = SOURCES[source](task, transitions, seed)
    elif _is_path(source):
        path = Path(source).expanduser()
    else:
        try:
            errors.choose("data source", source, SOURCES)
        except errors.UserError as error:
            raise errors.UserError(f"{error}, or the path of an HDF5 file") from None
    loaded = hdf5.read(path, task)
    if transitions is None or source == "simulated":
        return loaded
    first = episodes.complete(episodes.Transitions(*(c[:transitions] for c in loaded)))
    if not len(first.rewards):
        raise errors.UserError(
            f"the first {transitions} transitions of {path} hold no complete episode: ask for more"
        )
    return first


def label(source: str, task: tasks.TaskSpec | None = None) -> str:
    """Return the words for a source, of a task if it is known, in tables and figures."""
    if source == "simulated" and task:
        return simulated.label(task)
    return LABELS.get(source) or f"file {Path(source).name}"


def _is_path(source: str) -> bool:
    return Path(source).suffix in (".hdf5", ".h5") or Path(source).expanduser().is_file()
