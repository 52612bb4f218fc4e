"""Reads and writes D4RL's HDF5 schema; a file that is not whole is an error of one line.

Schema (Fu et al. 2020, "D4RL"): `observations` (n, obs), `actions` (n, act), `rewards` (n,),
`terminals` (n,) and `timeouts` (n,), one row a step; `next_observations`, `infos/*` and
`metadata/*` may stand beside them and are not read.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ractd_jax import errors, tasks
from ractd_jax.data import cache, episodes, validation


def read(path: str | os.PathLike, task: tasks.TaskSpec) -> episodes.Transitions:
    """Return the complete episodes of a file.

    Args:
        path: an HDF5 file in D4RL's schema; missing `timeouts` follow from the time limit.
        task: what the sizes are checked against.

    Raises:
        UserError: there is no such file, it is no complete HDF5 file, or what it holds cannot be
            the task's data; the message names the file and the column.
    """
    path = Path(path)
    if not path.is_file():
        raise errors.UserError(
            f"no data file {path}: give the path of an HDF5 file, or a word from docs/data.md"
        )
    try:
        columns = _columns(path)
    except (OSError, RuntimeError) as error:
        raise errors.UserError(
            f"cannot read {path} as HDF5, it is damaged or another kind of file (delete one that "
            f"was simulated or downloaded: it is made again): {_line(error)}"
        ) from error
    return validation.check(columns, task, str(path))


def write(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write a file; it appears once it is complete.

    Args:
        path: of the file; missing folders are made.
        arrays: columns, by name.
        metadata: numbers, texts and arrays, which become `metadata/<name>`.

    Raises:
        UserError: the disk is full, or the place cannot be written.
    """
    with cache.atomic(path) as temporary, h5py.File(temporary, "w") as file:
        for name, value in arrays.items():
            file[name] = value
        for name, value in metadata.items():
            file[f"metadata/{name}"] = value


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of D4RL's schema, and empty ones for the names of all others.

    The names help a message. A column that was written as "no data" (`h5py.Empty`) has no shape,
    and is empty too.
    """
    with h5py.File(path, "r") as file:
        columns = {name: column for name, column in file.items() if _is_dataset(column)}
        return {
            name: np.asarray(column)
            if name in episodes.Transitions._fields and column.shape is not None
            else np.empty(0)
            for name, column in columns.items()
        }


def _is_dataset(item: Any) -> bool:
    return isinstance(item, h5py.Dataset)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
