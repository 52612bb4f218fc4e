"""Trains a behaviour policy from scratch with SAC and keeps its replay: the learner of `collect`.

The learner is sbx-rl's, Stable Baselines in JAX (Haarnoja et al. 2018), the extra `collect`, which
brings stable-baselines3 and PyTorch along. Everything lies in one folder:

    snapshots/<step>.npz    the actor at that step, in the format of `sac_rollout.act`
    checkpoint-<step>/      what a stopped run continues from: the learner, its replay buffer, and
                            collect.json, which names the environment and what each snapshot earned

Nothing is pickled: Stable Baselines' own `save` writes pickles, which may run any code when they
are loaded. The arrays of the learner and of its replay buffer are saved by numpy instead, so
`_learner` has to name the attributes that hold them.

A continued run is not the same to the bit as one that was not stopped: the environment begins a new
episode, and the unfinished one counts as no episode (`cuts`).
"""

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np

from ractd_jax import errors
from ractd_jax.data import cache, durable
from ractd_jax.envs.make import make_env

META, LEARNER, REPLAY = "collect.json", "learner.npz", "buffer.npz"  # files of a checkpoint
BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
WIDTH = 256  # of both hidden layers, of actor and critics
LAYERS = {"Dense_0": "hidden0", "Dense_1": "hidden1", "Dense_2": "mean", "Dense_3": "log_std"}


def make_learner(env: gymnasium.Env, *, steps: int, warmup: int, seed: int) -> Any:
    """Return a new SAC learner, with room for `steps` transitions.

    Args:
        env: with a vector of numbers as observation, and continuous actions.
        steps: size of the replay buffer; nothing is ever dropped from it.
        warmup: steps of uniformly random actions before it learns.
        seed: of networks, actions and minibatches.

    Raises:
        UserError: sbx-rl is not installed.
    """
    try:
        import sbx
    except ImportError as error:
        raise errors.UserError(
            f"learning needs sbx-rl ({error}): pip install '.[collect]' here, or pip install sbx-rl"
        ) from error
    return sbx.SAC(
        "MlpPolicy",
        env,
        seed=seed,
        buffer_size=steps,
        batch_size=256,
        learning_starts=warmup,
        policy_kwargs={"net_arch": [WIDTH, WIDTH]},
    )


def actor(model: Any) -> dict[str, np.ndarray]:
    """Return the actor's weights in the format of `sac_rollout.act`."""
    params = jax.device_get(model.policy.actor_state.params)
    params = params.get("params", params)
    return {
        f"{name}/{part}": np.asarray(params[layer][part], np.float32)
        for layer, name in LAYERS.items()
        for part in ("kernel", "bias")
    }


def train(
    folder: Path,
    checkpoint: Path | None,
    meta: dict[str, Any],
    steps: int,
    advance: Callable[[int, dict[str, float]], None],
) -> None:
    """Train up to `steps` environment steps, saving at every snapshot.

    Args:
        folder: of the run.
        checkpoint: what to continue from; None to begin.
        meta: contents of collect.json (see `collect.describe`); `snapshots` and `cuts` grow.
        steps: environment steps in all.
        advance: called with the steps made and the mean `return` of the last snapshot's episodes,
            where there are any.

    Raises:
        UserError: sbx-rl is missing, the folder cannot be written, or a checkpoint does not fit.
    """
    env = make_env(meta["env"])
    seed = meta["seed"]
    if checkpoint:  # with the same seed it would draw the same noise again
        seed += int(checkpoint.name.removeprefix("checkpoint-"))
    model = make_learner(env, steps=steps, warmup=meta["warmup"], seed=seed)
    if checkpoint:
        _restore(model, checkpoint, meta)
    while model.num_timesteps < steps:
        every = meta["snapshot_every"]
        goal = min((model.num_timesteps // every + 1) * every, steps)
        begin = model.num_timesteps
        model.learn(goal - begin, reset_num_timesteps=False, log_interval=None)
        returns = episode_returns(model.replay_buffer, begin, goal, meta["cuts"])
        mean = float(np.mean(returns)) if returns else None
        meta["snapshots"][str(goal)] = {"episodes": len(returns), "return_mean": mean}
        path = folder / "snapshots" / f"{goal}.npz"
        with cache.atomic(path) as temporary:
            _savez(temporary, actor(model))
        save(model, folder, meta)
        advance(goal, {} if mean is None else {"return": mean})
    env.close()


def episode_returns(buffer: Any, begin: int, end: int, cuts: list[int]) -> list[float]:
    """Return the plain returns of the episodes that ended in rows `begin` to `end`."""
    ends = np.flatnonzero(buffer.dones[:end, 0])
    totals = np.cumsum(buffer.rewards[:end, 0], dtype=np.float64)[ends]
    returns = np.diff(totals, prepend=0.0)
    whole = (ends >= begin) & ~np.isin(ends, cuts)
    return returns[whole].tolist()


# ---- checkpoints ---------------------------------------------------------------------------------


def save(model: Any, folder: Path, meta: dict[str, Any]) -> None:
    """Save learner, buffer and collect.json; older checkpoints go once the new one is whole."""
    step = model.num_timesteps
    new, temporary = folder / f"checkpoint-{step}", folder / ".checkpoint.tmp"
    buffer = model.replay_buffer
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _savez(temporary / LEARNER, _named(_learner(model)))
        columns = {name: getattr(buffer, name)[:step, 0] for name in BUFFER}
        _savez(temporary / REPLAY, columns)
        (temporary / META).write_text(json.dumps(meta, indent=1))
        old = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
        durable.flush_tree(temporary)
        durable.replace(temporary, new)
        for path in old:
            shutil.rmtree(path)
    except OSError as error:
        raise errors.UserError(f"cannot write {new}: {error}") from error


def _learner(model: Any) -> dict[str, Any]:
    """Return all that learning changes, apart from the buffer."""
    return {
        "actor": model.policy.actor_state,
        "critics": model.policy.qf_state,
        "temperature": model.ent_coef_state,
        "key": model.key,
        "updates": model._n_updates,  # noqa: SLF001  (it has no public name)
    }


def _named(tree: Any) -> dict[str, np.ndarray]:
    """Return the arrays and numbers of a tree by their paths in it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _filled(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return a tree with its arrays and numbers replaced by those that `_named` returned.

    Raises:
        KeyError: one is missing.
        ValueError: one has another shape.
    """

    def replaced(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path)
        array = arrays[name]
        if array.shape != np.shape(leaf):
            raise ValueError(f"{name} is {array.shape}, expected {np.shape(leaf)}")
        return type(leaf)(array) if isinstance(leaf, int) else array

    return jax.tree_util.tree_map_with_path(replaced, tree)


def _savez(path: Path, arrays: Mapping[str, Any]) -> None:
    with path.open("wb") as file:  # given a path, numpy would append .npz to it
        np.savez(file, **arrays)


def _restore(model: Any, checkpoint: Path, meta: dict[str, Any]) -> None:
    """Put a checkpoint back into a new learner, and begin a new episode."""
    try:
        with (checkpoint / LEARNER).open("rb") as file, np.load(file) as saved:
            state = _filled(_learner(model), saved)
        with (checkpoint / REPLAY).open("rb") as file, np.load(file) as saved:
            columns = {name: saved[name] for name in BUFFER}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise errors.UserError(
            f"{checkpoint} cannot be continued from, begin anew in another folder: "
            f"{' '.join(str(error).split())}"
        ) from error
    model.policy.actor_state, model.policy.qf_state = state["actor"], state["critics"]
    model.ent_coef_state, model.key = state["temperature"], jax.numpy.asarray(state["key"])
    model._n_updates = state["updates"]  # noqa: SLF001
    buffer, step = model.replay_buffer, len(columns["rewards"])
    for name, column in columns.items():
        getattr(buffer, name)[:step, 0] = column
    buffer.pos = step % buffer.buffer_size
    buffer.full = step == buffer.buffer_size
    model.num_timesteps = step
    if not buffer.dones[step - 1, 0]:
        # For the learner its time limit ended the episode: its next observation still counts.
        buffer.dones[step - 1, 0] = buffer.timeouts[step - 1, 0] = 1
        meta["cuts"].append(step - 1)
