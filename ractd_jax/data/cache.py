"""Files that are made once: where they lie, one writer at a time, and never half a file.

What was simulated lies in the folder that the environment variable `RACTD_DATA_DIR` names, or else
in `~/.cache/ractd_jax`. Its name says all that it depends on, so it is made again only when one of
them changes.
"""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock

from ractd_jax import console, errors, tasks
from ractd_jax.data import durable
from ractd_jax.envs import choice


def folder() -> Path:
    """Return the folder of what was simulated."""
    return Path(os.environ.get("RACTD_DATA_DIR") or Path.home() / ".cache" / "ractd_jax")


def path_of(task: tasks.TaskSpec, version: int, transitions: int, seed: int) -> Path:
    """Return where the simulated data of a task lie, whether they are there or not.

    Args:
        task: the task, in the environment that they are made in.
        version: of the procedure that makes them.
        transitions: steps.
        seed: of the simulation.

    Example:
        >>> path_of(tasks.get("hopper-medium-v2"), 1, 1000, 0).name
        'hopper-medium-v2-simulated1-d4rl-1000-seed0.hdf5'
    """
    made = f"simulated{version}-{choice.word_of(task.env_id)}"
    return folder() / f"{task.name}-{made}-{transitions}-seed{seed}.hdf5"


def keep(
    task: tasks.TaskSpec, version: int, make: Callable[..., Any], transitions: int, seed: int
) -> Path:
    """Return the path of a task's simulated data, made now if they are not there yet.

    Of several processes that want the same file one makes it and the others wait for it.

    Args:
        task: the task.
        version: of the procedure that makes them.
        make: `(task, path, transitions=, seed=, advance=)` writes the file; `advance` is to be
            called with the number of steps so far.
        transitions: steps.
        seed: of the simulation.

    Raises:
        UserError: the folder cannot be written, or what `make` raises.
    """
    path = path_of(task, version, transitions, seed)
    if path.exists():
        return path
    try:  # now, not after all that work
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise errors.UserError(f"cannot write {path.parent}: {error}") from error
    with one_writer(path, "simulating"):
        if not path.exists():
            progress = console.Progress()
            progress.console.print(f"simulating {task.name} into {path}", soft_wrap=True)
            with progress.task("simulate", transitions) as bar:
                make(task, path, transitions=transitions, seed=seed, advance=bar.update)
    return path


@contextlib.contextmanager
def one_writer(path: Path, doing: str) -> Iterator[None]:
    """Let one process at a time make a file, and tell the others what they wait for.

    Args:
        path: of the file; a lock of its name is put beside it, in a folder that is there.
        doing: what the other process does with it, as "downloading".
    """
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=1)
    except filelock.Timeout:
        text = f"another process is {doing} {path.name}: waiting for it"
        console.make_console().print(text, markup=False, soft_wrap=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


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
        durable.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # h5py raises either when the disk is full
        line = " ".join(str(error).split())
        raise errors.UserError(f"cannot write {path}: {line}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
