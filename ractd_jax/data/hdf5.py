"""Reads and writes D4RL's HDF5 schema; a file that is not whole is an error of one line.

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

from ractd_jax import errors, tasks
from ractd_jax.data import episodes, validation


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
        raise errors.UserError(
            f"no data file {path}: give the path of an HDF5 file, or a word from docs/data.md"
        )
    try:
        found = _columns(path)
    except (OSError, RuntimeError) as error:
        raise errors.UserError(
            f"cannot read {path} as HDF5, it is damaged or another kind of file (what was made or "
            f"fetched by itself comes again once it is deleted): {_line(error)}"
        ) from error
    return validation.check(found, task, str(path))


def write(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write the arrays as columns, and `metadata/*`; the file appears once complete.

    Raises:
        UserError: the disk is full, read-only or not ours.
    """
    with atomic(path) as temporary, h5py.File(temporary, "w") as file:
        for name, value in arrays.items():
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
    """Read the columns there are, empty those that are not ours: their names help a complaint.

    A column that was written as "no data" (`h5py.Empty`) has no shape, and is empty too.
    """
    with h5py.File(path, "r") as file:
        found = {name: file[name] for name in file if isinstance(file.get(name), h5py.Dataset)}
        return {
            name: np.asarray(c)
            if name in episodes.Transitions._fields and c.shape is not None
            else np.empty(0)
            for name, c in found.items()
        }


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
