"""Reads and writes D4RL's HDF5 schema; a file that is not whole is an error of one line.

Schema (Fu et al. 2020, "D4RL"): `observations` (n, obs), `actions` (n, act), `rewards` (n,),
`terminals` (n,) and `timeouts` (n,), one row a step; `next_observations`, `infos/*` and
`metadata/*` may stand beside them. A column `episode` or `step` and the next observations are signs
of where episodes end (`ends`); all others are not read.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ractd_jax import errors, tasks
from ractd_jax.data import cache, ends, episodes, hdf5_layout, validation


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
    if not is_file(path):
        raise errors.UserError(
            f"no data file {path}: give the path of an HDF5 file, or a word from docs/data.md"
        )
    with hdf5_layout.opened(path) as file:
        columns = _columns(file, path, task)
    return validation.check(columns, task, str(path))


def is_file(path: Path) -> bool:
    """Tell if there is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def dimension_names(path: Path) -> dict[str, list[str]]:
    """Return the names of dimensions, where a file has them.

    They are an attribute `names` of `observations` or `actions`, a text for each dimension.

    Raises:
        UserError: it cannot be read.
    """
    with hdf5_layout.opened(path) as file:
        named: dict[str, Any] = {
            column: file[column].attrs["names"]
            for column in ("observations", "actions")
            if column in file and "names" in file[column].attrs
        }
    return {
        column: [hdf5_layout.shown(n.decode() if isinstance(n, bytes) else str(n)) for n in names]
        for column, names in named.items()
        if isinstance(names, np.ndarray) and names.ndim == 1
    }


def write(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write a file; it appears once it is complete, with sums that reading compares.

    Args:
        path: of the file; missing folders are made.
        arrays: columns, by name.
        metadata: numbers, texts and arrays, which become `metadata/<name>`.

    Raises:
        UserError: the disk is full, or the place cannot be written.
    """
    # This format has sums of what describes the columns; Fletcher's are of their numbers.
    with cache.atomic(path) as temporary, h5py.File(temporary, "w", libver="v110") as file:
        for name, value in arrays.items():
            summed = np.ndim(value) > 0 and np.size(value) > 0  # nothing else can be
            file.create_dataset(name, data=value, fletcher32=summed)
        for name, value in metadata.items():
            file[f"metadata/{name}"] = value


def _columns(file: h5py.File, path: Path, task: tasks.TaskSpec) -> dict[str, np.ndarray]:
    """Return the columns of D4RL's schema and the signs of an episode's end.

    Names, shapes and types are looked at first. Next observations are read where they are needed.
    """
    columns = hdf5_layout.columns(file, path)
    shapes = {  # "no data" (h5py.Empty) has no shape, and is empty
        hdf5_layout.shown(name): ((0,) if column.shape is None else column.shape, column.dtype)
        if name in (*episodes.Transitions._fields, *ends.SIGNS)
        else ((0,), np.dtype(float))  # its type may be anything
        for name, column in columns.items()
    }
    validation.check_shapes(shapes, task, str(path))
    wanted = [*episodes.Transitions._fields, *ends.EPISODE, *ends.STEP]
    if task.name == tasks.CUSTOM or "timeouts" not in columns:
        wanted.append(ends.NEXT)
    chosen = {name: columns[name] for name in wanted if name in columns}
    chosen = {name: column for name, column in chosen.items() if column.shape is not None}
    hdf5_layout.check_readable(chosen, path)
    return {name: np.asarray(column[()]) for name, column in chosen.items()}
