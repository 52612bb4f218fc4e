"""Benchmark-like data without a download: shipped SAC snapshots rolled out in MuJoCo 3.

D4RL's "medium-replay" is the replay buffer of one SAC run at the time its policy was mediocre;
"medium" is that policy rolled out, "expert" a fully trained one (Fu et al. 2020, section 5). Here
another run was saved every 10,000 steps while it learned. A replay buffer is imitated by rolling
out each saved actor, in the order they were saved, for its share of the steps (`recipes`).

`make` writes such a file in D4RL's schema; `cached` makes it once and returns its path.
"""

import contextlib
import hashlib
import importlib.metadata
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import process
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np

from ractd_jax import errors, tasks
from ractd_jax.data import cache, hdf5
from ractd_jax.data.generate import sac_rollout
from ractd_jax.data.generate.recipes import RECIPES, Recipe
from ractd_jax.envs import choice

VERSION = 3  # of the recipes and the roll-out; part of the cached file's name
SNAPSHOTS = Path(__file__).parent / "snapshots"
BLOCK = 16_000  # most steps one process is asked for at a time


def recipe(task: tasks.TaskSpec) -> Recipe:
    """Return the task's recipe.

    Raises:
        UserError: it has none; the message says which tasks have one.

    Example:
        >>> recipe(tasks.get("hopper-medium-v2")).transitions
        1000000
    """
    if task.domain == "kitchen":
        raise errors.UserError(
            f"{task.name} is what people demonstrated, which cannot be simulated: use source=d4rl "
            f"or source=minari:D4RL/kitchen/{task.name.split('-')[1]}-v2"
        )
    if task.name not in RECIPES:
        raise errors.UserError(
            f"no snapshots to simulate {task.name} from: use source=d4rl, or one of "
            f"{', '.join(RECIPES)}"
        )
    return RECIPES[task.name]


def make(
    task: tasks.TaskSpec,
    path: str | os.PathLike,
    *,
    transitions: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Roll the snapshots out and write the episodes in D4RL's HDF5 schema.

    The arrays depend on `seed` and `transitions` only, never on the number of workers. A script
    that calls this needs the usual `if __name__ == "__main__":`, for the workers import it.

    Args:
        task: what to imitate.
        path: the file to write; it appears when complete.
        transitions: steps wanted, plus what finishes the last episode; by default D4RL's number.
        seed: of the environments and the actors.
        workers: processes; one a core by default, and none beside this one if 1.
        advance: called with the number of steps collected so far.

    Raises:
        UserError: there is no recipe for the task, `transitions` or `seed` makes no sense, or the
            file cannot be written.
    """
    mixture = recipe(task)
    transitions = mixture.transitions if transitions is None else transitions
    if transitions < 1 or seed < 0:
        raise errors.UserError(
            f"cannot simulate {transitions} transitions with seed {seed}: "
            "transitions start at 1, seeds at 0"
        )
    file = SNAPSHOTS / f"{task.name.split('-')[0]}.npz"
    with np.load(file) as archive:
        snapshots = dict(archive)

    blocks = [
        sac_rollout.Block(
            task.env_id,
            actor(snapshots, saved_at),
            steps,
            (seed, saved_at, i),
            mixture.noise_of(saved_at),
        )
        for saved_at, i, steps in plan(mixture, transitions)
    ]
    columns = roll_out(blocks, workers=workers, advance=advance)
    metadata = {
        "source": "roll-outs of shipped SAC snapshots",
        "task": task.name,
        "environment": task.env_id,
        "physics": choice.physics(task.env_id),
        "seed": seed,
        "version": VERSION,
        "snapshot_steps": np.array(list(mixture.shares)),
        "snapshot_shares": np.array(list(mixture.shares.values())),
        "snapshot_noise": np.array([mixture.noise_of(at) for at in mixture.shares]),
        "snapshots_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "mujoco": importlib.metadata.version("mujoco"),
        "gymnasium": importlib.metadata.version("gymnasium"),
    }
    hdf5.write(path, columns, metadata)


def roll_out(
    blocks: list[sac_rollout.Block],
    *,
    workers: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> sac_rollout.Episode:
    """Return the columns of all episodes of some blocks, end to end.

    Args:
        blocks: work orders; each yields its steps and what finishes the last episode.
        workers: processes; one a core by default, and none beside this one if 1.
        advance: called with the number of steps collected so far.
    """
    episodes, total, goal = [], 0, 0
    with _mapped(sac_rollout.collect, blocks, workers or os.cpu_count() or 1) as results:
        for block, result in zip(blocks, results, strict=True):
            goal += block.steps
            for episode in result:
                if total >= goal:  # does not look at the episode's length: `sac_rollout.collect`
                    break
                episodes.append(episode)
                total += len(episode["rewards"])
            if advance:
                advance(goal)
    return {name: np.concatenate([e[name] for e in episodes]) for name in episodes[0]}


def cached(task: tasks.TaskSpec, *, transitions: int | None = None, seed: int = 0) -> Path:
    """Return the path of the task's simulated data, made now if they are not there yet.

    Args:
        task: what to imitate.
        transitions: steps wanted; by default D4RL's number.
        seed: of the environments and the actors.

    Raises:
        UserError: as `make`.
    """
    transitions = recipe(task).transitions if transitions is None else transitions
    return cache.keep(task, VERSION, make, transitions, seed)


def plan(mixture: Recipe, transitions: int) -> Iterator[tuple[int, int, int]]:
    """Yield (snapshot, number of the block, steps), the steps adding up to `transitions`.

    Example:
        >>> list(plan(Recipe(0, {0: 1, 10_000: 3}), 40_000))
        [(0, 0, 10000), (10000, 0, 16000), (10000, 1, 14000)]
    """
    shares = np.cumsum(list(mixture.shares.values()))
    ends = np.rint(transitions * shares / shares[-1]).astype(int).tolist()
    for saved_at, start, end in zip(mixture.shares, [0, *ends[:-1]], ends, strict=True):
        for i, begin in enumerate(range(start, end, BLOCK)):
            yield saved_at, i, min(BLOCK, end - begin)


def actor(snapshots: dict[str, np.ndarray], saved_at: int) -> sac_rollout.Actor | None:
    """Return the actor that was saved at a training step, in float32; None for step 0."""
    if saved_at == 0:
        return None
    index = snapshots["steps"].tolist().index(saved_at)
    layers = {name: value for name, value in snapshots.items() if "/" in name}
    return {name: value[index].astype(np.float32) for name, value in layers.items()}


@contextlib.contextmanager
def _mapped(
    function: Callable[[Any], Any], items: list[Any], workers: int
) -> Iterator[Iterator[Any]]:
    """Yield the results in order, from a pool of new processes if there is work for several.

    The processes are spawned, not forked: a fork of a process with JAX's threads may hang. They end
    with this process, however it ends, and when the block is left by an error.

    Raises:
        UserError: a worker process was killed, or could not import the calling script.
    """
    workers = min(workers, len(items))
    if workers == 1:
        yield map(function, items)
        return
    spawn = multiprocessing.get_context("spawn")
    theirs: Any
    theirs, ours = spawn.Pipe(duplex=False)  # ours is closed when this process ends, by kill -9 too
    pool = futures.ProcessPoolExecutor(workers, spawn, _end_with, (theirs,))
    try:
        with _left_to_this_process():
            results = pool.map(function, items)
        yield results
        pool.shutdown()
    except process.BrokenProcessPool as error:
        raise errors.UserError(
            "a simulation process died: out of memory, or called from a script that has no file "
            'or no `if __name__ == "__main__":`; workers=1 needs neither'
        ) from error
    finally:
        ours.close()
        pool.shutdown(cancel_futures=True)
        theirs.close()


def _end_with(parent: connection.Connection) -> None:
    """Let this process end when the other end of a pipe is closed."""

    def wait() -> None:
        parent.poll(None)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _left_to_this_process() -> Iterator[None]:
    """Start processes that do not hear Ctrl-C and SIGTERM: this one does, and ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
