"""Checkpoints and run directories, on Orbax.

A checkpoint `<run>/checkpoints/<step>/` has three items: `policy`, the weights that act and the
normalizer; `state`, everything an exact resume needs; `meta`, the step as JSON. Beside them,
`config.json` says how the run was configured, so a policy can be built from its directory alone.
Orbax writes to a temporary folder and renames it: a checkpoint is there whole or not at all. Before
that everything in it gets a sum (`sums`), which is compared when it is read.
"""

import contextlib
import json
import logging
import math
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import filelock
import jax
import numpy as np
import orbax.checkpoint as ocp

from ractd_jax.data import durable
from ractd_jax.errors import UserError, one_line
from ractd_jax.training import multihost, sums

CONFIG = "config.json"
TIMING = "timing.json"
CHECKPOINTS = "checkpoints"
TEMPORARY = ".orbax-checkpoint-tmp"  # in the name of one that is being written


def write_text(path: pathlib.Path, text: str) -> None:
    """Write `text` to a file beside `path` and rename it, so that `path` is never half written.

    Of several processes only the first one writes, here and below.
    """
    if not multihost.first():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        durable.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder with --workdir"
        ) from error


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write `value` as JSON, see `write_text`."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: pathlib.Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {path.parent} holds no run of ractd_jax") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {one_line(error)}") from error


def steps(run: pathlib.Path) -> list[int]:
    """Return the steps of all checkpoints of a run, oldest first.

    Raises:
        UserError: their folder cannot be read.
    """
    folder = run / CHECKPOINTS
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror or error}") from error
    return sorted(int(name) for name in names if re.fullmatch("[0-9]{1,18}", name))


def restore(run: pathlib.Path, step: int, item: str, like: Any) -> Any:
    """Restore one item of a checkpoint.

    Args:
        run: the run's directory.
        step: which checkpoint.
        item: "policy" or "state".
        like: the expected pytree, of arrays or of shapes and types.

    Raises:
        UserError: a file of it is damaged, or its structure or shapes are not those of `like`.
    """
    folder = run / CHECKPOINTS / str(step)
    sums.check(folder, item)
    # Said for every array, or Orbax would want the devices that it was saved on.
    where = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if multihost.several():
        where = jax.NamedSharding(jax.make_mesh((jax.device_count(),), ("all",)), jax.P())
    abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), like)
    try:
        with _quiet(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            tree = reader.restore(
                (folder / item).absolute(), args=ocp.args.StandardRestore(abstract)
            )
    except Exception as error:  # Orbax raises many kinds, all about a tree that does not fit
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the {item} in {folder} does not fit this configuration (another task, size or "
            f"network): {reason[:200]}"
        ) from error
    for (path, want), have in zip(
        jax.tree_util.tree_leaves_with_path(abstract), jax.tree.leaves(tree), strict=True
    ):
        if want.shape != have.shape:
            raise UserError(
                f"the {item} in {folder} has {jax.tree_util.keystr(path)} of shape {have.shape}, "
                f"this configuration needs {want.shape}; restore it with the task, size and "
                "network it was trained with"
            )
    return jax.tree.map(np.asarray, tree) if multihost.several() else tree


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let nobody narrate: what goes wrong is told once, in the error."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class Checkpoints:
    """Writes the checkpoints of one run; the only one that does.

    Args:
        run: the run's directory.
        keep: newest checkpoints to keep.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, run: pathlib.Path, keep: int = 2):
        # Orbax narrates every file it touches, and an error five times over before it raises it.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._run, self.directory = run, run / CHECKPOINTS
        self._writing = 0
        try:
            if multihost.first():
                for left in self.directory.glob(f"*{TEMPORARY}*"):  # by a program that was killed
                    shutil.rmtree(left, ignore_errors=True)
            self._manager = ocp.CheckpointManager(
                self.directory.absolute(),
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=keep,
                    async_options=ocp.AsyncOptions(post_finalization_callback=self._add_sums),
                ),
                item_names=("policy", "state", "meta"),
            )
        except OSError as error:
            raise UserError(f"cannot use {self.directory}: {error.strerror or error}") from error

    def latest(self) -> int | None:
        """Return the step of the newest whole checkpoint, or None."""
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """Return the steps of all whole checkpoints, oldest first."""
        return steps(self._run)

    def save(self, step: int, policy: Any, state: Any, meta: dict) -> None:
        """Save a checkpoint; the writing goes on in the background after the arrays are copied.

        Raises:
            UserError: this checkpoint, or the one before it, could not be written.
        """
        self.wait()
        items = ocp.args.Composite(
            policy=ocp.args.StandardSave(policy),
            state=ocp.args.StandardSave(state),
            meta=ocp.args.JsonSave(meta),
        )
        # Asked before, for Orbax takes minutes and many tracebacks to find a disk full.
        size = sum(getattr(leaf, "nbytes", 0) for leaf in jax.tree.leaves((policy, state)))
        self._writing = step
        try:
            free = shutil.disk_usage(self.directory).free
            if free < size:
                raise OSError(
                    f"No space left on device ({size / 1e6:,.1f} MB wanted, {free / 1e6:,.1f} free)"
                )
            self._manager.save(step, args=items)
        except Exception as error:
            raise self._cannot_write(error) from error

    def _add_sums(self) -> None:
        """Complete a checkpoint; Orbax calls it before it gives the folder its name."""
        for folder in self.directory.glob(f"{self._writing}{TEMPORARY}*"):
            sums.write(folder)

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        try:
            self._manager.wait_until_finished()
            durable.flush(self.directory)
        except Exception as error:
            raise self._cannot_write(error) from error

    def kept(self) -> str:
        """Wait, and say of which update there is a whole checkpoint.

        Raises:
            UserError: the last one could not be written.
        """
        self.wait()
        return self._kept()

    def _kept(self) -> str:
        for step in reversed(self.steps()):
            with contextlib.suppress(UserError):
                for item in ("policy", "state"):
                    sums.check(self.directory / str(step), item)
                return f"the checkpoint of update {step:,} is kept"
        return "no checkpoint was written before"

    def _cannot_write(self, error: Exception) -> UserError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        head, of_the_system, _ = reason.partition(" [os_error_code")
        if of_the_system:  # after several paths comes what is wrong
            reason = head.rpartition(": ")[2]
        return UserError(
            f"cannot write a checkpoint to {self.directory}: {reason}; {self._kept()}; free some "
            "space, see that no other run writes there, and continue with --resume"
        )

    def restore(self, step: int, item: str, like: Any) -> Any:
        """Restore one item: `restore`."""
        return restore(self._run, step, item, like)

    def close(self) -> None:
        """Wait and release the manager's threads, of a checkpoint that failed too.

        Raises:
            UserError: the last checkpoint could not be written.
        """
        try:
            self.wait()
        finally:
            with contextlib.suppress(Exception):  # `wait` has said what went wrong
                self._manager.close()


# ---- run directories -----------------------------------------------------------------------------

FINISHED = "finished"


def run_status(run: pathlib.Path) -> str | None:
    """Return "finished", "unfinished", or None if `run` holds no run."""
    if (run / FINISHED).exists():
        return "finished"
    return "unfinished" if (run / CONFIG).exists() else None


def mark_finished(run: pathlib.Path) -> None:
    """Note that the run has reached its last update."""
    write_text(run / FINISHED, "")


def clear_run(run: pathlib.Path) -> None:
    """Remove what a run wrote, and nothing else that lies in its folder.

    Raises:
        UserError: something of it cannot be removed.
    """
    if not multihost.first():
        return
    evaluations = [path.name for path in run.glob("eval*.json")]
    try:  # what says that it is whole goes first
        for name in (FINISHED, CONFIG, TIMING, "metrics.jsonl", *evaluations):
            (run / name).unlink(missing_ok=True)
        if (run / CHECKPOINTS).exists():
            shutil.rmtree(run / CHECKPOINTS)
    except OSError as error:
        raise UserError(
            f"cannot remove {error.filename}: {error.strerror}; remove {run} by hand, or choose "
            "another folder with --workdir"
        ) from error


@contextlib.contextmanager
def alone(run: pathlib.Path) -> Iterator[None]:
    """Keep other programs out of a run's folder.

    Raises:
        UserError: another one trains there.
    """
    if not multihost.first():
        yield
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(run / ".lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(
            f"another program trains in {run}: wait for it, or choose another folder with --workdir"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot write to {run}: {error.strerror or error}; choose another folder with "
            "--workdir"
        ) from error
    try:
        yield
    finally:
        lock.release()


class Log:
    """Metrics as one JSON object a line.

    Args:
        path: of the file.
        start: step from which the run continues; records after it are dropped, they come again.
    """

    def __init__(self, path: pathlib.Path, start: int):
        self._path = path
        kept = [line for line in _lines(path) if _step(line) <= start] if start else []
        write_text(path, "".join(f"{line}\n" for line in kept))

    def write(self, record: dict) -> None:
        """Append one record."""
        if not multihost.first():
            return
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error


def _lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; remove it") from error


def _step(line: str) -> float | int:
    """Return the step of a record; infinity for a line that is none, as one cut short by a kill."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return math.inf
    return step if type(step) is int else math.inf
