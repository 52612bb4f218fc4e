"""Reads and writes D4RL's HDF5 schema, and says in one line what is wrong with a file.

Schema (Fu et al. 2020, "D4RL"): `observations` (n, obs), `actions` (n, act), `rewards` (n,),
`terminals` (n,) and `timeouts` (n,), one row a step; `next_observations`, `infos/*` and
`metadata/*` may stand beside them and are not read.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Bool

from ractd_jax import errors, tasks
from ractd_jax.data import episodes

ACTION_SLACK = 1e-3  # rounding that is clipped; anything more means actions in other units


def read(path: str | os.PathLike, task: tasks.TaskSpec) -> episodes.Transitions:
    """Read the complete episodes of a file.

    Args:
        path: an HDF5 file in D4RL's schema; missing `timeouts` follow from the time limit.
        task: what the sizes are checked against.

    Raises:
        UserError: there is no such file, it is no complete HDF5 file, or what it holds cannot be
            the task's data; the message names the file and the column.
    """
    path = Path(path)
    if not path.is_file():
        raise errors.UserError(f"no data file {path}: give an HDF5 file, or use source=simulated")
    try:
        columns = _columns(path)
    except (OSError, RuntimeError) as error:
        raise errors.UserError(
            f"cannot read {path} as HDF5, delete it and fetch or make it again: {_line(error)}"
        ) from error

    def wrong(what: str) -> errors.UserError:
        return errors.UserError(f"{path} is not {task.name} data: {what}")

    for name in ("observations", "actions", "rewards", "terminals"):
        if name not in columns:
            raise wrong(f"it has no {name!r}, only {', '.join(sorted(columns)) or 'nothing'}")
    n = len(np.atleast_1d(columns["observations"]))
    shapes = {"observations": (n, task.obs_dim), "actions": (n, task.act_dim)}
    for name, column in columns.items():
        if column.shape != shapes.get(name, (n,)):
            raise wrong(f"{name} is {column.shape}, expected {shapes.get(name, (n,))}")
        if column.dtype.kind not in "biuf":
            raise wrong(f"{name} holds {column.dtype}, not numbers")
        bad = ~np.isfinite(column).all(axis=tuple(range(1, column.ndim)))
        if bad.any():
            raise wrong(f"{name} is NaN or infinite in {bad.sum()} rows, first in {bad.argmax()}")

    actions = columns["actions"]
    if np.abs(actions).max(initial=0.0) > 1 + ACTION_SLACK:
        row = np.abs(actions).max(axis=1).argmax()
        raise wrong(f"actions leave [-1, 1], furthest in row {row}: {actions[row].tolist()}")
    terminals = columns["terminals"].astype(bool)
    timeouts = columns.get("timeouts")
    if timeouts is None:
        timeouts = _derive_timeouts(terminals, task.max_episode_steps)
    transitions = episodes.Transitions(
        columns["observations"].astype(np.float32),
        np.clip(actions, -1.0, 1.0).astype(np.float32),
        columns["rewards"].astype(np.float32),
        terminals,
        timeouts.astype(bool),
    )
    transitions = episodes.complete(transitions)
    if not len(transitions.rewards):
        raise wrong(f"no episode is complete, no row of its {n} is a terminal or a timeout")
    return transitions


def write(
    path: str | os.PathLike, columns: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write `columns` and `metadata/*`; the file appears once complete.

    Raises:
        UserError: the disk is full, read-only or not ours.
    """
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        for name, value in columns.items():
            file[name] = value
        for name, value in metadata.items():
            file[f"metadata/{name}"] = value


@contextlib.contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` on success and vanishes on failure.

    Raises:
        UserError: instead of any `OSError` inside, in one line.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # h5py raises either when the disk is full
        raise errors.UserError(f"cannot write {path}: {_line(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Read the columns there are; (n, 1) counts as (n,) for the ones with a number a row."""
    columns = {}
    with h5py.File(path, "r") as file:
        for name in episodes.Transitions._fields:
            if isinstance(file.get(name), h5py.Dataset):
                columns[name] = np.asarray(file[name])
    for name in {"rewards", "terminals", "timeouts"} & columns.keys():
        if columns[name].shape[1:] == (1,):
            columns[name] = columns[name][:, 0]
    return columns


def _derive_timeouts(terminals: Bool[np.ndarray, " n"], limit: int) -> Bool[np.ndarray, " n"]:
    """Say where the time limit ended an episode, in a file that says only where a failure did."""
    rows = np.arange(len(terminals))
    start = np.maximum.accumulate(np.where(np.roll(terminals, 1), rows, 0))
    return ((rows - start) % limit == limit - 1) & ~terminals


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
